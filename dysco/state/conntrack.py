"""`dysco-conntrack`: the connection tracking entry of one session, out of one box and into another.

    export    entry --netlink--> JSON           import    JSON --netlink--> entry, read back
    drop      entry --> deleted                 resume    nothing: an entry does nothing by itself

It works in the network namespace that it runs in: `ip netns exec BOX dysco-conntrack export`. What
ctnetlink neither tells nor takes is not moved: edges of windows (the new box takes them from the
first packet of each direction), counters and timestamps of accounting. What would break a session
if it were left behind is refused by name: helpers, sequence adjustment, expected connections.
"""

from __future__ import annotations

import json
import socket
import sys
from dataclasses import asdict, dataclass
from typing import Any

from pyroute2.conntrack import Conntrack, NFCTAttrTuple
from pyroute2.netlink.exceptions import NetlinkError
from pyroute2.netlink.nfnetlink import nfctsocket as nfct

from dysco.agent.events import StateVerb
from dysco.agent.model import FiveTuple
from dysco.state import command
from dysco.state.request import Request, StateError

_FORMAT = "dysco-conntrack 1"
_KEPT_STATUS = nfct.IPS_SEEN_REPLY | nfct.IPS_ASSURED | nfct.IPS_CONFIRMED | nfct.IPS_FIXED_TIMEOUT
_IMMOVABLE = {
    nfct.IPS_EXPECTED: "it was expected by another connection",
    nfct.IPS_SEQ_ADJUST: "its sequence numbers are adjusted (by SYNPROXY or a helper)",
    nfct.IPS_HELPER: "a helper is attached to it",
}
_ALL_FLAGS = 0xFF
_ENOENT, _EEXIST = 2, 17
_TCP_STATES = {
    number: name
    for number, name in nfct.TCP_CONNTRACK_TO_NAME.items()
    if number < nfct.TCP_CONNTRACK_MAX
}


@dataclass(frozen=True, slots=True)
class Tracked:
    """What is moved of an entry, beside its two tuples."""

    state: str
    scales: tuple[int, int]
    """Window scales of the original and the reply direction."""
    flags: tuple[int, int]
    """IP_CT_TCP_FLAG_*, likewise."""
    status: int
    timeout: int
    """Seconds that it has left."""
    mark: int
    labels: int
    """128 bits."""

    def dump(self) -> bytes:
        """For another box's import."""
        return json.dumps({"format": _FORMAT, **asdict(self)}).encode()

    @staticmethod
    def load(blob: bytes) -> Tracked:
        """From an export. Raises StateError."""
        try:
            tree = json.loads(blob)
            if tree.pop("format") != _FORMAT:
                raise ValueError("another format")
            if tree["state"] not in _TCP_STATES.values():
                raise ValueError(f"no state is named {tree['state']!r}")
            for name in ("scales", "flags"):
                first, second = tree[name]
                tree[name] = (int(first) & 0xFF, int(second) & 0xFF)
            return Tracked(**tree)
        except (ValueError, KeyError, TypeError) as error:
            raise StateError(f"the state is no export of dysco-conntrack: {error!r}") from error


class Table:
    """The conntrack table of this namespace, for one family."""

    def __init__(self, version: int) -> None:
        self._family = socket.AF_INET if version == 4 else socket.AF_INET6
        self._socket = Conntrack(nfgen_family=self._family)

    def find(self, original: FiveTuple) -> Any | None:
        """The entry's message; None: there is none. Raises StateError."""
        try:
            return self._ask("get", tuple_orig=self._tuple(original))
        except NetlinkError as error:
            if error.code == _ENOENT:
                return None
            raise StateError(f"{original}: reading its entry: {error}") from error

    def add(self, original: FiveTuple, onward: FiveTuple, tracked: Tracked) -> None:
        """Make an entry. `onward`: the original direction behind this box's translation.

        Raises NetlinkError.
        """
        # The kernel translates by itself: it is given the reply as if nobody did, and the ranges.
        nat: dict[str, Any] = {}
        if (onward.src, onward.sport) != (original.src, original.sport):
            nat["nat_src"] = self._range(str(onward.src), onward.sport)
        if (onward.dst, onward.dport) != (original.dst, original.dport):
            nat["nat_dst"] = self._range(str(onward.dst), onward.dport)
        numbers = {name: number for number, name in _TCP_STATES.items()}
        tcp = [
            ("CTA_PROTOINFO_TCP_STATE", numbers[tracked.state]),
            ("CTA_PROTOINFO_TCP_WSCALE_ORIGINAL", tracked.scales[0]),
            ("CTA_PROTOINFO_TCP_WSCALE_REPLY", tracked.scales[1]),
            ("CTA_PROTOINFO_TCP_FLAGS_ORIGINAL", (tracked.flags[0], _ALL_FLAGS)),
            ("CTA_PROTOINFO_TCP_FLAGS_REPLY", (tracked.flags[1], _ALL_FLAGS)),
        ]
        self._ask(
            "add",
            tuple_orig=self._tuple(original),
            tuple_reply=self._tuple(original.reversed),
            status=(tracked.status & _KEPT_STATUS) | nfct.IPS_CONFIRMED,
            timeout=tracked.timeout,
            protoinfo={"attrs": [("CTA_PROTOINFO_TCP", {"attrs": tcp})]},
            mark=tracked.mark or None,
            labels=tracked.labels or None,
            **nat,
        )

    def delete(self, original: FiveTuple) -> bool:
        """True if there was one. Raises StateError."""
        try:
            self._ask("del", tuple_orig=self._tuple(original))
        except NetlinkError as error:
            if error.code == _ENOENT:
                return False
            raise StateError(f"{original}: deleting its entry: {error}") from error
        return True

    def _ask(self, command: str, **attributes: Any) -> Any:
        return self._socket.entry(command, **attributes)

    def _tuple(self, ends: FiveTuple) -> NFCTAttrTuple:
        return NFCTAttrTuple(
            family=self._family,
            saddr=str(ends.src),
            daddr=str(ends.dst),
            proto=socket.IPPROTO_TCP,
            sport=ends.sport,
            dport=ends.dport,
        )

    def _range(self, address: str, port: int) -> dict[str, Any]:
        version = "V4" if self._family == socket.AF_INET else "V6"
        ports = [("CTA_PROTONAT_PORT_MIN", port), ("CTA_PROTONAT_PORT_MAX", port)]
        return {
            "attrs": [
                (f"CTA_NAT_{version}_MINIP", address),
                (f"CTA_NAT_{version}_MAXIP", address),
                ("CTA_NAT_PROTO", {"attrs": ports}),
            ]
        }


