"""What a topology consists of: hosts, devices (P4 NICs or switches), routers between them.

    host ── device ── router ── device ── host          hosts on devices of their own
    host ──┤                                            or several on one device
    host ── router                                      or on none

Everything has a fixed place in the address plan, so that runs can be compared: host H of subnet N
is 10.0.N.H and fd00:N::H with MAC 02:00:00:00:NN:HH; its gateway is number 1.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from ipaddress import IPv4Address, IPv6Address
from typing import TypeVar

NETWORK_PORT = 1
"""The device port toward the router; hosts follow on ports 2, 3, ..."""

HOST_IFNAME = "eth0"

MAX_NAME = 12
"""Characters of a name: interface names made of it must stay below 16."""

_Part = TypeVar("_Part", "HostSpec", "DeviceSpec")


class SpecError(ValueError):
    """The parts of a topology don't fit each other."""


@dataclass(frozen=True, slots=True)
class HostSpec:
    """A host, or with a `kind` a middlebox, with one interface."""

    name: str
    subnet: int
    """1 to 199."""
    kind: str | None = None
    """firewall, nat, counter (see boxes.py), proxy (see proxy.py); any other: a plain forwarder."""
    device: str | None = None
    """The device that it is attached to; None: straight to the router."""
    router: str = "router"
    """Where a host without a device is attached; otherwise its device's router counts."""
    number: int = 2
    mtu: int = 1500
    changes_stream: bool = False
    """A middlebox that adds bytes of its own (see header_proxy.py)."""

    @property
    def ipv4(self) -> IPv4Address:
        """Its IPv4 address."""
        return IPv4Address(f"10.0.{self.subnet}.{self.number}")

    @property
    def ipv6(self) -> IPv6Address:
        """Its IPv6 address."""
        return IPv6Address(f"fd00:{self.subnet}::{self.number}")

    @property
    def gateways(self) -> tuple[str, str]:
        """Its routers' addresses, IPv4 and IPv6."""
        return f"10.0.{self.subnet}.1", f"fd00:{self.subnet}::1"

    @property
    def mac(self) -> str:
        """Its MAC address."""
        return f"02:00:00:00:{self.subnet:02x}:{self.number:02x}"


@dataclass(frozen=True, slots=True)
class DeviceSpec:
    """A device: one port to its router, then one per host attached to it."""

    name: str
    id: int
    """The P4Runtime device id, 1 to 99."""
    router: str | None = "router"
    """None: a device without a network port, which joins its hosts only."""


@dataclass(frozen=True, slots=True)
class TopologySpec:
    """Hosts, devices and a row of routers; `backbone_mtu` is that of the links between routers."""

    hosts: tuple[HostSpec, ...]
    devices: tuple[DeviceSpec, ...] = ()
    routers: tuple[str, ...] = ("router",)
    backbone_mtu: int = 1500

    def __post_init__(self) -> None:
        """Check that the parts fit. Raises SpecError."""
        names = [*(h.name for h in self.hosts), *(d.name for d in self.devices), *self.routers]
        for name in names:
            if names.count(name) > 1:
                raise SpecError(f"{name} is named twice")
            if len(name) > MAX_NAME:
                raise SpecError(f"{name}: names have at most {MAX_NAME} characters")
        for host in self.hosts:
            if host.device is not None and host.device not in (d.name for d in self.devices):
                raise SpecError(f"{host.name}: there is no device {host.device}")
            if not (1 <= host.subnet <= 199 and 2 <= host.number <= 254):
                raise SpecError(f"{host.name}: {host.ipv4} is outside the address plan")
        for device in self.devices:
            if device.router is not None and device.router not in self.routers:
                raise SpecError(f"{device.name}: there is no router {device.router}")
        if len({h.ipv4 for h in self.hosts}) < len(self.hosts):
            raise SpecError("two hosts share an address")

    def host(self, name: str) -> HostSpec:
        """The host of that name. Raises KeyError."""
        return _named(self.hosts, name)

    def device(self, name: str) -> DeviceSpec:
        """The device of that name. Raises KeyError."""
        return _named(self.devices, name)

    def hosts_on(self, device: str) -> tuple[HostSpec, ...]:
        """The hosts attached to a device, in the order of their ports."""
        return tuple(host for host in self.hosts if host.device == device)

    def port_of(self, host: HostSpec) -> int:
        """The device port that a host is attached to. Raises SpecError if it has no device."""
        if host.device is None:
            raise SpecError(f"{host.name} isn't attached to a device")
        return NETWORK_PORT + 1 + self.hosts_on(host.device).index(host)

    def router_of(self, host: HostSpec) -> str | None:
        """The router that a host's packets meet first; None: its device has no network port."""
        return host.router if host.device is None else self.device(host.device).router

    def router_link(self, host: HostSpec) -> str:
        """The router's interface toward a host: to-DEVICE or to-HOST."""
        return f"to-{host.device or host.name}"


def _named(parts: Iterable[_Part], name: str) -> _Part:
    for part in parts:
        if part.name == name:
            return part
    raise KeyError(f"the topology has no {name}")


def chain_spec(middleboxes: Iterable[tuple[str, str]], bystander: bool = False) -> TopologySpec:
    """Client, middleboxes (name, kind) and server, each behind a device of its own, one router."""
    chain = [("client", None), *middleboxes, ("server", None)]
    hosts = [
        HostSpec(name, subnet, kind, device=f"nic{subnet}")
        for subnet, (name, kind) in enumerate(chain, start=1)
    ]
    devices = tuple(DeviceSpec(f"nic{host.subnet}", host.subnet) for host in hosts)
    if bystander:
        hosts.append(HostSpec("bystander", len(hosts) + 1))
    return TopologySpec(tuple(hosts), devices)


def with_spares(spec: TopologySpec, boxes: Iterable[tuple[str, str]]) -> TopologySpec:
    """The same with more middleboxes (name, kind), each behind a device of its own."""
    first = max(host.subnet for host in spec.hosts) + 1
    hosts = [
        HostSpec(name, subnet, kind, device=f"nic{subnet}")
        for subnet, (name, kind) in enumerate(boxes, start=first)
    ]
    devices = (DeviceSpec(f"nic{host.subnet}", host.subnet) for host in hosts)
    return replace(spec, hosts=(*spec.hosts, *hosts), devices=(*spec.devices, *devices))


def demo_spec() -> TopologySpec:
    """The network of the demo's first act: three middleboxes, and one host without an agent."""
    boxes = [("firewall", "firewall"), ("nat", "nat"), ("counter", "counter")]
    return chain_spec(boxes, bystander=True)
