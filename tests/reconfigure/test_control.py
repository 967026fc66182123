"""Control messages: what is written is read, and nothing else is."""

from __future__ import annotations

import contextlib
from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dysco.agent.model import FiveTuple
from dysco.agent.options import Ecn
from dysco.agent.reconfigure import messages as m
from dysco.agent.reconfigure.control import (
    PORT,
    ControlError,
    ForgedError,
    Letter,
    datagram,
    decode,
    encode,
    host_number,
    pack_opening,
    payload_of,
    read_opening,
)
from dysco.agent.trust import Nonce, TrustGroup

GROUP = TrustGroup("test", b"k" * 32)
OTHER = TrustGroup("test", b"x" * 32)

u8, u16, u32, u64 = (st.integers(0, (1 << bits) - 1) for bits in (8, 16, 32, 64))
ids = st.builds(m.ReconfigurationId, u64, u64)
ends = st.builds(
    m.Ends, st.integers(0, 14), u32, st.booleans(), st.booleans(), u16, u16, st.sampled_from(Ecn)
)
deltas = st.builds(m.Deltas, u32, u32, u32, u32, st.booleans())
addresses = st.ip_addresses(v=4) | st.ip_addresses(v=6)
tuples = st.builds(FiveTuple, addresses, u16, addresses, u16)
messages = st.one_of(
    st.builds(m.RequestLock, ids, u64, u64, u32, ends, st.booleans(), st.sampled_from(m.Change)),
    st.builds(m.AckLock, ids, ends, deltas, st.booleans()),
    st.builds(m.Cutoff, ids, u32, u32, u32, st.booleans()),
    st.builds(m.NackLock, ids, st.text(max_size=40)),
    st.builds(m.CancelLock, ids, u64),
    st.builds(m.Release, ids, u64),
    st.builds(m.MoveOut, ids, u64, tuples),
    st.builds(m.MoveIn, ids, st.binary(max_size=600)),
    st.builds(m.Join, ids, tuples),
    st.builds(m.DoMove, ids, st.sampled_from(m.MoveStep)),
    st.builds(m.MoveDone, ids, st.sampled_from(m.MoveStep)),
    st.builds(m.MoveFailed, ids, st.text(max_size=40)),
    st.builds(m.Chunk, ids, st.integers(0, 9), st.integers(10, 64), st.binary(max_size=1200)),
    st.builds(m.Got, ids, u64),
    *(st.builds(k, ids) for k in (m.AckCancel, m.AckRelease, m.Drained, m.AskRevoke, m.Revoked)),
)
letters = st.builds(
    Letter, st.integers(0, (1 << 52) - 1), u64, st.builds(Nonce, u64, u64), messages
)


@given(letters)
def test_what_is_written_is_read(letter: Letter) -> None:
    assert decode(encode(letter, GROUP), GROUP) == letter


@given(letters, st.data())
def test_one_changed_bit_is_refused(letter: Letter, data: st.DataObject) -> None:
    wire = bytearray(encode(letter, GROUP))
    bit = data.draw(st.integers(0, len(wire) * 8 - 1))
    wire[bit // 8] ^= 1 << bit % 8
    with pytest.raises(ControlError):
        decode(bytes(wire), GROUP)


@given(letters, st.data())
def test_a_cut_message_is_refused(letter: Letter, data: st.DataObject) -> None:
    wire = encode(letter, GROUP)
    with pytest.raises(ControlError):
        decode(wire[: data.draw(st.integers(0, len(wire) - 1))], GROUP)


@given(st.binary(max_size=300))
def test_noise_is_refused(noise: bytes) -> None:
    for wire in (noise, b"DyCo\x01" + noise):
        with pytest.raises(ControlError):
            decode(wire, GROUP)


def test_another_group_is_refused() -> None:
    letter = Letter(1, 2, Nonce(3, 4), m.Drained(m.ReconfigurationId(5, 6)))
    with pytest.raises(ForgedError):
        decode(encode(letter, OTHER), GROUP)


@given(st.builds(m.Opening, ids, ends, deltas, st.none() | u32))
def test_openings(opening: m.Opening) -> None:
    assert read_opening(pack_opening(opening)) == opening


@pytest.mark.parametrize(("src", "dst"), [("10.0.1.2", "10.0.2.2"), ("fd00:1::2", "fd00:2::2")])
@pytest.mark.parametrize("payload", [b"", b"DyCo", b"odd"])
def test_datagrams(src: str, dst: str, payload: bytes) -> None:
    frame = datagram(ip_address(src), ip_address(dst), b"\2\0\0\0\0\1", payload)
    assert payload_of(frame) == ((ip_address(src), PORT), payload)
    assert payload_of(frame + bytes(20)) == ((ip_address(src), PORT), payload)
    damaged = frame[:-1] + bytes([frame[-1] ^ 1])
    with pytest.raises(ControlError):
        payload_of(damaged)


@given(st.binary(max_size=80))
def test_noise_as_a_frame_is_refused_or_read(noise: bytes) -> None:
    for frame in (noise, bytes(12) + b"\x08\x00\x45" + noise, bytes(12) + b"\x86\xdd" + noise):
        with contextlib.suppress(ControlError):
            payload_of(frame)


def test_host_numbers_differ() -> None:
    assert host_number("client") != host_number("server")
