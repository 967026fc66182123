"""Prometheus metrics of a device, at an address of their own (--metrics-addr).

Labels are ports, drop reasons, names of tables: all of them bounded.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from wsgiref.simple_server import WSGIServer

from prometheus_client import CollectorRegistry, Metric, start_http_server
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from softnic.dataplane import PortStats
from softnic.native import NativeDataPlane
from softnic.p4runtime.drops import Drops

_PORT = ("port", "interface")
_PER_PORT: tuple[tuple[str, str, Callable[[PortStats], int]], ...] = (
    ("receive_packets", "Frames that came in", lambda p: p.rx_frames),
    ("receive_bytes", "Their bytes", lambda p: p.rx_bytes),
    ("transmit_packets", "Frames that went out", lambda p: p.tx_frames),
    ("transmit_bytes", "Their bytes", lambda p: p.tx_bytes),
)


class _Collector(Collector):
    def __init__(self, plane: NativeDataPlane, drops: Drops) -> None:
        self._plane, self._drops = plane, drops

    def collect(self) -> Iterator[Metric]:
        """One family after the other."""
        ports = [(_labels(p), p) for p in self._plane.ports()]
        up = GaugeMetricFamily("softnic_port_up", "1 if its link is up", labels=_PORT)
        for labels, p in ports:
            up.add_metric(labels, p.up)
        yield up
        for name, text, value in _PER_PORT:
            family = CounterMetricFamily(f"softnic_port_{name}", text, labels=_PORT)
            for labels, p in ports:
                family.add_metric(labels, value(p))
            yield family
        lost = CounterMetricFamily(
            "softnic_port_dropped_packets", "Frames lost, and why", labels=(*_PORT, "reason")
        )
        for labels, p in ports:
            for reason, count in p.drops.items():
                lost.add_metric([*labels, reason], count)
        yield lost
        yield from self._tables()
        happened = CounterMetricFamily(
            "softnic_program_events", "What may be a mistake of the program", labels=["event"]
        )
        for event, count in self._plane.program_events().items():
            happened.add_metric([event], count)
        yield happened
        served = CounterMetricFamily(
            "softnic_server_dropped", "What the server lost, and why", labels=["reason"]
        )
        for reason, count in self._drops.counts().items():
            served.add_metric([reason], count)
        yield served

    def _tables(self) -> Iterator[Metric]:
        used = GaugeMetricFamily("softnic_table_entries", "Entries held", labels=["table"])
        size = GaugeMetricFamily("softnic_table_size", "Entries it can hold", labels=["table"])
        program = self._plane.program
        for name, info in program.tables.items() if program is not None else ():
            if info.key:
                used.add_metric([name], self._plane.entry_count(name))
                size.add_metric([name], info.size)
        yield used
        yield size


def _labels(p: PortStats) -> list[str]:
    """What was sent to ports that don't exist has no number."""
    return ["none" if p.port < 0 else str(p.port), p.interface]


class MetricsServer:
    """Answers scrapes until closed."""

    def __init__(self, plane: NativeDataPlane, drops: Drops, address: str) -> None:
        """Listen at HOST:PORT (port 0: a free one). OSError where that can't be."""
        host, _, port = address.rpartition(":")
        registry = CollectorRegistry()
        registry.register(_Collector(plane, drops))
        self._server: WSGIServer
        self._thread: threading.Thread
        self._server, self._thread = start_http_server(
            int(port), host.strip("[]") or "127.0.0.1", registry
        )

    @property
    def address(self) -> str:
        """Where it listens."""
        host, port = self._server.server_address[:2]
        return f"{host!s}:{port}"

    def close(self) -> None:
        """Stop; a scrape that is under way is answered."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
