"""The baseline: the same chain by plain policy routing in the router, without Dysco.

    forward, by incoming interface:  client ─▶ box 1 ─▶ box 2 ─▶ ... ─▶ server
    back, the other way round; right of a NAT the packets are addressed to the NAT.

Only TCP from or to the given port takes the chain, as with a policy.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from socket import AF_INET, AF_INET6, IPPROTO_TCP
from typing import Any

from dysco.topo.links import add_route
from dysco.topo.spec import HostSpec, SpecError
from dysco.topo.topology import Topology

_FIRST_TABLE = 1000
_FIRST_PRIORITY = 1000


@dataclass(frozen=True, slots=True)
class _Turn:
    """One routing decision: TCP coming from one host's link to an address goes to the next host."""

    came_from: HostSpec
    destination: HostSpec
    to: HostSpec
    toward_server: bool


def route_through(topology: Topology, chain: Sequence[str], port: int) -> None:
    """Send TCP to `port` from the chain's first host to its last through the hosts in between.

    Raises SpecError where the router can't tell the hosts apart by its interfaces.
    """
    hosts = [topology.spec.host(name) for name in chain]
    _check(topology, hosts)
    router = topology.routers[topology.spec.routers[0]]
    for number, turn in enumerate(_turns(hosts)):
        table = _FIRST_TABLE + number
        for via in (str(turn.to.ipv4), str(turn.to.ipv6)):
            add_route(router, "default", via, table)
        for rule in _rules(topology.spec.router_link(turn.came_from), turn, table, port):
            router.ip.rule("add", **rule)


def _turns(hosts: Sequence[HostSpec]) -> Iterator[_Turn]:
    client, server = hosts[0], hosts[-1]
    for came_from, to in itertools.pairwise(hosts[:-1]):
        yield _Turn(came_from, server, to, toward_server=True)
    source = client  # as whom the client is seen, from left to right
    for to, came_from in itertools.pairwise(hosts[1:]):
        if to.kind == "nat":
            source = to  # routing itself brings the packets back to the NAT
        else:
            yield _Turn(came_from, source, to, toward_server=False)


def _rules(link: str, turn: _Turn, table: int, port: int) -> Iterator[dict[str, Any]]:
    for family, destination in (
        (AF_INET, turn.destination.ipv4),
        (AF_INET6, turn.destination.ipv6),
    ):
        yield {
            "family": family,
            "priority": _FIRST_PRIORITY,
            "table": table,
            "iifname": link,
            "dst": str(destination),
            "dst_len": destination.max_prefixlen,
            "ip_proto": IPPROTO_TCP,
            ("dport_range" if turn.toward_server else "sport_range"): f"{port}:{port}",
        }


def _check(topology: Topology, hosts: Sequence[HostSpec]) -> None:
    if len(topology.spec.routers) > 1:
        raise SpecError("static chains are made for one router")
    links = [topology.spec.router_link(host) for host in hosts]
    for host, link in zip(hosts, links, strict=True):
        if links.count(link) > 1:
            raise SpecError(f"{host.name} shares {link} with another host of the chain")
