"""Base of all packet tests: the network of network.py on the device, and exact expectations."""

from __future__ import annotations

import contextlib
import itertools
import os
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import ptf
from common import device
from common.device import Count, PacketIn
from common.network import (
    COPIES,
    CPU_PORT,
    FAMILIES,
    FLOOD_GROUP,
    NEXT,
    OTHER,
    OURS,
    PORTS,
    UPLINK,
    Drop,
    FiveTuple,
    Host,
    address,
)
from p4.v1 import p4runtime_pb2
from ptf.base_tests import BaseTest
from scapy.layers.l2 import Ether
from scapy.utils import hexdump

ARRIVES_WITHIN = 2.0
"""Seconds for what must come."""
QUIET = 0.01
"""Seconds of silence after which the next frame is sent. What comes later than that is found by
the check after it, or by the last one."""
QUIET_AT_LAST = 0.1
"""Seconds of silence at a test's end."""

Frames = Mapping[int, bytes | list[bytes]]


class DyscoTest(BaseTest):
    """One device with the entries for the network of network.py, and no session or policy."""

    def setUp(self) -> None:
        super().setUp()
        self.dataplane = ptf.dataplane_instance
        self.dataplane.flush()
        self.dataplane.start_pcap(os.path.join(ptf.config["log_dir"], f"{self}.pcap"))
        self.addCleanup(self.dataplane.stop_pcap)
        self.device = device.connect()
        self.addCleanup(self.device.close)
        self.device.insert(*self.network())

    def tearDown(self) -> None:
        self._compare("after the test", [], [], quiet=QUIET_AT_LAST)
        super().tearDown()

    def network(self) -> Iterator[Any]:
        """The entities that make the network of network.py."""
        yield from _clone_sessions()
        yield _flood_group()
        for host in OURS:
            params = {"host": host.id, "is_middlebox": host.is_middlebox, "uplink": UPLINK}
            yield self.device.table("port", {"ingress_port": host.port}, "host_port", params)
            params = {"port": host.port, "host": host.id}
            yield self.device.table("bridge", {"dst_mac": host.mac}, "bridge_to_host", params)
            for family in FAMILIES:
                length = 128 if family == "v6" else 32
                yield self.to_host(f"{address(host, family)}/{length}", host)
        for prefix in ("10.0.0.0/8", "2001:db8::/32"):
            yield self.next_hop(prefix, NEXT)
        for prefix in ("10.3.0.0/16", "2001:db8:3::/48"):
            yield self.next_hop(prefix, OTHER)

    def next_hop(self, prefix: str, host: Host) -> Any:
        """A route to the network."""
        params = {"port": host.port, "dst_mac": host.mac}
        return self.device.table(_route_table(prefix), {"dst": prefix}, "next_hop", params)

    def to_host(self, prefix: str, host: Host) -> Any:
        """A route to a host of the device."""
        params = {"port": host.port, "dst_mac": host.mac, "host": host.id}
        return self.device.table(_route_table(prefix), {"dst": prefix}, "to_host", params)

    def outbound(
        self,
        host: Host,
        session: FiveTuple,
        subsession: FiveTuple,
        idle: int = 0,
        slot: int = 0,
    ) -> Any:
        """An entry that maps what the host sends; `idle` in ns."""
        table, action = f"outbound_{session.family}", f"to_subsession_{session.family}"
        match = {"host": host.id, **session._asdict()}
        params = {**subsession._asdict(), "slot": slot}
        return self.device.table(table, match, action, params, idle_timeout_ns=idle)

    def inbound(
        self,
        host: Host,
        subsession: FiveTuple,
        session: FiveTuple,
        slot: int = 0,
        path: int = 0,
    ) -> Any:
        """An entry that maps what the host receives."""
        table, action = f"inbound_{session.family}", f"to_session_{session.family}"
        match = {"host": host.id, **subsession._asdict()}
        params = {**session._asdict(), "slot": slot, "path": path}
        return self.device.table(table, match, action, params)

    def policy(self, family: str, chain: int | None, priority: int = 10, **match: Any) -> Any:
        """A policy entry; `chain` None: direct. `match` has (value, mask) pairs."""
        action, params = ("direct", {}) if chain is None else ("chain", {"policy": chain})
        return self.device.table(f"policy_{family}", match, action, params, priority=priority)

    def send(self, port: int, frame: bytes) -> None:
        """A frame into the device at that port."""
        self.dataplane.send(0, port, frame)

    def check(
        self,
        port: int,
        frame: bytes,
        out: Frames | None = None,
        packet_ins: Iterable[PacketIn] = (),
        name: object = "",
    ) -> None:
        """Send a frame: exactly `out` must leave (frames by port), exactly `packet_ins` come."""
        self.send(port, frame)
        self.expect(out, packet_ins, name)

    def expect(
        self, out: Frames | None = None, packet_ins: Iterable[PacketIn] = (), name: object = ""
    ) -> None:
        """Exactly these frames leave, byte for byte, and exactly these packet-ins come."""
        frames = [
            (port, frame)
            for port, frames in (out or {}).items()
            for frame in (frames if isinstance(frames, list) else [frames])
        ]
        self._compare(name, frames, list(packet_ins), QUIET)

    @contextlib.contextmanager
    def dropped(self, reason: Drop, frames: int = 1) -> Iterator[None]:
        """Within it `frames` more frames are dropped for that reason, and none for another."""
        before = self._drops()
        yield
        expected = dict(before)
        expected[reason] += frames
        self.eventually(self._drops, expected, f"drops of {reason.name}")

    def eventually(self, read: Any, expected: Any, what: str) -> None:
        """Wait until `read()` gives `expected`; fail with what it gives at last."""
        deadline = time.monotonic() + ARRIVES_WITHIN
        while (value := read()) != expected and time.monotonic() < deadline:
            time.sleep(0.01)
        assert value == expected, f"{what}: {value}, not {expected}"

    def counted(self, entity: Any, packets: int, size: int) -> None:
        """The entry's direct counter must come to these packets and bytes."""
        expected = Count(packets, size)
        self.eventually(lambda: self.device.direct_count(entity), expected, "direct counter")

    def received(self, count: int) -> list[tuple[int, bytes]]:
        """The next `count` frames, as (port, frame); fewer if no more come."""
        return list(self._frames(count))

    def _drops(self) -> dict[Drop, int]:
        return {drop: self.device.count("drops", drop).packets for drop in Drop}

    def _frames(self, awaited: int | None, quiet: float = QUIET) -> Iterator[tuple[int, bytes]]:
        """That many frames, or fewer if they don't come; None: whatever comes until silence."""
        for left in _patience(awaited, quiet):
            result = self.dataplane.poll(device_number=0, timeout=left)
            if not isinstance(result, self.dataplane.PollSuccess):
                return
            yield result.port, bytes(result.packet)

    def _packet_ins(self, awaited: int | None, quiet: float = QUIET) -> Iterator[PacketIn]:
        """As `_frames`."""
        for left in _patience(awaited, quiet):
            result = self.device.packet_in(left)
            if result is None:
                return
            yield result

    def _compare(
        self,
        name: object,
        frames: list[tuple[int, bytes]],
        packet_ins: list[PacketIn],
        quiet: float,
    ) -> None:
        got_frames = list(self._frames(len(frames)))
        got_packet_ins = list(self._packet_ins(len(packet_ins)))
        # One time of silence serves both.
        got_frames += self._frames(None, quiet)
        got_packet_ins += self._packet_ins(None, quiet / 10)
        wrong = [
            *_differences("frame", frames, got_frames, lambda item: item[1]),
            *_differences("packet-in", packet_ins, got_packet_ins, lambda item: item.frame),
        ]
        if wrong:
            self.fail("\n".join([f"{name or 'wrong'}:", *wrong]))


