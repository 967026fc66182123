"""Devices that run our P4 program with entries written by hand: the data plane without Dysco.

    python -m dysco.bench.static_nic PLAN.json

Runs in the namespace of the devices. It pushes the program, writes the plan's entries, says
"ready", and answers the SYN of a planned session, which the program punts, as an agent would: it
goes on with its subsession's source port. It runs until it is ended.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import finsy as fy

from dysco.agent.events import Reason, Submit

HOST = 1
"""The number of the one host behind each device."""

_BUILD = Path(__file__).resolve().parents[2] / "p4src" / "v1model" / "build"
_CPU_PORT = 255
_ETHERNET, _IPV4, _CHECKSUM = 14, 20, 16
_BATCH = 500


@dataclass(frozen=True, slots=True)
class Sessions:
    """Sessions of the host that differ in their source port, and so do their subsessions."""

    src: str
    dst: str
    dport: int
    first: int
    """Source port of the first session."""
    mapped_first: int
    """Source port of its subsession in the network."""
    count: int


@dataclass(frozen=True, slots=True)
class Plan:
    """One device with a host and a network port."""

    name: str
    address: str
    device_id: int
    host_port: int
    network_port: int
    host_mac: str
    routes: tuple[tuple[str, str], ...] = ()
    """Destination address and MAC, at the network port."""
    sessions: tuple[Sessions, ...] = ()


def write_plans(plans: list[Plan], file: Path) -> None:
    """Write a file for the command line."""
    file.write_text(json.dumps([asdict(plan) for plan in plans]))


def read_plans(file: Path) -> list[Plan]:
    """Read what `write_plans` wrote."""

    def plan(tree: dict[str, Any]) -> Plan:
        sessions = tuple(Sessions(**part) for part in tree.pop("sessions"))
        routes = tuple((address, mac) for address, mac in tree.pop("routes"))
        return Plan(**tree, routes=routes, sessions=sessions)

    return [plan(tree) for tree in json.loads(file.read_text())]


def replication(plan: Plan) -> list[Any]:
    """The flood group and the CPU's clone session."""
    ports = [plan.host_port, plan.network_port]
    return [
        fy.P4MulticastGroupEntry(1, replicas=ports),
        fy.P4CloneSessionEntry(1, replicas=[_CPU_PORT]),
    ]


def entries(plan: Plan) -> Iterator[fy.P4TableEntry]:
    """All table entries of a plan."""
    yield _entry(
        "port",
        {"ingress_port": plan.host_port},
        fy.P4TableAction("host_port", host=HOST, is_middlebox=0, uplink=plan.network_port),
    )
    yield _entry(
        "bridge",
        {"dst_mac": plan.host_mac},
        fy.P4TableAction("bridge_to_host", port=plan.host_port, host=HOST),
    )
    for address, mac in plan.routes:
        yield _entry(
            "route_v4",
            {"dst": f"{address}/32"},
            fy.P4TableAction("next_hop", port=plan.network_port, dst_mac=mac),
        )
    for sessions in plan.sessions:
        yield from _session_entries(sessions)


def _session_entries(sessions: Sessions) -> Iterator[fy.P4TableEntry]:
    a, b, dport = sessions.src, sessions.dst, sessions.dport
    for number in range(sessions.count):
        port, mapped = sessions.first + number, sessions.mapped_first + number
        yield _entry(
            "outbound_v4",
            {"host": HOST, "src": a, "dst": b, "sport": port, "dport": dport},
            fy.P4TableAction("to_subsession_v4", src=a, dst=b, sport=mapped, dport=dport, slot=0),
        )
        yield _entry(
            "inbound_v4",
            {"host": HOST, "src": b, "dst": a, "sport": dport, "dport": mapped},
            fy.P4TableAction(
                "to_session_v4", src=b, dst=a, sport=dport, dport=port, slot=0, path=0
            ),
        )


def _entry(table: str, match: dict[str, Any], action: fy.P4TableAction) -> fy.P4TableEntry:
    return fy.P4TableEntry(table, match=fy.P4TableMatch(match), action=action)


def with_source_port(frame: bytes, shift: int) -> bytes:
    """A TCP segment over IPv4 without options: source port moved, checksum brought along."""
    out = bytearray(frame)
    tcp = _ETHERNET + _IPV4
    old = int.from_bytes(out[tcp : tcp + 2], "big")
    new = old + shift
    check = int.from_bytes(out[tcp + _CHECKSUM : tcp + _CHECKSUM + 2], "big")
    total = (~check & 0xFFFF) + (~old & 0xFFFF) + new
    total = (total & 0xFFFF) + (total >> 16)
    total = (total & 0xFFFF) + (total >> 16)
    out[tcp : tcp + 2] = new.to_bytes(2, "big")
    out[tcp + _CHECKSUM : tcp + _CHECKSUM + 2] = (~total & 0xFFFF).to_bytes(2, "big")
    return bytes(out)


def answer(packet: fy.P4PacketIn, plan: Plan) -> fy.P4PacketOut | None:
    """What to send for a packet-in; None: nothing."""
    if packet.metadata["reason"] != Reason.HOST_SYN or not plan.sessions:
        return None
    shift = plan.sessions[0].mapped_first - plan.sessions[0].first
    frame = with_source_port(packet.payload, shift)
    return fy.P4PacketOut(frame, port=plan.host_port, submit=int(Submit.ROUTE))


class _Devices:
    """The devices of all plans; says "ready" once each has its entries."""

    def __init__(self, plans: list[Plan]) -> None:
        self._plans = {plan.name: plan for plan in plans}
        self._waiting = len(plans)

    def switches(self) -> list[fy.Switch]:
        return [
            fy.Switch(
                plan.name,
                plan.address,
                fy.SwitchOptions(
                    p4info=_BUILD / "dysco.p4info.txtpb",
                    p4blob=_BUILD / "dysco.json",
                    device_id=plan.device_id,
                    ready_handler=self._ready,
                    fail_fast=True,
                ),
            )
            for plan in self._plans.values()
        ]

    async def _ready(self, switch: fy.Switch) -> None:
        plan = self._plans[switch.name]
        await switch.delete_all()
        await switch.insert(replication(plan))
        batch: list[Any] = []
        for entry in entries(plan):
            batch.append(entry)
            if len(batch) == _BATCH:
                await switch.insert(batch)
                batch = []
        await switch.insert(batch)
        self._waiting -= 1
        if not self._waiting:
            print("ready", flush=True)
        async for packet in switch.read_packets():
            out = answer(packet, plan)
            if out is not None:
                await switch.write([out])


def main() -> None:
    """The command line."""
    if len(sys.argv) != 2:
        sys.exit("usage: python -m dysco.bench.static_nic PLAN.json")
    controller = fy.Controller(_Devices(read_plans(Path(sys.argv[1]))).switches())
    asyncio.run(controller.run())


if __name__ == "__main__":
    main()
