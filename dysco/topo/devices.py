"""What stands at the devices' ports: a P4 target, or a plain Linux bridge as a baseline."""

from __future__ import annotations

import shutil
import socket
import sys
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from dysco.topo.namespace import Namespace
from dysco.topo.process import Process, ProcessError
from dysco.topo.spec import DeviceSpec
from dysco.topo.topology import Topology

CPU_PORT = 255
_FIRST_GRPC_PORT = 9559
_FIRST_THRIFT_PORT = 9190


class Target(Enum):
    """Which device it is."""

    SOFTNIC = "softnic"
    BMV2 = "bmv2"
    BRIDGE = "bridge"

    @property
    def offloads(self) -> bool:
        """True if hosts behind it may leave checksums and segmentation to it."""
        return self is not Target.BMV2


@dataclass(frozen=True, slots=True)
class Device:
    """A running device."""

    spec: DeviceSpec
    process: Process | None
    """None: it is a bridge of the kernel."""

    @property
    def grpc_address(self) -> str:
        """Where it serves P4Runtime, in the topology's namespace `devices`."""
        return f"127.0.0.1:{_FIRST_GRPC_PORT + self.spec.id}"


def command_path(target: Target) -> str | None:
    """The program of a P4 target; None if it isn't installed."""
    if target is Target.SOFTNIC:
        return tool_path("softnic")
    return shutil.which("simple_switch_grpc")


def tool_path(name: str) -> str | None:
    """A program of this project, or None: beside the running interpreter, else on PATH."""
    beside = Path(sys.executable).parent / name
    return str(beside) if beside.exists() else shutil.which(name)


def start_devices(topology: Topology, target: Target) -> dict[str, Device]:
    """Start all devices of a topology and wait until they serve. Raises ProcessError."""
    devices = {}
    for spec in topology.spec.devices:
        if target is Target.BRIDGE:
            devices[spec.name] = _bridge(topology, spec)
        else:
            devices[spec.name] = _start(topology, spec, target)
    for device in devices.values():
        if device.process is not None:
            _wait_serving(topology.devices, device, device.process)
    return devices


def can_connect(namespace: Namespace, address: str) -> bool:
    """True if somebody listens at "IPV4:PORT" in that namespace."""
    host, _, port = address.rpartition(":")
    with namespace.entered():
        client = socket.socket()
    with client:
        client.settimeout(1.0)
        return client.connect_ex((host, int(port))) == 0


def _start(topology: Topology, spec: DeviceSpec, target: Target) -> Device:
    program = command_path(target)
    if program is None:
        raise ProcessError(f"{target.value} isn't installed")
    argv = [program, "--device-id", str(spec.id), "--no-p4"]
    for port, ifname in topology.ports_of(spec):
        argv += ["-i", f"{port}@{ifname}"]
    if target is Target.BMV2:
        argv += ["--log-console", "--log-level", "warn"]
        argv += ["--thrift-port", str(_FIRST_THRIFT_PORT + spec.id)]
    address = f"127.0.0.1:{_FIRST_GRPC_PORT + spec.id}"
    argv += ["--", "--cpu-port", str(CPU_PORT), "--grpc-server-addr", address]
    return Device(spec, topology.devices.start(spec.name, argv))


def _wait_serving(namespace: Namespace, device: Device, process: Process) -> None:
    process.wait_ready(
        lambda: can_connect(namespace, device.grpc_address),
        f"it served P4Runtime at {device.grpc_address}",
    )


def _bridge(topology: Topology, spec: DeviceSpec) -> Device:
    namespace = topology.devices
    namespace.ip.link("add", kind="bridge", ifname=spec.name)
    bridge = namespace.link_index(spec.name)
    for _, ifname in topology.ports_of(spec):
        namespace.ip.link("set", index=namespace.link_index(ifname), master=bridge)
    namespace.ip.link("set", index=bridge, state="up")
    return Device(spec, None)
