"""What the controller writes of legs is read back as it was; its numbers are the P4 program's."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address

import pytest
from conftest import Define
from hypothesis import given, settings
from hypothesis import strategies as st
from leg_device import frame, session

from dysco.agent.model import FiveTuple
from dysco.agent.packet import checksum
from dysco.agent.reconfigure.segment import ACK, Segment
from dysco.agent.reconfigure.state import Count, Entry, Gate, NewWay, OldWay, Path
from dysco.controller import legs
from dysco.controller.pipeline import Pipeline, PipelineError

NO_DEADLINE = settings(deadline=None)
WORDS = st.integers(0, 2**32 - 1)
SHORTS = st.integers(0, 2**16 - 1)
SCALES = st.integers(0, 14)
SLOTS = st.integers(1, legs.SLOTS - 1)
MAYBE = st.none() | WORDS
ENTRIES = st.builds(
    Entry,
    st.builds(OldWay, WORDS, WORDS, WORDS, SCALES, MAYBE),
    st.none()
    | st.builds(
        NewWay,
        st.integers(0, 2**64 - 1),
        st.integers(1, 2**32 - 1),
        *[WORDS] * 5,
        MAYBE,
        SCALES,
        MAYBE,
    ),
    st.sampled_from(Path),
    SCALES,
    SCALES,
    WORDS,
) | st.builds(
    Entry,
    st.builds(OldWay, WORDS, WORDS, WORDS, SCALES, MAYBE),
    path=st.sampled_from(Path),
    gate=st.sampled_from((Gate.HELD, Gate.SHUT)),
    hold=WORDS,
)


@pytest.fixture(scope="module")
def codec(pipeline: Pipeline) -> legs.LegCodec:
    return legs.LegCodec(pipeline)


@NO_DEADLINE
@given(slot=SLOTS, entry=ENTRIES)
def test_entries(codec: legs.LegCodec, slot: int, entry: Entry) -> None:
    written = codec.leg(slot, entry)
    assert codec.parse_leg(written) == (slot, entry)
    assert codec.leg_key(slot).match == written.match


@NO_DEADLINE
@given(slot=SLOTS, way=st.builds(OldWay, *[st.integers(-(2**31), -1)] * 3))
def test_negative_constants(codec: legs.LegCodec, slot: int, way: OldWay) -> None:
    _, entry = codec.parse_leg(codec.leg(slot, Entry(way)))
    assert entry.old.seq_out == way.seq_out % 2**32
    assert entry.old.seq_in == way.seq_in % 2**32
    assert entry.old.ts_in == way.ts_in % 2**32


@NO_DEADLINE
@given(slot=SLOTS, token=st.integers(0, 2**64 - 1))
def test_tokens(codec: legs.LegCodec, slot: int, token: int) -> None:
    written = codec.token(token, slot)
    assert codec.parse_token(written) == (token, slot)
    assert codec.token_key(token).match == written.match


@pytest.mark.parametrize(("version", "address"), [(4, IPv4Address), (6, IPv6Address)])
@NO_DEADLINE
@given(slot=SLOTS, ends=st.tuples(WORDS, SHORTS, WORDS, SHORTS))
def test_second_paths(
    codec: legs.LegCodec,
    version: int,
    address: type[IPv4Address] | type[IPv6Address],
    slot: int,
    ends: tuple[int, int, int, int],
) -> None:
    src, sport, dst, dport = ends
    subsession = FiveTuple(address(src), sport, address(dst), dport)
    written = codec.second_path(slot, subsession)
    assert codec.parse_second_path(written) == (slot, subsession)
    assert codec.second_path_key(slot, version).match == written.match


def test_another_tables_entry_is_no_second_path(codec: legs.LegCodec) -> None:
    with pytest.raises(PipelineError, match="holds no second paths"):
        codec.parse_second_path(codec.leg(1, Entry()))


@pytest.mark.parametrize(
    "data", [b"", bytes(14), legs.query(3)[:-1], legs.query(3) + b"\0", bytes(78)]
)
def test_what_is_no_report(data: bytes) -> None:
    with pytest.raises(ValueError, match="not a report"):
        legs.parse_report(data)


def test_a_query_is_an_empty_report() -> None:
    report = legs.parse_report(legs.query(77))
    assert (report.slot, report.events) == (77, legs.Event(0))


@pytest.mark.parametrize("cutoff", [-1, 0, 5, 6])
def test_split_outside_of_the_segment(cutoff: int) -> None:
    data = frame(session(4), Segment(0, 0, ACK, 1, b"12345"))
    with pytest.raises(ValueError, match="no place to split"):
        legs.split(data, cutoff % 2**32)


def test_counts(define: Define, pipeline: Pipeline) -> None:
    # The counter's cells are the reasons, in order.
    assert [c.name for c in Count] == sorted(define.enums["Count"], key=define.enums["Count"].get)
    assert sorted(define.enums["Count"].values()) == list(range(len(Count)))
    (size,) = (c.size for c in pipeline.p4info.counters if c.preamble.alias == "legs")
    assert size == len(Count)


def test_registers_have_room_for_every_slot(pipeline: Pipeline) -> None:
    assert {r.size for r in pipeline.p4info.registers} == {legs.SLOTS}


def test_an_announcement_is_a_right_datagram() -> None:
    mac = bytes(6)
    for src, dst in (
        (IPv4Address("10.0.0.1"), IPv4Address("10.0.0.2")),
        (IPv6Address("2001:db8::1"), IPv6Address("2001:db8::2")),
    ):
        data = legs.announcement(1 << 63, 7, src, dst, mac)
        start = 34 if src.version == 4 else 54
        udp = data[start:]
        pseudo = int.from_bytes(src.packed + dst.packed, "big") + 17 + len(udp)
        assert checksum(udp, pseudo) == 0
        if src.version == 4:
            assert checksum(data[14:34]) == 0
            assert int.from_bytes(data[16:18], "big") == len(data) - 14
        else:
            assert int.from_bytes(data[18:20], "big") == len(udp)
