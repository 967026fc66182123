"""How a device reaches a subsession's next host: its own hosts, gateways, hosts on the link.

Routes with a fixed MAC and our own hosts are rows from the start. A gateway's row is written when
its MAC is known; a host on the link gets a row of its own, for its address alone, when a session
first needs it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from ipaddress import IPv4Network, IPv6Network, ip_network

from dysco.agent.model import Address, MacAddress
from dysco.controller.config import DeviceConfig, RouteConfig
from dysco.controller.neighbours import Neighbours
from dysco.controller.pipeline import Row, RowKey

Network = IPv4Network | IPv6Network
Then = Callable[[str], None]
"""Called with "" when a route is there, else with why there is none."""


class Routes:
    """The routes of one device."""

    def __init__(
        self,
        config: DeviceConfig,
        neighbours: Neighbours,
        write: Callable[[Row, Then], None],
    ) -> None:
        """`write` writes a row (insert or modify) and calls back when it is in."""
        self._neighbours, self._write = neighbours, write
        self._config = config
        self._local = {a for h in config.hosts for a in h.addresses}
        self._routes = sorted(config.routes, key=lambda r: r.prefix.prefixlen, reverse=True)
        self._ready: set[Address] = set()
        """Hosts on the link whose row is in the device."""
        self._gateways: set[Address] = set()
        """Gateways whose rows are in the device."""

    def find(self, address: Address) -> RouteConfig | None:
        """The route for an address that is not local."""
        return next((r for r in self._routes if address in r.prefix), None)

    def static_rows(self) -> Iterator[Row]:
        """Rows that need nobody's answer."""
        for host in self._config.hosts:
            for interface in host.interfaces:
                for address in interface.addresses:
                    params = (interface.port, int.from_bytes(interface.mac, "big"), host.host_id)
                    yield Row(_key(_alone(address)), "to_host", params)
        for route in self._config.routes:
            if route.mac is not None:
                yield _next_hop(route.prefix, route.port, route.mac)

    def adopt(self, rows: Iterable[Row]) -> list[Row]:
        """Of the rows that the device holds, those to keep: resolved before a restart."""
        kept = []
        for row in rows:
            if row.action != "next_hop":
                continue
            prefix, port, mac = _parse(row)
            route = next((r for r in self._routes if r.prefix == prefix and r.via), None)
            if route is not None and route.via is not None and route.port == port:
                self._gateways.add(route.via)
                self._neighbours.adopt(route.via, port, mac)
                kept.append(row)
            elif prefix.prefixlen == prefix.max_prefixlen:
                address = prefix.network_address
                on_link = self.find(address)
                if on_link and not on_link.via and not on_link.mac and on_link.port == port:
                    self._ready.add(address)
                    self._neighbours.adopt(address, port, mac)
                    kept.append(row)
        return kept

    def warm(self, peers: Iterable[Address]) -> None:
        """Ask for gateways, and for the peers on the link, before a session needs them."""
        for route in self._routes:
            if route.via is not None:
                self.ensure(route.via, _ignore, gateway=True)
        for address in peers:
            if address not in self._local and self.find(address) is not None:
                self.ensure(address, _ignore)

    def is_ready(self, address: Address) -> bool:
        """True if packets to `address` have a route in the device now."""
        if address in self._ready or address in self._local:
            return True
        route = self.find(address)
        if route is None:
            return False
        return route.mac is not None or (route.via is not None and route.via in self._gateways)

    def ensure(self, address: Address, then: Then, *, gateway: bool = False) -> None:
        """Call `then` when `address` has a route, or with the reason why it has none."""
        if not gateway and self.is_ready(address):
            then("")
            return
        route = self._gateway_route(address) if gateway else self.find(address)
        if route is None:
            then(f"no [[device.route]] of device {self._config.name} covers {address}")
            return
        hop = route.via or address

        def resolved(mac: MacAddress | None) -> None:
            if mac is None:
                then(f"{hop} does not answer ARP or neighbour discovery at port {route.port}")
            else:
                self._install(hop, route.port, mac, then)

        self._neighbours.resolve(hop, route.port, resolved)

    def neighbour_changed(self, address: Address, port: int, mac: MacAddress) -> None:
        """A neighbour that rows use has a new MAC."""
        if address in self._ready or address in self._gateways:
            self._install(address, port, mac, _ignore)

    def clear(self) -> None:
        """Nothing is in the device any more."""
        self._ready.clear()
        self._gateways.clear()

    def _gateway_route(self, address: Address) -> RouteConfig | None:
        return next((r for r in self._routes if r.via == address), None)

    def _install(self, hop: Address, port: int, mac: MacAddress, then: Then) -> None:
        prefixes = [r.prefix for r in self._routes if r.via == hop]
        known = self._gateways if prefixes else self._ready
        left = len(prefixes) or 1

        def written(problem: str) -> None:
            nonlocal left
            left -= 1
            if problem:
                known.discard(hop)
                then(f"the route to {hop} can't be written: {problem}")
                left = 0
            elif left == 0:
                known.add(hop)
                then("")

        for prefix in prefixes or [_alone(hop)]:
            self._write(_next_hop(prefix, port, mac), written)


def _ignore(_why: str) -> None:
    """For who only wants it done: failures are counted where they happen."""


def _alone(address: Address) -> Network:
    return ip_network(address)


def _key(prefix: Network) -> RowKey:
    match = (int(prefix.network_address), prefix.prefixlen)
    return RowKey(f"route_v{prefix.version}", (match,))


def _next_hop(prefix: Network, port: int, mac: MacAddress) -> Row:
    return Row(_key(prefix), "next_hop", (port, int.from_bytes(mac, "big")))


def _parse(row: Row) -> tuple[Network, int, MacAddress]:
    ((value, length),) = row.key.match
    prefix: Network
    if row.key.table.endswith("v4"):
        prefix = IPv4Network((value, length))
    else:
        prefix = IPv6Network((value, length))
    port, mac = row.params
    return prefix, port, mac.to_bytes(6, "big")