def _differences(
    what: str, expected: list[Any], got: list[Any], bytes_of: Callable[[Any], bytes]
) -> Iterator[str]:
    """Lines about what is missing and what came in vain."""
    missing, extra = Counter(expected) - Counter(got), Counter(got) - Counter(expected)
    for heading, items in ((f"{what} missing", missing), (f"{what} not expected", extra)):
        for item in items.elements():
            frame = bytes_of(item)
            where = [str(field) for field in item if field is not frame]
            yield f"{heading}: {' '.join(where)}: {Ether(frame).summary()}"
            yield hexdump(frame, dump=True)


def _patience(awaited: int | None, quiet: float) -> Iterator[float]:
    """How many seconds to wait for each of `awaited` things, or for silence."""
    deadline = time.monotonic() + ARRIVES_WITHIN
    if awaited is None:
        yield from itertools.repeat(quiet)
    else:
        for _ in range(awaited):
            yield max(deadline - time.monotonic(), 0.001)


def _route_table(prefix: str) -> str:
    return "route_v6" if ":" in prefix else "route_v4"


def _clone_sessions() -> Iterator[Any]:
    for number in range(1, sum(COPIES) + 1):
        entity = p4runtime_pb2.Entity()
        session = entity.packet_replication_engine_entry.clone_session_entry
        session.session_id = number
        for copy in COPIES:
            if number & copy:
                session.replicas.add(egress_port=CPU_PORT, instance=copy)
        yield entity


def _flood_group() -> Any:
    entity = p4runtime_pb2.Entity()
    group = entity.packet_replication_engine_entry.multicast_group_entry
    group.multicast_group_id = FLOOD_GROUP
    for port in PORTS:
        group.replicas.add(egress_port=port, instance=1)
    return entity