def export(table: Table, request: Request) -> bytes:
    """The state of the request's session. Raises StateError."""
    original, onward = _ends(request)
    entry = table.find(original)
    if entry is None:
        raise StateError(f"{original}: no entry here; is this the namespace of {request.host}?")
    status = entry.get_attr("CTA_STATUS")
    for bit, what in _IMMOVABLE.items():
        if status & bit:
            raise StateError(f"{original}: {what}, which can't be moved")
    _check_onward(entry, original, onward)
    return _tracked(entry).dump()


def take(table: Table, request: Request, blob: bytes) -> None:
    """Import: the entry is made, in place of one that is there already. Raises StateError."""
    original, onward = _ends(request)
    tracked = Tracked.load(blob)
    table.delete(original)
    try:
        table.add(original, onward, tracked)
    except NetlinkError as error:
        why = "another connection there has its translation" if error.code == _EEXIST else error
        raise StateError(f"{original}, onward {onward}: {why}") from error
    entry = table.find(original)
    if entry is None:
        raise StateError(f"{original}: the entry went away at once")
    try:
        _check_onward(entry, original, onward)
    except StateError:
        table.delete(original)
        raise
    if tracked.labels and _tracked(entry).labels != tracked.labels:
        print("labels are not kept: no rule of this box uses any", file=sys.stderr)


def _tracked(entry: Any) -> Tracked:
    tcp = entry.get_attr("CTA_PROTOINFO").get_attr("CTA_PROTOINFO_TCP")
    directions = ("ORIGINAL", "REPLY")
    scales = [tcp.get_attr(f"CTA_PROTOINFO_TCP_WSCALE_{d}") or 0 for d in directions]
    flags = [tcp.get_attr(f"CTA_PROTOINFO_TCP_FLAGS_{d}")[0] for d in directions]
    return Tracked(
        _TCP_STATES[tcp.get_attr("CTA_PROTOINFO_TCP_STATE")],
        (scales[0], scales[1]),
        (flags[0], flags[1]),
        entry.get_attr("CTA_STATUS") & _KEPT_STATUS,
        entry.get_attr("CTA_TIMEOUT"),
        entry.get_attr("CTA_MARK") or 0,
        _number(entry.get_attr("CTA_LABELS")),
    )


def _number(labels: Any) -> int:
    value = labels["value"] if isinstance(labels, dict) else labels
    return int(value or 0)


def _check_onward(entry: Any, original: FiveTuple, onward: FiveTuple) -> None:
    """Raises StateError if the entry translates otherwise than the session's hosts believe."""
    version = original.src.version
    ends = entry.get_attr("CTA_TUPLE_REPLY")
    address, ports = ends.get_attr("CTA_TUPLE_IP"), ends.get_attr("CTA_TUPLE_PROTO")
    reply = (
        address.get_attr(f"CTA_IP_V{version}_SRC"),
        ports.get_attr("CTA_PROTO_SRC_PORT"),
        address.get_attr(f"CTA_IP_V{version}_DST"),
        ports.get_attr("CTA_PROTO_DST_PORT"),
    )
    wanted = onward.reversed
    if reply != (str(wanted.src), wanted.sport, str(wanted.dst), wanted.dport):
        raise StateError(f"{original}: its reply is {reply}, not {wanted}")


def _ends(request: Request) -> tuple[FiveTuple, FiveTuple]:
    received, emitted = request.sides
    if received is None or emitted is None:
        raise StateError(f"{request.host} is an end of the session: conntrack has its middle only")
    return received, emitted


class Box:
    """Answers the calls of one box; its sockets stay open from one to the next."""

    def __init__(self) -> None:
        self._tables: dict[int, Table] = {}

    def handle(self, request: Request, state: bytes) -> bytes:
        """Do what is asked. Raises StateError."""
        original, _ = _ends(request)
        version = original.src.version
        try:
            if version not in self._tables:
                self._tables[version] = Table(version)
            table = self._tables[version]
            match request.verb:
                case StateVerb.EXPORT:
                    return export(table, request)
                case StateVerb.IMPORT:
                    take(table, request, state)
                case StateVerb.DROP:
                    table.delete(original)
                case StateVerb.RESUME:
                    pass
        except (NetlinkError, OSError) as error:
            raise StateError(f"netlink: {error}; this needs CAP_NET_ADMIN") from error
        return b""


def main() -> None:
    """The command line."""
    command.main("dysco-conntrack", Box().handle)


if __name__ == "__main__":
    main()
