"""The match of a policy in pcap-filter words, as far as a ternary table can hold it: text to tree.

    filter    = term (("and" | "or") term)*      equal precedence, from the left, as pcap has it
    term      = ("not" | "!") term | "(" filter ")" | words
    words     = "tcp" | "ip" | "ip6" | "dscp" value | [family] [side] [kind] value | value

A lone value means the words before the last value again (`port 80 or 443`). What words mean is
decided after parsing, so that everything that is refused is refused with its place and a reason.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from dataclasses import dataclass
from functools import reduce
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import Any, NoReturn

import parsy

MAX_LENGTH = 2000
MAX_NESTING = 30

Network = IPv4Network | IPv6Network


class FilterError(ValueError):
    """The filter is refused: why, and where."""

    def __init__(self, text: str, position: int, why: str) -> None:
        super().__init__(why)
        self.text, self.position, self.why = text, min(position, len(text)), why

    def __str__(self) -> str:
        shown = "".join(c if c.isprintable() else "?" for c in self.text)
        return f"{self.why}\n  {shown}\n  {' ' * self.position}^"


@dataclass(frozen=True, slots=True)
class Family:
    """`ip` (4), `ip6` (6) or `tcp` (0: both, as there is nothing but TCP here)."""

    version: int


@dataclass(frozen=True, slots=True)
class Net:
    """Addresses in a network, of one side or of either ("src", "dst", "")."""

    side: str
    network: Network


@dataclass(frozen=True, slots=True)
class Ports:
    """Ports from `low` to `high`, of one side or of either."""

    side: str
    low: int
    high: int


@dataclass(frozen=True, slots=True)
class Dscp:
    """One DSCP."""

    value: int


@dataclass(frozen=True, slots=True)
class Not:
    """What `inner` does not match."""

    inner: Node
    position: int


@dataclass(frozen=True, slots=True)
class Join:
    """`left and right`, or `left or right`."""

    left: Node
    right: Node
    is_and: bool
    position: int


Node = Family | Net | Ports | Dscp | Not | Join


@dataclass(frozen=True, slots=True)
class _Word:
    text: str
    position: int


# Grammar

_AND, _OR, _NOT = ("and", "&&"), ("or", "||"), ("not", "!")
_KEYWORDS = {*_AND, *_OR, *_NOT}
_space = parsy.regex(r"\s*")


def _operator(*spellings: str) -> parsy.Parser:
    name, sign = spellings
    spelt = parsy.regex(rf"(?i:{name})(?![\w.:/-])") | parsy.string(sign)
    at = parsy.index
    return (parsy.seq(at, spelt.result(name)) << _space).desc(f"'{name}'")


_and, _or, _not = _operator(*_AND), _operator(*_OR), _operator(*_NOT)
_word = (
    parsy.seq(parsy.index, ((_and | _or | _not).should_fail("word") >> parsy.regex(r"[^\s()!&|]+")))
    .combine(lambda at, text: _Word(text, at))
    .desc("a match like 'dst port 80'")
    << _space
)
_filter = parsy.forward_declaration()
_group = (
    (parsy.string("(").desc("'('") << _space)
    >> _filter
    << (parsy.string(")").desc("')'") << _space)
)
_negated = parsy.forward_declaration()
_term = _negated | _group | _word.at_least(1)
_negated.become(parsy.seq(_not, _term).map(lambda found: ("not", found[0][0], found[1])))
_filter.become(
    parsy.seq(_term, parsy.seq(_and | _or, _term).many()).combine(
        lambda first, rest: reduce(
            lambda left, more: (more[0][1], more[0][0], left, more[1]), rest, first
        )
    )
)


def parse(text: str) -> Node:
    """The filter as a tree; an empty one matches all. Raises FilterError."""
    if len(text) > MAX_LENGTH:
        raise FilterError(text[:60], 60, f"a filter has at most {MAX_LENGTH} characters")
    if not text.strip():
        return Family(0)
    for sign in ("(", "!", "not"):
        if text.count(sign) > MAX_NESTING:
            raise FilterError(text, text.index(sign), f"more than {MAX_NESTING} times {sign!r}")
    try:
        tree = (_space >> _filter).parse(text)
    except parsy.ParseError as error:
        if (at := text.find("[")) >= 0:
            raise FilterError(text, at, _NO_BYTES) from None
        expected = " or ".join(sorted(error.expected)).replace("EOF", "the end")
        raise FilterError(text, error.index, f"expected {expected}") from None
    return _Reader(text).read(tree)


# Meaning

_SIDES = ("src", "dst")
_FAMILIES = {"tcp": 0, "ip": 4, "ip6": 6}
_PROTOCOLS = frozenset(
    ("udp", "icmp", "icmp6", "sctp", "arp", "rarp", "igmp", "esp", "ah", "pim", "vrrp", "carp")
)
_NO_FIELD = {
    "link-layer fields": ("ether", "vlan", "mpls", "pppoes", "wlan", "link", "llc", "geneve"),
    "packet lengths": ("less", "greater", "len"),
    "interfaces or directions (choose hosts with --host)": ("inbound", "outbound", "ifname", "on"),
    "broadcast or multicast: TCP has neither": ("broadcast", "multicast"),
    "gateways": ("gateway",),
}
_NO_BYTES = "bytes of the packet can't be matched: the policy table has fields only"
_WHY_NOT = {word: what for what, words in _NO_FIELD.items() for word in words}

DSCP_NAMES = {
    **{"be": 0, "le": 1, "va": 44, "ef": 46},
    **{f"cs{n}": 8 * n for n in range(8)},
    **{f"af{c}{d}": 8 * c + 2 * d for c in range(1, 5) for d in range(1, 4)},
}


@dataclass(slots=True)
class _Qualifiers:
    """The words before a value."""

    family: str = ""
    side: str = ""
    kind: str = ""


class _Reader:
    """Turns words into nodes, from left to right."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._last: _Qualifiers | None = None
        self._kinds: dict[str, Callable[[_Qualifiers, _Word], Node]] = {
            "host": self._host,
            "net": self._net,
            "port": self._port,
            "portrange": self._portrange,
            "dscp": self._dscp,
            "proto": self._proto,
        }

    def read(self, tree: Any) -> Node:
        """A node of what the grammar found."""
        if isinstance(tree, list):
            return self._words(tree)
        if tree[0] == "not":
            return Not(self.read(tree[2]), tree[1])
        word, position, left, right = tree
        return Join(self.read(left), self.read(right), word == "and", position)

    def _refuse(self, word: _Word, why: str) -> NoReturn:
        raise FilterError(self._text, word.position, why)

    def _words(self, words: list[_Word]) -> Node:
        qualifiers, values = self._split(words)
        if not values:
            if qualifiers.family and not (qualifiers.side or qualifiers.kind):
                return Family(_FAMILIES[qualifiers.family])
            either = " ('src or dst' is what no word means)" if words[-1].text in _SIDES else ""
            self._refuse(words[-1], f"{words[-1].text!r} needs a value after it{either}")
        value, *extra = values
        if qualifiers == _Qualifiers():
            if self._last is None:
                self._refuse(value, self._why_unknown(value))
            qualifiers = self._last
        self._last = qualifiers
        if extra and extra[0].text.lower() == "mask" and len(extra) > 1:
            value = _Word(f"{value.text}/{extra[1].text}", value.position)
            extra = extra[2:]
        if extra:
            self._refuse(extra[0], f"expected 'and', 'or' or the end, not {extra[0].text!r}")
        node = self._kinds[qualifiers.kind or "host"](qualifiers, value)
        return self._in_family(qualifiers, node, value)

    def _split(self, words: list[_Word]) -> tuple[_Qualifiers, list[_Word]]:
        found = _Qualifiers()
        for i, word in enumerate(words):
            text = word.text.lower()
            if text in _FAMILIES and found == _Qualifiers():
                found.family = text
            elif text in _SIDES and not (found.side or found.kind):
                found.side = text
            elif text in self._kinds and not found.kind:
                found.kind = text
            elif text in _PROTOCOLS and found.kind != "proto":
                self._refuse(word, f"{text}: policies are about TCP sessions only")
            elif text in _WHY_NOT:
                self._refuse(word, f"the policy table knows nothing of {_WHY_NOT[text]}")
            else:
                return found, words[i:]
        return found, []

    def _why_unknown(self, word: _Word) -> str:
        if "[" in word.text:
            return _NO_BYTES
        if _is_network(word.text):
            return f"write 'host {word.text}', or 'net' for a network"
        return f"unknown word {word.text!r}; known are tcp, ip, ip6, src, dst, " + ", ".join(
            self._kinds
        )

    def _in_family(self, qualifiers: _Qualifiers, node: Node, value: _Word) -> Node:
        version = _FAMILIES.get(qualifiers.family, 0)
        if not version:
            return node
        if isinstance(node, Net) and node.network.version != version:
            self._refuse(value, f"{value.text} is not an address of {qualifiers.family}")
        return Join(Family(version), node, True, value.position)

    def _host(self, qualifiers: _Qualifiers, word: _Word) -> Node:
        if "/" in word.text:
            if qualifiers.kind:
                self._refuse(word, f"{word.text} is a network: write 'net' instead of 'host'")
            return self._net(qualifiers, word)
        self._check_zone(word)
        try:
            return Net(qualifiers.side, ip_network(word.text))
        except ValueError:
            self._refuse(word, f"{word.text!r} is no address; names are not looked up")

    def _net(self, qualifiers: _Qualifiers, word: _Word) -> Node:
        self._check_zone(word)
        try:
            return Net(qualifiers.side, ip_network(word.text))
        except ValueError as error:
            self._refuse(word, _why_no_network(word.text, error))

    def _check_zone(self, word: _Word) -> None:
        if "%" in word.text:
            self._refuse(word, f"{word.text}: a packet has no zone; leave out what follows the '%'")

    def _port(self, qualifiers: _Qualifiers, word: _Word) -> Node:
        port = self._port_number(word, word.text)
        return Ports(qualifiers.side, port, port)

    def _portrange(self, qualifiers: _Qualifiers, word: _Word) -> Node:
        first, dash, last = word.text.partition("-")
        if not dash:
            self._refuse(word, "a portrange is written FIRST-LAST, like 8000-8080")
        low, high = self._port_number(word, first), self._port_number(word, last)
        if low > high:
            self._refuse(word, f"the portrange is empty: {low} is above {high}")
        return Ports(qualifiers.side, low, high)

    def _port_number(self, word: _Word, text: str) -> int:
        if text.isascii() and text.isdigit():
            if int(text) > 65535:
                self._refuse(word, f"there is no port {text}: the last one is 65535")
            return int(text)
        try:
            return socket.getservbyname(text, "tcp")
        except OSError:
            self._refuse(word, f"{text!r} is no port, and no TCP service that this machine knows")

    def _dscp(self, qualifiers: _Qualifiers, word: _Word) -> Node:
        if qualifiers.side:
            self._refuse(word, f"a DSCP has no {qualifiers.side}")
        text = word.text.lower()
        if text in DSCP_NAMES:
            return Dscp(DSCP_NAMES[text])
        if not text.isascii() or not text.isdigit() or int(text) > 63:
            self._refuse(word, f"{text!r} is no DSCP: 0 to 63, or a name like ef, af11, cs1")
        return Dscp(int(text))

    def _proto(self, qualifiers: _Qualifiers, word: _Word) -> Node:
        if word.text.lower().lstrip("\\") not in ("tcp", "6"):
            self._refuse(word, f"{word.text}: policies are about TCP sessions only")
        return Family(0)


def _is_network(text: str) -> bool:
    try:
        ip_network(text, strict=False)
    except ValueError:
        return False
    return True


def _why_no_network(text: str, error: ValueError) -> str:
    try:
        near = ip_network(text, strict=False)
    except ValueError:
        return f"{text!r} is no network: {error}"
    return f"{text} has host bits set: did you mean {near}?"
