"""Builds a topology: a namespace per host and router, one for all devices' processes, the links.

client ns        devices ns                       router ns
 eth0 ────────── nic1-p2 [device] nic1-p1 ─────── to-nic1
"""

from __future__ import annotations

import functools
import itertools
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType

from dysco.topo.links import End, add_address, add_route, connect
from dysco.topo.namespace import Namespace
from dysco.topo.spec import HOST_IFNAME, NETWORK_PORT, DeviceSpec, HostSpec, TopologySpec

_QUIET = {
    # No duplicate address detection (it takes a second) and no router discovery: both are static.
    "ipv6/conf/all/accept_dad": 0,
    "ipv6/conf/default/accept_dad": 0,
    "ipv6/conf/default/accept_ra": 0,
    "ipv6/conf/default/router_solicitations": 0,
    "ipv4/conf/all/accept_redirects": 0,
    "ipv4/conf/default/accept_redirects": 0,
    "ipv6/conf/default/accept_redirects": 0,
}

_FORWARDING = {
    "ipv4/ip_forward": 1,
    "ipv6/conf/all/forwarding": 1,
    "ipv6/conf/default/forwarding": 1,
    # A one-armed box sends packets out of where they came in: that is meant, not to be corrected.
    "ipv4/conf/all/send_redirects": 0,
    "ipv4/conf/default/send_redirects": 0,
    "ipv4/conf/all/rp_filter": 0,
    "ipv4/conf/default/rp_filter": 0,
}

_DEVICE = {
    # The kernel of the device's machine must not talk on the device's ports.
    "ipv6/conf/all/disable_ipv6": 1,
    "ipv6/conf/default/disable_ipv6": 1,
}

_BACKBONE_SUBNET = 200
_PORT_MAC = "02:00:00:01:{device:02x}:{port:02x}"
_ROUTER_MAC = "02:00:00:02:{index:02x}:{link:02x}"


class Topology:
    """A running topology, for a `with`. Its ports have no devices yet (see devices.py)."""

    def __init__(self, spec: TopologySpec, directory: Path, *, offloads: bool = True) -> None:
        """Plan it. `directory` takes logs and state; without `offloads` all links' are off."""
        self.spec = spec
        self.directory = directory
        self.offloads = offloads
        self.hosts: dict[str, Namespace] = {}
        self.routers: dict[str, Namespace] = {}
        self._stack = ExitStack()
        self._router_links = 0

    def __enter__(self) -> Topology:
        """Build it. Raises cage.CageError, and leaves nothing if it can't be built."""
        try:
            self._build()
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """End all processes, and with the last namespace all links go."""
        self._stack.close()

    @functools.cached_property
    def devices(self) -> Namespace:
        """The namespace of the devices' processes and their controller."""
        return self._namespace("devices", _DEVICE)

    def ports_of(self, device: DeviceSpec) -> list[tuple[int, str]]:
        """The ports of a device and their interfaces in the namespace `devices`."""
        ports = [self.spec.port_of(host) for host in self.spec.hosts_on(device.name)]
        if device.router is not None:
            ports.insert(0, NETWORK_PORT)
        return [(port, f"{device.name}-p{port}") for port in ports]

    def _build(self) -> None:
        self.directory.mkdir(parents=True, exist_ok=True)
        for name in self.spec.routers:
            self.routers[name] = self._namespace(name, _FORWARDING)
        for device in self.spec.devices:
            if device.router is not None:
                self._attach_device(device, device.router)
        for host in self.spec.hosts:
            self.hosts[host.name] = self._namespace(
                host.name, _FORWARDING if host.kind is not None else {}
            )
            self._attach_host(host)
        self._join_routers()

    def _namespace(self, name: str, settings: dict[str, int]) -> Namespace:
        namespace = Namespace(name, self.directory)
        self._stack.callback(namespace.close)
        namespace.sysctl(_QUIET)
        namespace.sysctl(settings)
        return namespace

    def _attach_device(self, device: DeviceSpec, router: str) -> None:
        port = self._port_end(device, NETWORK_PORT)
        connect(port, self._router_end(router, f"to-{device.name}"), offloads=self.offloads)

    def _attach_host(self, host: HostSpec) -> None:
        namespace = self.hosts[host.name]
        end = End(namespace, HOST_IFNAME, host.mac)
        router = self.spec.router_of(host)
        if host.device is not None:
            device = self.spec.device(host.device)
            other = self._port_end(device, self.spec.port_of(host))
        else:
            other = self._router_end(host.router, self.spec.router_link(host))
        connect(end, other, mtu=host.mtu, offloads=self.offloads)
        for address, length in ((str(host.ipv4), 24), (str(host.ipv6), 64)):
            add_address(namespace, HOST_IFNAME, address, length)
        if router is not None:
            self._serve_subnet(router, host)

    def _serve_subnet(self, router: str, host: HostSpec) -> None:
        link = self.spec.router_link(host)
        subnet_mates = [h for h in self.spec.hosts if h.subnet == host.subnet]
        for gateway, length in zip(host.gateways, (24, 64), strict=True):
            if subnet_mates[0] is host:
                add_address(self.routers[router], link, gateway, length)
            add_route(self.hosts[host.name], "default", gateway)

    def _join_routers(self) -> None:
        row = self.spec.routers
        for index, (left, right) in enumerate(itertools.pairwise(row)):
            connect(
                self._router_end(left, f"to-{right}"),
                self._router_end(right, f"to-{left}"),
                mtu=self.spec.backbone_mtu,
                offloads=self.offloads,
            )
            subnet = _BACKBONE_SUBNET + index
            for name, peer, number in ((left, right, 1), (right, left, 2)):
                ends = ((f"10.0.{subnet}.", 24), (f"fd00:{subnet}::", 64))
                for start, length in ends:
                    add_address(self.routers[name], f"to-{peer}", f"{start}{number}", length)
        for index in range(len(row) - 1):
            self._route_over_backbone(index)

    def _route_over_backbone(self, index: int) -> None:
        """Over link `index`: to the hosts right of it from its left router, and vice versa."""
        row = self.spec.routers
        subnet = _BACKBONE_SUBNET + index
        seen: set[int] = set()
        for host in self.spec.hosts:
            router = self.spec.router_of(host)
            if router is None or host.subnet in seen:
                continue
            seen.add(host.subnet)
            is_right = row.index(router) > index
            owner, number = (row[index], 2) if is_right else (row[index + 1], 1)
            via4, via6 = f"10.0.{subnet}.{number}", f"fd00:{subnet}::{number}"
            add_route(self.routers[owner], f"10.0.{host.subnet}.0/24", via4)
            add_route(self.routers[owner], f"fd00:{host.subnet}::/64", via6)

    def _port_end(self, device: DeviceSpec, port: int) -> End:
        mac = _PORT_MAC.format(device=device.id, port=port)
        return End(self.devices, f"{device.name}-p{port}", mac)

    def _router_end(self, router: str, ifname: str) -> End:
        self._router_links += 1
        index = self.spec.routers.index(router)
        mac = _ROUTER_MAC.format(index=index, link=self._router_links)
        return End(self.routers[router], ifname, mac)
