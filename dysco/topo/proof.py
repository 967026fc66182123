"""What the demo claims, and what speaks against it: captures, boxes, bytes, `dysco-ctl`.

Every function looks at what was recorded and returns claims; a claim without problems held.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Any

from dysco.agent.model import FiveTuple
from dysco.topo.boxes import Connection, Counters
from dysco.topo.capture import Frame, all_from, segments
from dysco.topo.packets import Segment
from dysco.topo.path import Seen, Where, follow, host_tap, network_tap, strangers
from dysco.topo.spec import HostSpec, TopologySpec
from dysco.topo.traffic import Download, Load

_MAX_SHOWN = 3


@dataclass(frozen=True, slots=True)
class Claim:
    """Something that must hold, what shows it, and what speaks against it."""

    what: str
    shown_by: str
    problems: tuple[str, ...]

    @property
    def held(self) -> bool:
        """True if nothing speaks against it."""
        return not self.problems


def _claim(what: str, shown_by: str, problems: Iterable[str]) -> Claim:
    found = list(problems)
    if len(found) > _MAX_SHOWN:
        found[_MAX_SHOWN:] = [f"and {len(found) - _MAX_SHOWN} more of this kind"]
    return Claim(what, shown_by, tuple(found))


def merged(claims: Iterable[Claim]) -> list[Claim]:
    """Each claim once, with the problems of all times that it was made."""
    problems: dict[tuple[str, str], tuple[str, ...]] = {}
    for claim in claims:
        key = claim.what, claim.shown_by
        problems[key] = problems.get(key, ()) + claim.problems
    return [Claim(*key, found) for key, found in problems.items()]


def bytes_arrived(name: str, got: Download, sha256: str, size: int) -> Claim:
    """A download is the file that was published."""
    problems = []
    if got.status != 200:
        problems.append(f"{name}: HTTP status {got.status}")
    if got.size != size:
        problems.append(f"{name}: {got.size} bytes instead of {size}")
    elif got.sha256 != sha256:
        problems.append(f"{name}: other bytes than the server's: SHA-256 {got.sha256}")
    return _claim("every download is the server's file", "SHA-256", problems)


@dataclass(frozen=True, slots=True)
class Recording:
    """All that was recorded of one session through a chain."""

    spec: TopologySpec
    chain: tuple[str, ...]
    """Names of all its hosts, the end hosts' included."""
    version: int
    """Of IP."""
    frames: Sequence[Frame]
    missed: int
    """Frames that passed and were not captured."""
    counted: Mapping[str, Counters]
    """What each middlebox's counters grew by."""
    connections: Mapping[str, Sequence[Connection]]
    shown: Mapping[str, Any] | None
    """What `dysco-ctl chain show` said of it."""

    @property
    def way(self) -> list[Seen]:
        """Its SYN from place to place."""
        return follow(self.frames, self.chain)

    def host(self, name: str) -> HostSpec:
        """A host of the chain."""
        return self.spec.host(name)


def chain_claims(recording: Recording) -> list[Claim]:
    """What must hold of a session through its chain."""
    way = recording.way
    order = f"through {', '.join(recording.chain[1:-1])}, in order, and back"
    missing = [f"{s.host}: no SYN was captured ({s.where.value})" for s in way if s.syn is None]
    claims = {
        (order, "captures in the network"): (
            *missing,
            *_missed(recording.missed),
            *_wrong_order(recording, way),
            *_wrong_headers(recording, way),
        ),
        ("each host saw the session as it was sent", "captures at the hosts"): (
            *_wrong_at_hosts(recording, way),
            *_strange(recording, way),
        ),
        ("middleboxes saw it both ways, dropped nothing", "nft counters, strict conntrack"): (
            *_wrong_counters(recording),
            *_wrong_connections(recording, way),
        ),
        ("the controller tells the same", "dysco-ctl chain show"): _wrong_shown(recording, way),
    }
    name = f"IPv{recording.version}"
    return [
        _claim(*claim, (f"{name}: {problem}" for problem in problems))
        for claim, problems in claims.items()
    ]


def _missed(frames: int) -> Iterable[str]:
    if frames:
        yield f"{frames} frames passed and were not captured"


