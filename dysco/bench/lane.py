"""Two hosts with one device between them, and nothing else: what a single pass costs.

    left eth0 ── p2 [ softnic | bmv2 | Linux bridge ] p3 ── eth0 right

On a P4 device `left` is its host and `right` is in the network. Sessions from a source port of
FIRST_PORT on are rewritten, as a subsession's packets are; all others are bridged.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from dysco.bench import static_nic
from dysco.topo.devices import Target, start_devices
from dysco.topo.namespace import Namespace
from dysco.topo.process import Process, ProcessError
from dysco.topo.spec import DeviceSpec, HostSpec, TopologySpec
from dysco.topo.topology import Topology

GOODPUT_PORT, ECHO_PORT, PACKETS_PORT = 5201, 5202, 5203
"""Servers' ports."""

SINK_MAC = "02:00:00:00:00:fe"
SINK_IP = "10.0.1.254"
"""Frames to it leave toward `right`, whose kernel drops them at once: they are for no one there."""

_PIPELINE_SECONDS = 120
_SUBSESSION_SHIFT = -40_000


@dataclass(frozen=True, slots=True)
class SessionPorts:
    """Source ports whose sessions are rewritten, by what they are used for."""

    dport: int
    first: int
    count: int


GOODPUT = SessionPorts(GOODPUT_PORT, 61_000, 100)
ECHO = SessionPorts(ECHO_PORT, 61_100, 100)
PACKETS = SessionPorts(PACKETS_PORT, 62_000, 1_000)

_SPEC = TopologySpec(
    (HostSpec("left", 1, device="nic", number=2), HostSpec("right", 1, device="nic", number=3)),
    (DeviceSpec("nic", 1, router=None),),
)


@dataclass(frozen=True, slots=True)
class Lane:
    """A running lane."""

    left: Namespace
    right: Namespace
    device: Process | None
    """None: the kernel's bridge."""
    left_mac: str
    left_address: str
    right_address: str


@contextmanager
def lane(target: Target, directory: Path, *, offloads: bool = True) -> Iterator[Lane]:
    """Build one; gone with the `with`. Raises ProcessError."""
    with Topology(_SPEC, directory, offloads=offloads) as topology:
        device = start_devices(topology, target)["nic"]
        left, right = _SPEC.host("left"), _SPEC.host("right")
        if target is Target.BRIDGE:
            _teach_bridge(topology.devices, f"nic-p{_SPEC.port_of(right)}")
        else:
            start_static([_plan(device.grpc_address, target)], topology.devices, directory)
        yield Lane(
            topology.hosts["left"],
            topology.hosts["right"],
            device.process,
            left.mac,
            str(left.ipv4),
            str(right.ipv4),
        )


def start_static(plans: list[static_nic.Plan], namespace: Namespace, directory: Path) -> Process:
    """Have devices run our program with the plans' entries; returns when they do."""
    file = directory / "plans.json"
    static_nic.write_plans(plans, file)
    argv = [sys.executable, "-m", "dysco.bench.static_nic", str(file)]
    process = namespace.start("static_nic", argv)
    process.wait_ready(
        lambda: "ready" in process.log.read_text().split(),
        "the devices had their entries",
        _PIPELINE_SECONDS,
    )
    return process


def _teach_bridge(namespace: Namespace, ifname: str) -> None:
    """The sink's MAC, so that the bridge needn't flood what goes there."""
    namespace.run(["bridge", "fdb", "add", SINK_MAC, "dev", ifname, "master", "static"])


def _plan(address: str, target: Target) -> static_nic.Plan:
    if target is Target.BRIDGE:
        raise ProcessError("a bridge runs no P4 program")
    left, right = _SPEC.host("left"), _SPEC.host("right")
    here, there = str(left.ipv4), str(right.ipv4)
    return static_nic.Plan(
        name="nic",
        address=address,
        device_id=_SPEC.device("nic").id,
        host_port=_SPEC.port_of(left),
        network_port=_SPEC.port_of(right),
        host_mac=left.mac,
        routes=((there, right.mac), (SINK_IP, SINK_MAC)),
        sessions=(
            _sessions(here, there, GOODPUT),
            _sessions(here, there, ECHO),
            _sessions(here, SINK_IP, PACKETS),
        ),
    )


def _sessions(src: str, dst: str, ports: SessionPorts) -> static_nic.Sessions:
    return static_nic.Sessions(
        src, dst, ports.dport, ports.first, ports.first + _SUBSESSION_SHIFT, ports.count
    )
