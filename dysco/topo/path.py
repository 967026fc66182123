"""A session's way as captures show it: its SYN on every link that it crossed, one after another.

    client ── nic1 ── router ── nic2 ── firewall ── nic2 ── router ── nic3 ── ...
      sent      in the network            got, sent           in the network

A capture holds one session only; the links are tapped at the hosts and at the router.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import Enum

from dysco.agent.model import FiveTuple
from dysco.topo.capture import Frame, Tap, segments
from dysco.topo.packets import Segment
from dysco.topo.spec import HOST_IFNAME, HostSpec, SpecError
from dysco.topo.topology import Topology


class Where(Enum):
    """On which link of a host a packet was seen, and which way it went."""

    SENT = "sent"
    """By the host."""
    LEFT = "left"
    """The host's device, into the network."""
    CAME = "came"
    """Out of the network, to the host's device."""
    GOT = "got"
    """By the host."""


@dataclass(frozen=True, slots=True)
class Seen:
    """A session at one place: its SYN, and how many segments passed."""

    host: str
    where: Where
    syn: Segment | None
    """None: no SYN was seen here."""
    to_server: int
    to_client: int

    @property
    def tuple(self) -> FiveTuple | None:
        """The SYN's."""
        return self.syn.tuple if self.syn is not None else None

    @property
    def in_network(self) -> bool:
        """True between a device and the router."""
        return self.where in (Where.LEFT, Where.CAME)


def host_tap(name: str) -> str:
    """Label of the tap at a host's interface."""
    return name


def network_tap(name: str) -> str:
    """Label of the tap between a host's device and the router."""
    return f"{name}-network"


def taps(topology: Topology, hosts: Sequence[str]) -> list[Tap]:
    """Taps at these hosts, and where their devices (if they have any) meet the router."""
    found = []
    for host in map(topology.spec.host, hosts):
        found.append(Tap(host_tap(host.name), topology.hosts[host.name], HOST_IFNAME))
        found.append(_network_tap(topology, host))
    return found


def _network_tap(topology: Topology, host: HostSpec) -> Tap:
    router = topology.spec.router_of(host)
    if router is None:
        raise SpecError(f"{host.name} has no link to a router")
    link = topology.spec.router_link(host)
    return Tap(network_tap(host.name), topology.routers[router], link)


def follow(frames: Sequence[Frame], chain: Sequence[str]) -> list[Seen]:
    """Where a session was seen on its way through the hosts of `chain`, first to last."""
    found = []
    last = len(chain) - 1
    for number, host in enumerate(chain):
        if number > 0:
            found += [_seen(frames, host, where) for where in (Where.CAME, Where.GOT)]
        if number < last:
            found += [_seen(frames, host, where) for where in (Where.SENT, Where.LEFT)]
    return found


_WAYS = {
    # The router's end of a link gets what the device sends; a host's end sends what the host does.
    Where.SENT: (host_tap, True),
    Where.LEFT: (network_tap, False),
    Where.CAME: (network_tap, True),
    Where.GOT: (host_tap, False),
}


def _seen(frames: Sequence[Frame], host: str, where: Where) -> Seen:
    label, outgoing = _WAYS[where]
    passed = Counter[tuple[FiveTuple, bool]]()
    syn: Segment | None = None
    for frame, segment in segments(frames, label(host)):
        passed[segment.tuple, frame.outgoing] += 1
        if syn is None and segment.is_first and frame.outgoing is outgoing:
            syn = segment
    if syn is None:
        return Seen(host, where, None, 0, 0)
    back = passed[syn.tuple.reversed, not outgoing]
    return Seen(host, where, syn, passed[syn.tuple, outgoing], back)


def strangers(frames: Sequence[Frame], way: Sequence[Seen]) -> Iterator[tuple[str, Segment]]:
    """Segments, with their taps, of other five-tuples than those of the way at that place."""
    known: dict[str, set[FiveTuple]] = {}
    for seen in way:
        if seen.tuple is not None:
            label, _ = _WAYS[seen.where]
            known.setdefault(label(seen.host), set()).update((seen.tuple, seen.tuple.reversed))
    for frame, segment in segments(frames):
        if segment.tuple not in known.get(frame.tap, ()):
            yield frame.tap, segment