def _wrong_order(recording: Recording, way: Sequence[Seen]) -> Iterable[str]:
    places = {(seen.host, seen.where): seen for seen in way}
    for left, right in itertools.pairwise(recording.chain):
        sent, came = places[left, Where.LEFT].tuple, places[right, Where.CAME].tuple
        if sent != came:
            yield f"from {left} left {sent}, to {right} came {came}"
        ends = _address(recording, left), _address(recording, right)
        if sent is not None and (sent.src, sent.dst) != ends:
            yield f"from {left} to {right}: {sent} isn't from host to host"
    for seen in way:
        if not (seen.to_server and seen.to_client):
            yield f"{seen.host}: nothing came back along the same way ({seen.where.value})"


def _wrong_headers(recording: Recording, way: Sequence[Seen]) -> Iterable[str]:
    for seen in way:
        if seen.in_network and seen.syn is not None and not seen.syn.has_dysco_header:
            yield f"{seen.host}: a SYN in the network without a Dysco header"
    in_network = {network_tap(host) for host in recording.chain}
    for frame, segment in segments(recording.frames):
        at_network = frame.tap in in_network
        if segment.has_tag and at_network:
            yield f"{frame.tap}: a tag in the network"
        if segment.has_dysco_header and not at_network:
            yield f"{frame.tap}: a Dysco header reached a host"


def _wrong_at_hosts(recording: Recording, way: Sequence[Seen]) -> Iterable[str]:
    expected = way[0].tuple
    for seen in way:
        if seen.in_network or expected is None or seen.tuple is None:
            continue
        if recording.host(seen.host).kind == "nat" and seen.where is Where.SENT:
            if seen.tuple.src != _address(recording, seen.host):
                yield f"{seen.host} didn't masquerade: it sent {seen.tuple}"
            expected = seen.tuple
        elif seen.tuple != expected:
            yield f"{seen.host} {seen.where.value} {seen.tuple} instead of {expected}"
    for end in (recording.chain[0], recording.chain[-1]):
        for _, segment in segments(recording.frames, host_tap(end)):
            if segment.has_tag:
                yield f"{end}: a tag reached an end host"


def _strange(recording: Recording, way: Sequence[Seen]) -> Iterable[str]:
    for tap, segment in strangers(recording.frames, way):
        yield f"{tap}: a segment {segment.tuple}, which belongs to nothing there"


def _wrong_counters(recording: Recording) -> Iterable[str]:
    for box, counted in recording.counted.items():
        if not (counted.to_server and counted.to_client):
            yield f"{box} counted {counted.to_server} packets there, {counted.to_client} back"
        if counted.dropped:
            yield f"{box} dropped {counted.dropped} packets"


def _wrong_connections(recording: Recording, way: Sequence[Seen]) -> Iterable[str]:
    places = {(seen.host, seen.where): seen.tuple for seen in way}
    for box, entries in recording.connections.items():
        got, sent = places[box, Where.GOT], places[box, Where.SENT]
        found = [entry for entry in entries if entry.original == got]
        if not found:
            yield f"{box}: conntrack has no entry of {got}"
        for entry in found:
            if sent is None or entry.reply != sent.reversed:
                yield f"{box}: conntrack expects answers as {entry.reply}, it sent {sent}"
            if not entry.assured:
                yield f"{box}: conntrack saw no complete handshake of {got}"


_SHOWN_AS = {
    Where.CAME: "came_as",
    Where.GOT: "host_got",
    Where.SENT: "host_sent",
    Where.LEFT: "went_as",
}


def _wrong_shown(recording: Recording, way: Sequence[Seen]) -> Iterable[str]:
    if recording.shown is None:
        yield "dysco-ctl doesn't list the session"
        return
    hops = {hop["host"]: hop for hop in recording.shown["hops"]}
    if list(hops) != list(recording.chain):
        yield f"dysco-ctl shows the hosts {', '.join(hops)}"
    for seen in way:
        told = _five_tuple(hops.get(seen.host, {}).get(_SHOWN_AS[seen.where]))
        if told != seen.tuple:
            yield f"{seen.host} {seen.where.value} {seen.tuple}, dysco-ctl says {told}"


def _five_tuple(ends: Mapping[str, Any] | None) -> FiveTuple | None:
    if ends is None:
        return None
    source, destination = ip_address(ends["src"]), ip_address(ends["dst"])
    return FiveTuple(source, int(ends["sport"]), destination, int(ends["dport"]))


