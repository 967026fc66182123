"""What is on the wire: segments, options, the Dysco header; whole, damaged and forged."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from simulation import make_segment

from dysco.agent.counters import Count
from dysco.agent.header import MIN_SIZE, Header, HeaderError, decode, header_size
from dysco.agent.model import FiveTuple
from dysco.agent.options import Ecn, Negotiated, add_tag, negotiated, take_tag, walk
from dysco.agent.packet import (
    ACK,
    RST,
    SYN,
    ChecksumError,
    PacketError,
    Segment,
    checksum,
    parse,
    refusal,
)
from dysco.agent.trust import TAG_SIZE, Nonce, ReplayGuard, TrustGroup

PORTS = st.integers(0, 65535)
WORDS = st.integers(0, 2**32 - 1)
LONGS = st.integers(0, 2**64 - 1)


def five_tuples(version: int) -> st.SearchStrategy[FiveTuple]:
    addresses = st.ip_addresses(v=version)
    return st.builds(FiveTuple, addresses, PORTS, addresses, PORTS)


ANY_TUPLE = st.sampled_from([4, 6]).flatmap(five_tuples)
OPTIONS = st.integers(0, 10).flatmap(lambda n: st.binary(min_size=4 * n, max_size=4 * n))


@st.composite
def headers(draw: st.DrawFn) -> Header:
    subsession = draw(ANY_TUPLE)
    version = subsession.src.version
    delivered = draw(five_tuples(version))
    same = draw(st.booleans())
    chain = draw(st.lists(st.ip_addresses(v=draw(st.sampled_from([4, 6]))), max_size=5))
    return Header(
        group=draw(st.binary(min_size=4, max_size=4)),
        session_id=draw(LONGS),
        policy=draw(PORTS),
        hop=draw(st.integers(0, 255)),
        refuse=draw(st.booleans()),
        nonce=Nonce(draw(LONGS), draw(LONGS)),
        session=delivered if same else draw(ANY_TUPLE),
        delivered=delivered,
        subsession=subsession,
        chain=tuple(chain),
    )


# Segments


@settings(max_examples=80, deadline=None)
@given(ANY_TUPLE, st.integers(0, 0xFFF), WORDS, WORDS, OPTIONS, st.binary(max_size=200))
def test_a_segment_is_parsed_as_it_was_built(
    ends: FiveTuple, flags: int, seq: int, ack: int, options: bytes, payload: bytes
) -> None:
    built = make_segment(ends, flags, seq, ack, options, payload)
    got = parse(built.build())
    got.network = built.network
    assert got == built
    # Padding behind the packet, as Ethernet has it, is none of it.
    assert parse(built.build() + bytes(9)).payload == payload


@settings(max_examples=80, deadline=None)
@given(ANY_TUPLE, OPTIONS, st.binary(max_size=60), st.data())
def test_a_damaged_segment_is_an_error_never_a_crash(
    ends: FiveTuple, options: bytes, payload: bytes, data: st.DataObject
) -> None:
    frame = bytearray(make_segment(ends, SYN, options=options, payload=payload).build())
    start = 34 if ends.src.version == 4 else 54
    at = data.draw(st.integers(start, len(frame) - 1))
    bit = 1 << data.draw(st.integers(0, 7))
    frame[at] ^= bit
    with pytest.raises(PacketError):
        parse(bytes(frame))
    cut = data.draw(st.integers(0, len(frame) - 1))
    with pytest.raises(PacketError):
        parse(bytes(frame[:cut]))


@settings(max_examples=150, deadline=None)
@given(st.binary(max_size=120), st.sampled_from([b"\x08\0", b"\x86\xdd", b"\0\0"]), st.booleans())
def test_noise_is_a_segment_or_an_error(noise: bytes, ethertype: bytes, verify: bool) -> None:
    frame = bytes(12) + ethertype + noise
    try:
        segment = parse(frame, verify=verify)
    except PacketError as error:
        assert str(error)  # noqa: PT017 - either outcome is right
    else:
        assert isinstance(segment, Segment)


def test_what_is_no_plain_tcp_is_named() -> None:
    ends = FiveTuple(ip_address("10.0.0.1"), 1, ip_address("10.0.0.2"), 2)
    frame = make_segment(ends, SYN).build()
    for at, value, why in [
        (12, b"\x08\x06", "ethertype 0x0806 is not IP"),
        (14, b"\x65", "IPv4 header 0x65"),
        (14, b"\x44", "IPv4 header 0x44"),
        (20, b"\x20\x00", "a fragment|an IPv4 fragment"),
        (23, b"\x11", "protocol 17 is not TCP"),
        (46, b"\x40", "TCP data offset 4"),
        (46, b"\xf0", "TCP data offset 15"),
    ]:
        broken = frame[:at] + value + frame[at + len(value) :]
        with pytest.raises(PacketError, match=why):
            parse(broken)
    with pytest.raises(ChecksumError):
        parse(frame[:50] + b"\xff\xff" + frame[52:])
    assert parse(frame[:50] + b"\xff\xff" + frame[52:], verify=False).tuple == ends


@given(st.binary(max_size=90))
def test_the_checksum_is_rfc_1071_s(data: bytes) -> None:
    total = 0
    padded = data + b"\0" * (len(data) % 2)
    for i in range(0, len(padded), 2):
        total += padded[i] << 8 | padded[i + 1]
        total = (total & 0xFFFF) + (total >> 16)
    assert checksum(data) in (~total & 0xFFFF, (~total & 0xFFFF) ^ (0xFFFF if total == 0 else 0))


def test_a_refusal_answers_the_syn_alone() -> None:
    ends = FiveTuple(ip_address("fd00::1"), 40000, ip_address("fd00::2"), 80)
    reset = parse(refusal(make_segment(ends, SYN, 2**32 - 1, payload=b"data")).build())
    assert (reset.tuple, reset.flags) == (ends.reversed, RST | ACK)
    assert (reset.seq, reset.ack) == (0, 0)


# Options


@settings(max_examples=80, deadline=None)
@given(OPTIONS.filter(lambda o: take_tag(o)[1] is None), WORDS)
def test_a_tag_is_put_in_and_taken_out(options: bytes, tag: int) -> None:
    tagged = add_tag(options, tag)
    if tagged is None:
        assert len(options) > 32
        return
    assert len(tagged) == len(options) + 8 <= 40
    assert take_tag(tagged) == (options, tag)
    assert negotiated(tagged) == negotiated(options)


def test_tags_anywhere_and_repeated_all_go() -> None:
    first, second = add_tag(b"", 1), add_tag(b"", 2)
    assert first is not None
    assert second is not None
    other_experiment = bytes((253, 8)) + b"\x12\x34" + bytes(4)
    options = b"\x02\x04\x05\xb4" + first + other_experiment + second + b"\x01\x01\x04\x02"
    left = b"\x02\x04\x05\xb4" + other_experiment + b"\x01\x01\x04\x02"
    assert take_tag(options) == (left, 1)


@given(st.binary(max_size=40))
def test_walking_options_ends(options: bytes) -> None:
    at = 0
    for _, start, length in walk(options):
        assert start >= at
        assert length >= 2
        at = start + length
    assert at <= len(options)


def test_not_negotiated_is_not_zero() -> None:
    assert negotiated(b"\x03\x03\x00\x00") == Negotiated(None, 0, False, False)
    assert negotiated(b"") == Negotiated(None, None, False, False)
    assert negotiated(b"\x02\x03\x05\x00") == Negotiated(None, None, False, False), "malformed"


# Headers


@settings(max_examples=120, deadline=None)
@given(headers(), st.binary(max_size=30))
def test_a_header_is_read_as_it_was_written(header: Header, data: bytes) -> None:
    encoded = header.encode()
    size = len(encoded) + TAG_SIZE
    assert size == header_size(header.session, header.delivered, header.chain) >= MIN_SIZE
    if header.delivered == header.session:
        assert header.session.src.version == header.subsession.src.version
    assert decode(encoded + bytes(TAG_SIZE) + data) == (header, size)


@settings(max_examples=120, deadline=None)
@given(headers(), st.data())
def test_a_truncated_header_is_an_error(header: Header, data: st.DataObject) -> None:
    whole = header.encode() + bytes(TAG_SIZE)
    cut = data.draw(st.integers(0, len(whole) - 1))
    with pytest.raises(HeaderError) as error:
        decode(whole[:cut])
    expected = {Count.HEADER_MALFORMED, Count.HEADER_VERSION} if cut < 5 else None
    assert error.value.count in (expected or {Count.HEADER_MALFORMED})


@settings(max_examples=150, deadline=None)
@given(headers(), st.data())
def test_a_changed_header_is_refused_or_not_authentic(header: Header, data: st.DataObject) -> None:
    """No bit can be changed: either it makes no sense, or the authentication finds it."""
    group = TrustGroup("test", b"k" * 32)
    signed = header.encode()
    whole = bytearray(signed + group.sign(signed, 7, b"data"))
    at = data.draw(st.integers(0, len(whole) - 1))
    whole[at] ^= 1 << data.draw(st.integers(0, 7))
    try:
        _, length = decode(bytes(whole) + b"data")
    except HeaderError:
        return
    body, tag = bytes(whole[: length - TAG_SIZE]), bytes(whole[length - TAG_SIZE : length])
    rest = (bytes(whole) + b"data")[length:]
    assert not group.verify(body, 7, rest, tag)


@settings(max_examples=150, deadline=None)
@given(st.binary(max_size=200), st.booleans())
def test_noise_is_no_header(noise: bytes, with_magic: bool) -> None:
    payload = b"DySC\x01" + noise if with_magic else noise
    try:
        header, length = decode(payload)
    except HeaderError as error:
        assert error.count in {Count.HEADER_MALFORMED, Count.HEADER_VERSION}  # noqa: PT017
    else:
        assert MIN_SIZE <= length <= len(payload)
        assert header_size(header.session, header.delivered, header.chain) == length


def test_a_signature_is_of_one_syn_one_group_one_key() -> None:
    group = TrustGroup("test", b"k" * 32)
    tag = group.sign(b"header", 7, b"data")
    assert group.verify(b"header", 7, b"data", tag)
    assert not group.verify(b"header", 8, b"data", tag)
    assert not group.verify(b"header", 7, b"datb", tag)
    assert not TrustGroup("test", b"l" * 32).verify(b"header", 7, b"data", tag)
    assert not TrustGroup("other", b"k" * 32).verify(b"header", 7, b"data", tag)
    with pytest.raises(ValueError, match="has 15 bytes, needs 16 or more"):
        TrustGroup("test", b"k" * 15)


# Replays

SENDER, OTHER = ip_address("10.0.0.1"), ip_address("10.0.0.2")


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 3), st.integers(1, 40)), max_size=60))
def test_each_header_passes_once(numbers: list[tuple[int, int]]) -> None:
    """Against a guard that remembers everything: never twice, and late only within the window."""
    size = 16
    guard = ReplayGuard(size, 4)
    seen: set[Nonce] = set()
    epoch, highest = 0, 0
    for nonce in (Nonce(*n) for n in numbers):
        admitted = guard.admit(SENDER, nonce)
        if nonce.epoch > epoch:
            expected = True
        elif nonce.epoch < epoch:
            expected = False
        else:
            expected = nonce not in seen and nonce.number > highest - size
        assert admitted is expected
        seen.add(nonce)
        if (nonce.epoch, nonce.number) > (epoch, highest):
            epoch, highest = nonce


def test_senders_are_apart_and_the_silent_are_forgotten() -> None:
    guard = ReplayGuard(16, 2)
    assert guard.admit(SENDER, Nonce(1, 1))
    assert guard.admit(OTHER, Nonce(1, 1))
    assert not guard.admit(SENDER, Nonce(1, 1))
    assert guard.admit(ip_address("10.0.0.3"), Nonce(1, 1))
    assert not guard.admit(SENDER, Nonce(1, 1)), "the one that was silent longest is forgotten"
    assert guard.admit(OTHER, Nonce(1, 1))


def test_what_a_recovered_session_used_is_used_up() -> None:
    guard = ReplayGuard(16, 4)
    guard.learn(SENDER, Nonce(5, 100))
    assert not guard.admit(SENDER, Nonce(5, 100))
    assert not guard.admit(SENDER, Nonce(5, 90))
    assert not guard.admit(SENDER, Nonce(4, 500))
    assert guard.admit(SENDER, Nonce(5, 101))
    guard.learn(SENDER, Nonce(5, 50))
    assert not guard.admit(SENDER, Nonce(5, 101))


def test_a_header_of_no_use_to_the_next_host() -> None:
    ends4 = FiveTuple(ip_address("10.0.0.1"), 1, ip_address("10.0.0.2"), 2)
    ends6 = FiveTuple(ip_address("fd00::1"), 1, ip_address("fd00::2"), 2)
    header = Header(b"abcd", 1, 1, 1, True, Nonce(1, 1), ends6, ends6, ends6, ())
    whole = bytearray(replace(header, subsession=ends4, delivered=ends4).encode() + bytes(16))
    whole[5] &= ~8  # no five-tuple of its own for the next host: then the families must agree
    length = int.from_bytes(whole[6:8], "big") - 12
    whole[6:8] = length.to_bytes(2, "big")
    with pytest.raises(HeaderError, match="can't reach the host"):
        decode(bytes(whole))


@pytest.mark.parametrize(
    ("marks", "syn", "answer"),
    [
        (0, Ecn.NONE, Ecn.NONE),
        (0x40, Ecn.NONE, Ecn.CLASSIC),
        (0xC0, Ecn.CLASSIC, Ecn.ACCURATE),
        (0x80, Ecn.NONE, Ecn.ACCURATE),
        (0x100, Ecn.NONE, Ecn.ACCURATE),
        (0x1C0, Ecn.ACCURATE, Ecn.NONE),
    ],
)
def test_ecn_is_in_the_flags(marks: int, syn: Ecn, answer: Ecn) -> None:
    """RFC 3168, 6.1.1, and RFC 9768, table 2."""
    assert negotiated(b"", SYN | marks).ecn is syn
    assert negotiated(b"", SYN | ACK | marks).ecn is answer
