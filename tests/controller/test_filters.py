"""The policies' filter language: what is held, what is refused and why, and what it means."""

from __future__ import annotations

from collections.abc import Callable
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from itertools import pairwise
from typing import NamedTuple

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from dysco.agent.model import Address, FiveTuple
from dysco.controller import ternary
from dysco.controller.filter_compiler import Compiled, compile_filter
from dysco.controller.filters import FilterError
from dysco.controller.sessions import five_tuple_filter


class Packet(NamedTuple):
    src: Address
    dst: Address
    sport: int
    dport: int
    dscp: int


def matches(compiled: Compiled, packet: Packet) -> bool:
    entries = compiled.v4 if packet.src.version == 4 else compiled.v6
    fields = (int(packet.src), int(packet.dst), *packet[2:])
    return any(
        all(field & mask == value for field, (value, mask) in zip(fields, entry, strict=True))
        for entry in entries
    )


# Meaning: against an evaluator that knows nothing of tables

Meaning = Callable[[Packet], bool]


class Term(NamedTuple):
    """A filter and what it means; `atomic`: may stand beside an operator without parentheses."""

    text: str
    meaning: Meaning
    atomic: bool


ADDRESSES: list[Address] = [
    *(IPv4Address(f"10.{a}.0.{b}") for a in (0, 1, 128) for b in (0, 1, 2, 255)),
    *(IPv6Address(f"fd00:{a:x}::{b:x}") for a in (0, 1) for b in (1, 2)),
]
PORTS = [0, 1, 79, 80, 81, 442, 443, 1023, 1024, 8080, 32768, 65534, 65535]


def either(side: str, one: Callable[[Packet, str], bool]) -> Meaning:
    sides = (side,) if side else ("src", "dst")
    return lambda packet: any(one(packet, name) for name in sides)


@st.composite
def addresses(draw: st.DrawFn) -> Term:
    side = draw(st.sampled_from(["", "src", "dst"]))
    address = draw(st.sampled_from(ADDRESSES))
    length = draw(st.integers(0, address.max_prefixlen))
    network = ip_network((address, length), strict=False)
    host = draw(st.booleans())
    if host:
        network = ip_network(address)
    words = [side, "host" if host else "net", str(address) if host else str(network)]
    return Term(
        " ".join(filter(None, words)),
        either(side, lambda p, name: getattr(p, name) in network),
        True,
    )


@st.composite
def ports(draw: st.DrawFn) -> Term:
    side = draw(st.sampled_from(["", "src", "dst"]))
    low, high = sorted((draw(st.sampled_from(PORTS)), draw(st.sampled_from(PORTS))))
    if draw(st.booleans()):
        low, text = high, f"port {high}"
    else:
        text = f"portrange {low}-{high}"
    family = draw(st.sampled_from(["", "tcp", "ip", "ip6"]))
    inner = either(side, lambda p, name: low <= getattr(p, f"{name[0]}port") <= high)
    version = {"ip": 4, "ip6": 6}.get(family)
    return Term(
        " ".join(filter(None, [family, side, text])),
        lambda p: version in (None, p.src.version) and inner(p),
        True,
    )


WORDS = [
    Term("tcp", lambda p: True, True),
    Term("ip", lambda p: p.src.version == 4, True),
    Term("ip6", lambda p: p.src.version == 6, True),
    Term("dscp ef", lambda p: p.dscp == 46, True),
    Term("dscp 0", lambda p: p.dscp == 0, True),
]


def in_parentheses(term: Term) -> str:
    return term.text if term.atomic else f"({term.text})"


def join(left: Term, right: Term, word: str, bare: bool) -> Term:
    """`bare`: the left side without parentheses, as precedence is the same and from the left."""
    text = f"{left.text if bare else in_parentheses(left)} {word} {in_parentheses(right)}"
    if word in ("and", "&&"):
        return Term(text, lambda p: left.meaning(p) and right.meaning(p), False)
    return Term(text, lambda p: left.meaning(p) or right.meaning(p), False)


def negate(term: Term, word: str) -> Term:
    return Term(f"{word} {in_parentheses(term)}", lambda p: not term.meaning(p), True)


TERMS = st.recursive(
    st.one_of(addresses(), ports(), st.sampled_from(WORDS)),
    lambda inner: st.one_of(
        st.builds(join, inner, inner, st.sampled_from(["and", "or", "&&", "||"]), st.booleans()),
        st.builds(negate, inner, st.sampled_from(["not", "!"])),
    ),
    max_leaves=5,
)


@st.composite
def packets(draw: st.DrawFn) -> Packet:
    version = draw(st.sampled_from([4, 6]))
    address = st.sampled_from([a for a in ADDRESSES if a.version == version])
    port = st.one_of(st.sampled_from(PORTS), st.integers(0, 65535))
    return Packet(draw(address), draw(address), draw(port), draw(port), draw(st.integers(0, 63)))


def tried(text: str) -> tuple[Compiled | None, str]:
    try:
        return compile_filter(text), ""
    except FilterError as error:
        return None, str(error)


@settings(max_examples=150, deadline=None)
@given(TERMS, st.lists(packets(), min_size=1, max_size=12))
def test_entries_match_what_the_filter_means(term: Term, sent: list[Packet]) -> None:
    compiled, refused = tried(term.text)
    if compiled is None:
        # Only two filters that are well formed are refused: too big, or empty.
        assume("more than 512 table entries" not in refused)
        assert "no TCP session at all" in refused
        assert not any(map(term.meaning, sent))
        return
    for packet in sent:
        assert matches(compiled, packet) == term.meaning(packet), (term.text, packet)
    assert max(len(compiled.v4), len(compiled.v6)) <= ternary.MAX_CUBES