def _address(recording: Recording, name: str) -> object:
    host = recording.host(name)
    return host.ipv4 if recording.version == 4 else host.ipv6


def untouched(
    what: str, frames: Sequence[Frame], missed: int, source: HostSpec, server: HostSpec
) -> Claim:
    """Traffic of a host that no policy is for is between it and the server alone, byte by byte.

    Packets cross the devices without a change; the router between them changes TTLs and MACs.
    """
    problems = list(_missed(missed))
    passed = list(segments(frames))
    if not passed:
        problems.append("no TCP segment was captured")
    ends = ({source.ipv4, server.ipv4}, {source.ipv6, server.ipv6})
    for frame, segment in passed:
        if {segment.tuple.src, segment.tuple.dst} not in ends:
            problems.append(f"{frame.tap}: a segment {segment.tuple}")
        problems += _marks(frame.tap, segment)
    hosts = [server] if source.device is None else [source, server]
    for host in hosts:
        if not _unchanged(frames, host.name):
            problems.append(f"{host.name}'s device changed packets that it has no business with")
    return _claim(what, "captures, byte by byte", problems)


def _unchanged(frames: Sequence[Frame], host: str) -> bool:
    """True if a host's device let segments pass as they were, or (its queues are full) not at all.

    The router's end of the device's link receives what the host's end sends, and the other way.
    """
    at_host, in_network = _at(frames, host_tap(host)), _at(frames, network_tap(host))
    sent, got = (_of(at_host, outgoing=way) for way in (True, False))
    left, came = (_of(in_network, outgoing=way) for way in (False, True))
    return all_from(left, sent) and all_from(got, came)


def _of(frames: Sequence[Frame], *, outgoing: bool) -> list[Frame]:
    return [frame for frame in frames if frame.outgoing is outgoing]


def _marks(tap: str, segment: Segment) -> Iterable[str]:
    if segment.has_dysco_header:
        yield f"{tap}: a Dysco header"
    if segment.has_tag:
        yield f"{tap}: a tag"


def _at(frames: Sequence[Frame], tap: str) -> list[Frame]:
    return [frame for frame, _ in segments(frames, tap)]


def not_counted(before: Mapping[str, Counters], after: Mapping[str, Counters]) -> Claim:
    """No middlebox saw the direct traffic."""
    problems = [
        f"{box}'s counters went from {before[box]} to {after[box]}"
        for box in after
        if after[box] != before[box]
    ]
    return _claim("no middlebox saw any of that", "nft counters", problems)


def load_passed(load: Load, counted: Mapping[str, Counters], tracked: int) -> Claim:
    """wrk's requests were answered, and all boxes saw its packets."""
    problems = []
    if load.errors or not load.requests:
        problems.append(f"wrk: {load.errors} errors in {load.requests} requests")
    problems += [
        f"{box} counted {c.to_server} packets there, {c.to_client} back, {c.dropped} dropped"
        for box, c in counted.items()
        if c.dropped or c.to_server < load.requests or c.to_client < load.requests
    ]
    if tracked == 0:
        problems.append("dysco-ctl listed no session meanwhile")
    what = (
        f"wrk: {load.requests:,} requests, {load.requests_per_second:,.0f}/s, {load.errors} errors"
    )
    return _claim(what, "wrk, nft counters", problems)


def grown(before: Mapping[str, Counters], after: Mapping[str, Counters]) -> dict[str, Counters]:
    """By how much counters grew."""
    return {
        box: Counters(
            after[box].to_server - before[box].to_server,
            after[box].to_client - before[box].to_client,
            after[box].dropped - before[box].dropped,
        )
        for box in after
    }


def chain_changed(problems: Iterable[str]) -> Claim:
    """A download's chain changed twice on its way."""
    what = "HAProxy left a download, a scrubber came, unnoticed"
    return _claim(what, "dysco-ctl, the boxes", problems)


def ended(is_empty: bool, entries: Mapping[str, int]) -> Claim:
    """Sessions that ended leave nothing in the devices."""
    problems = [] if is_empty else ["dyscod still lists sessions"]
    problems += [f"{device} still holds {n} session entries" for device, n in entries.items() if n]
    return _claim("ended sessions leave nothing in the devices", "API of dyscod", problems)
