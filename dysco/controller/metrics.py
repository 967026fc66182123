"""Prometheus metrics; labels are names of devices, hosts and counters, all of them bounded."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Metric, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    SummaryMetricFamily,
)
from prometheus_client.registry import Collector

from dysco.controller.nic import Nic
from dysco.controller.p4device import State
from dysco.controller.service import Service
from dysco.controller.spent import Spent

CONTENT_TYPE = CONTENT_TYPE_LATEST


async def exposition(service: Service) -> bytes:
    """All metrics, as text."""
    registry = CollectorRegistry()
    registry.register(_Collector(service, {nic.name: await nic.drops() for nic in service.nics}))
    return generate_latest(registry)


class _Collector(Collector):
    def __init__(self, service: Service, drops: dict[str, dict[str, int]]) -> None:
        self._service, self._drops = service, drops

    def collect(self) -> Iterator[Metric]:
        """One family after the other."""
        nics = self._service.nics
        yield _per_device("dysco_device_ready", "1 if reconciled", nics, _is_ready)
        yield _per_device("dysco_session_entries", "Session entries held", nics, _entries)
        yield _per_device("dysco_legs_tracked", "Legs that have a slot", nics, _legs)
        ports = GaugeMetricFamily(
            "dysco_ports_in_use", "Port pairs of subsessions", labels=["device", "host"]
        )
        for nic in nics:
            for agent in nic.runner.agents.values():
                ports.add_metric([nic.name, agent.host.name], agent.ports_in_use)
        yield ports
        yield _summary("dysco_agent_seconds", "Time in the agents", nics, _agent_spent)
        yield _summary("dysco_write_seconds", "Time of P4Runtime Writes", nics, _write_spent)
        sessions = GaugeMetricFamily(
            "dysco_sessions", "Sessions at a host", labels=["device", "host", "state"]
        )
        for nic in nics:
            for host, states in nic.session_states().items():
                for state, count in states.items():
                    sessions.add_metric([nic.name, host, state], count)
        yield sessions
        yield self._counters("dysco_device_events", "What happened to a device", "device")
        yield self._counters("dysco_agent_events", "What happened at a host", "host")
        drops = CounterMetricFamily(
            "dysco_drops",
            "Packets that the P4 program dropped, or a change cost",
            labels=["device", "reason"],
        )
        for device, counted in self._drops.items():
            for reason, packets in counted.items():
                drops.add_metric([device, reason], packets)
        yield drops

    def _counters(self, name: str, text: str, label: str) -> CounterMetricFamily:
        family = CounterMetricFamily(name, text, labels=[label, "event"])
        for nic in self._service.nics:
            counted: dict[str, Counter[str]] = (
                {nic.name: nic.all_counters()} if label == "device" else nic.host_counters()
            )
            for who, events in counted.items():
                for event, times in events.items():
                    family.add_metric([who, event], times)
        return family


def _is_ready(nic: Nic) -> float:
    return float(nic.device.state is State.READY)


def _entries(nic: Nic) -> float:
    return float(nic.runner.entries)


def _legs(nic: Nic) -> float:
    return float(nic.runner.legs.tracked)


def _agent_spent(nic: Nic) -> Spent:
    return nic.runner.spent


def _write_spent(nic: Nic) -> Spent:
    return nic.device.writer.spent


def _summary(
    name: str, text: str, nics: list[Nic], value: Callable[[Nic], Spent]
) -> SummaryMetricFamily:
    family = SummaryMetricFamily(name, text, labels=["device"])
    for nic in nics:
        spent = value(nic)
        family.add_metric([nic.name], count_value=spent.count, sum_value=spent.seconds)
    return family


def _per_device(
    name: str, text: str, nics: list[Nic], value: Callable[[Nic], float]
) -> GaugeMetricFamily:
    family = GaugeMetricFamily(name, text, labels=["device"])
    for nic in nics:
        family.add_metric([nic.name], value(nic))
    return family