@settings(max_examples=60, deadline=None)
@given(st.text(alphabet="tcpdsrnohia 0189.:/-()!&|[]\n\x00é", max_size=40))
def test_nonsense_is_refused_with_its_place(text: str) -> None:
    compiled, refused = tried(text)
    if compiled is None:
        why, shown, caret = refused.split("\n")
        assert why
        assert len(shown) == len(text) + 2
        assert caret.lstrip(" ") == "^"
        assert len(caret) <= len(text) + 3


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 65535), st.integers(0, 65535))
def test_a_span_is_exactly_its_values(a: int, b: int) -> None:
    low, high = min(a, b), max(a, b)
    cubes = ternary.span(low, high, 16)
    covered = sorted((c.value, c.value | (~c.mask & 0xFFFF)) for c in cubes)
    assert covered[0][0] == low
    assert covered[-1][1] == high
    assert all(end + 1 == start for (_, end), (start, _) in pairwise(covered))
    assert len(cubes) <= 30


def test_a_lone_value_means_the_words_before_it_again() -> None:
    for text, same in [
        ("port 80 or 443", "port 80 or port 443"),
        ("src host 10.0.0.1 or 10.0.0.2", "src host 10.0.0.1 or src host 10.0.0.2"),
        ("not (dst port 80 or 443)", "not dst port 80 and not dst port 443"),
    ]:
        left, right = compile_filter(text), compile_filter(same)
        assert set(left.v4) == set(right.v4)
        assert set(left.v6) == set(right.v6)


@pytest.mark.parametrize(
    ("text", "entries"),
    [
        ("", (1, 1)),
        ("tcp and dst port 80", (1, 1)),
        ("tcp and dst port 80 and src net 10.0.0.0/8", (1, 0)),
        ("host fd00::1", (0, 2)),
        ("portrange 1024-65535", (12, 12)),
        ("net 10.0.0.0 mask 255.0.0.0", (2, 0)),
        ("dst port http", (1, 1)),
        ("ip proto 6", (1, 0)),
        # Covered by what is there already: no entries of its own.
        ("dst port 80 or (dst port 80 and dscp ef)", (1, 1)),
    ],
)
def test_how_many_entries_it_takes(text: str, entries: tuple[int, int]) -> None:
    compiled = compile_filter(text)
    assert (len(compiled.v4), len(compiled.v6)) == entries


@pytest.mark.parametrize(
    ("text", "why", "position"),
    [
        ("udp port 53", "policies are about TCP sessions only", 0),
        ("dst port 80 and icmp", "policies are about TCP sessions only", 16),
        ("ip proto 17", "policies are about TCP sessions only", 9),
        ("ether host 00:00:00:00:00:01", "knows nothing of link-layer fields", 0),
        ("vlan 5 and tcp", "knows nothing of link-layer fields", 0),
        ("less 100", "knows nothing of packet lengths", 0),
        ("inbound", "choose hosts with --host", 0),
        ("broadcast", "TCP has neither", 0),
        ("tcp[13] & 2 != 0", "bytes of the packet can't be matched", 3),
        ("tcp[13] == 2", "bytes of the packet can't be matched", 0),
        ("host example.com", "names are not looked up", 5),
        ("host 10.0.0.0/8", "write 'net' instead of 'host'", 5),
        ("10.0.0.1", "write 'host 10.0.0.1'", 0),
        ("net 10.0.0.1/8", "did you mean 10.0.0.0/8?", 4),
        ("net 10", "is no network", 4),
        ("host fe80::1%eth0", "a packet has no zone", 5),
        ("net fe80::%eth0/64", "a packet has no zone", 4),
        ("ip6 host 10.0.0.1", "not an address of ip6", 9),
        ("port 65536", "the last one is 65535", 5),
        ("port nosuchservice", "no TCP service that this machine knows", 5),
        ("portrange 90-80", "the portrange is empty", 10),
        ("portrange 80", "written FIRST-LAST", 10),
        ("dscp 64", "0 to 63", 5),
        ("src dscp 5", "a DSCP has no src", 9),
        ("src or dst port 80", "'src or dst' is what no word means", 0),
        ("port 80 443", "expected 'and', 'or' or the end", 8),
        ("(tcp", "expected ')'", 4),
        ("tcp)", "the end", 3),
        ("tcp and", "expected", 7),
        ("not", "expected", 3),
        ("()", "expected", 1),
        ("what", "unknown word 'what'", 0),
        ("tcp and not tcp", "matches no TCP session at all", 0),
        ("port 80 and " * 200 + "tcp", "at most 2000 characters", 60),
        ("(" * 31 + "tcp" + ")" * 31, "more than 30 times '('", 0),
    ],
)
def test_what_is_refused_and_why(text: str, why: str, position: int) -> None:
    with pytest.raises(FilterError) as refused:
        compile_filter(text)
    assert why in refused.value.why
    assert refused.value.position == position


def test_what_needs_too_many_entries_is_refused_where_it_grows() -> None:
    text = "tcp and not (port 80 or port 81 or port 443)"
    with pytest.raises(FilterError, match="more than 512 table entries") as refused:
        compile_filter(f"{text} and not net 10.0.0.0/8")
    assert "split it into several policies" in refused.value.why
    assert refused.value.text[refused.value.position :].startswith(("not", "and"))


def test_sessions_are_filtered_in_the_same_words() -> None:
    session = FiveTuple(ip_address("10.0.0.1"), 40000, ip_address("10.0.0.9"), 80)
    for text, expected in [
        ("dst port 80", True),
        ("dst port 81", False),
        ("src net 10.0.0.0/24 and not dst host 10.0.0.8", True),
        ("ip6", False),
        # A session has no DSCP of its own: what a filter says of it is left out.
        ("dscp ef and port 80", True),
    ]:
        assert five_tuple_filter(text)(session) is expected
