"""Packets through features.p4 and switch.p4: parsing, arithmetic, hashes, copies, events."""

from __future__ import annotations

import random
import struct
import zlib

import pytest
from conftest import CPU, Loader
from frames import MAC_A, MAC_B, csum, ethernet, ipv4, udp
from hypothesis import given, settings
from hypothesis import strategies as st

from softnic.dataplane import (
    CounterValue,
    DigestEvent,
    Entry,
    IdleTimeoutEvent,
    Match,
    Op,
    PacketInEvent,
    Replica,
    Update,
)
from softnic.native import NativeDataPlane

ONES128 = (1 << 128) - 1
FAILED = 9
"""The port that features.p4 sends to what it found wrong."""


def drops(plane: NativeDataPlane) -> dict[str, int]:
    return {reason: n for p in plane.ports() for reason, n in p.drops.items()}


def op(number: int, arg: int = 0, rest: bytes = b"") -> bytes:
    return bytes([number, arg]) + rest


def label(value: int, bottom: int, ttl: int = 64) -> bytes:
    return struct.pack(">I", value << 12 | bottom << 8 | ttl)


# ---- parsing ------------------------------------------------------------------------------------


def test_a_stack_is_indexed_and_shifted(load: Loader) -> None:
    plane = load("features")
    frame = op(1, 1, label(7, 0) + label(8, 0) + label(9, 1) + b"rest")
    expected = op(1, 1, label(8, 0, 0xEE) + label(9, 1) + b"rest")
    assert plane.inject(1, frame) == [(1, expected)]


def test_a_full_stack_is_a_parser_error(load: Loader) -> None:
    plane = load("features")
    frame = op(1, 0, b"".join(label(n, 0) for n in range(6)))
    ((port, _),) = plane.inject(1, frame)
    assert port == FAILED


@pytest.mark.parametrize("cut", range(1, 8))
def test_what_is_too_short_is_kept_as_payload(load: Loader, cut: int) -> None:
    plane = load("features")
    frame = op(1, 0, label(7, 0) + label(8, 1))[:-cut]
    ((port, out),) = plane.inject(1, frame)
    assert port == FAILED
    # The one whole label is popped; what could not be parsed stays behind the headers.
    assert out == (op(1, 0) + frame[6:] if cut <= 4 else frame)


@pytest.mark.parametrize("words", range(11))
def test_options_of_every_length(load: Loader, words: int) -> None:
    plane = load("features")
    packet = ipv4(b"data", options=bytes(range(4 * words)))
    ((port, out),) = plane.inject(1, op(2, 0, packet))
    assert port == 1
    assert out == op(2, 0, ipv4(b"data", options=bytes(range(4 * words)), ttl=63))


def test_bad_checksum_and_length_are_told(load: Loader) -> None:
    plane = load("features")
    packet = bytearray(ipv4(b"data"))
    packet[10] ^= 1
    assert plane.inject(1, op(2, 0, bytes(packet)))[0][0] == FAILED
    packet = bytearray(ipv4(b"data"))
    packet[0] = 0x44  # shorter than a header: verify() fails
    assert plane.inject(1, op(2, 0, bytes(packet)))[0][0] == FAILED


# ---- arithmetic ---------------------------------------------------------------------------------

wide = st.one_of(st.integers(0, ONES128), st.sampled_from([0, 1, ONES128, 1 << 127]))


def test_arithmetic_against_python(load: Loader) -> None:
    plane = load("features")

    @settings(max_examples=150, deadline=None)
    @given(
        x=wide,
        y=wide,
        small=st.integers(0, 255),
        signed=st.integers(-(1 << 15), (1 << 15) - 1),
        total=st.integers(0, 0xFFFFFFFF),
    )
    def check(x: int, y: int, small: int, signed: int, total: int) -> None:
        head = x.to_bytes(16, "big") + y.to_bytes(16, "big")
        frame = op(3, 0, head + struct.pack(">BhIHBB", small, signed, total, 0, 0, 0x55))
        ((port, out),) = plane.inject(1, frame)
        assert port == 1
        t = (total + 0xFFFF0000) & 0xFFFFFFFF
        new_x = (x + y) & ONES128
        assert int.from_bytes(out[2:18], "big") == new_x
        assert int.from_bytes(out[18:34], "big") == ((x - y) ^ (x << 3)) & ONES128
        fold, sat, flag = ((t & 0xFFFF) + (t >> 16)) & 0xFFFF, min(small + 200, 255), x > new_x
        rest = struct.pack(">BhIHBB", small, signed >> 2, total, fold, sat, flag << 7 | 0x55)
        assert out[34:] == rest
        assert plane.register("I.wide", 1) == x

    check()


def crc16(data: bytes) -> int:
    """CRC-16/ARC."""
    crc = 0
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0xA001 if crc & 1 else 0)
    return crc


def test_hashes(load: Loader) -> None:
    plane = load("features")
    packet = ipv4(b"", src="10.1.2.3", dst="10.4.5.6")
    ((_, out),) = plane.inject(1, op(4, 0, packet))
    src, dst = packet[12:16], packet[16:20]
    assert out[-10:] == struct.pack(
        ">IHHH",
        zlib.crc32(src + dst + packet[9:10]),
        crc16(src + dst),
        csum(packet[6:8] + src),
        5 + int.from_bytes(packet[4:6], "big") % 100,
    )


def test_what_may_be_a_mistake_is_counted(load: Loader) -> None:
    plane = load("features")
    assert set(plane.program_events().values()) == {0}
    plane.inject(1, op(1, 3, label(1, 1)))  # an element of the stack that is there
    assert set(plane.program_events().values()) == {0}
    plane = load("sums")
    plane.inject(1, b"\x2a\xff" + bytes(10))
    assert plane.program_events() == {
        "log-msg": 1,
        "assertion-failed": 1,
        "index-out-of-bounds": 0,
        "loop-limit": 0,
    }
    plane = load("shapes")
    plane.inject(1, b"\5\3\0\x11")  # the fourth of three
    assert plane.program_events()["index-out-of-bounds"] == 1


def test_registers_are_written_and_read(load: Loader) -> None:
    plane = load("features")
    plane.set_register("I.wide", 0, ONES128 - 5)
    assert plane.register("I.wide", 0) == ONES128 - 5
    with pytest.raises(IndexError, match="no cell 2"):
        plane.register("I.wide", 2)


# ---- copies -------------------------------------------------------------------------------------


def trace(instance: int, kept: int, lost: int, rid: int, length: int) -> bytes:
    return struct.pack(">BBBBH", instance, kept, lost, rid, length)


def test_ingress_clone_is_the_packet_as_it_came_with_the_kept_field(load: Loader) -> None:
    plane = load("features")
    plane.set_clone_session(7, [Replica(4, 11), Replica(5, 12)])
    frame = op(5, 0x21, b"payload")
    assert plane.inject(1, frame) == [
        (4, trace(1, 0x21, 0, 11, 9) + frame),
        (5, trace(1, 0x21, 0, 12, 9) + frame),
        (1, trace(0, 0x21, 0x21, 0, 9) + op(5, 0xFF, b"payload")),
    ]


def test_a_clone_of_a_dropped_packet_and_a_missing_session(load: Loader) -> None:
    plane = load("features")
    assert plane.inject(1, op(8, 1)) == []
    assert drops(plane) == {"no-clone-session": 1, "program": 1}
    plane.set_clone_session(99, [Replica(3, 0)])
    assert plane.inject(1, op(8, 1)) == [(3, op(8, 1))]
    plane.set_clone_session(99, [])
    assert plane.inject(1, op(8, 1)) == []


def test_clones_are_truncated_by_their_session(load: Loader) -> None:
    plane = load("features")
    plane.set_clone_session(99, [Replica(3, 0)], truncate=20)
    frame = op(8, 1, bytes(range(60)))
    assert plane.inject(1, frame) == [(3, frame[:20])]


def test_egress_clones(load: Loader) -> None:
    plane = load("features")
    plane.set_clone_session(7, [Replica(4, 1)])
    assert plane.inject(1, op(11, 9)) == [(4, op(11, 2))]
    # A program that clones its clones without end is stopped.
    out = plane.inject(1, op(12, 9))
    assert 1 < len(out) <= 25
    assert drops(plane)["clone-limit"] == 1


def test_resubmit_keeps_the_field_list(load: Loader) -> None:
    plane = load("features")
    assert plane.inject(1, op(6, 0, b"x")) == [(1, op(6, 33, b"x"))]
    assert plane.inject(1, op(9)) == []
    assert drops(plane) == {"loop-limit": 1}


@pytest.mark.parametrize(("rounds", "arrives"), [(1, True), (10, True), (100, False)])
def test_recirculation_is_bounded(load: Loader, rounds: int, arrives: bool) -> None:
    plane = load("features")
    out = plane.inject(1, op(7, rounds, b"y"))
    assert out == ([(1, op(7, 0, b"y"))] if arrives else [])
    assert drops(plane) == ({} if arrives else {"loop-limit": 1})


def test_truncate(load: Loader) -> None:
    plane = load("features")
    frame = op(10, 30, bytes(range(100)))
    assert plane.inject(1, frame) == [(1, frame[:30])]
    assert plane.inject(1, frame[:10]) == [(1, frame[:10])]


def test_multicast(load: Loader) -> None:
    plane = load("features")
    frame = op(13, 0, b"m")
    assert plane.inject(1, frame) == []
    assert drops(plane) == {"no-multicast-group": 1}
    plane.set_multicast_group(3, [Replica(2, 21), Replica(3, 31), Replica(3, 32)])
    copies = [(2, 21), (3, 31), (3, 32)]
    assert plane.inject(1, frame) == [(p, trace(5, 0, 0, r, 3) + frame) for p, r in copies]


# ---- events -------------------------------------------------------------------------------------


def test_packet_in_and_digest(load: Loader) -> None:
    plane = load("switch")
    acl = Match(bytes(7), bytes(4) + b"\xff\xff" + b"\0", 5)
    put = Update(Op.INSERT, "I.acl", Entry(acl, "I.punt", b""))
    forward = Update(Op.INSERT, "I.l2", Entry(Match(MAC_B, b"\xff" * 6), "I.forward", b"\0\2"))
    assert plane.write([put, forward]) == [0, 0]
    frame = ethernet(ipv4(udp(b"q")))
    ((port, out),) = plane.inject(3, frame)
    assert (port, out[2:]) == (CPU, frame)
    assert out[:2] == struct.pack(">H", 3 << 7)
    assert plane.events(1.0) == [DigestEvent("learn_t", MAC_A + b"\0\3")]
    assert plane.counter("I.kinds", 1) == CounterValue(1, len(frame))
    assert plane.register("I.seen", 3) == 1


def test_packet_out_becomes_a_packet_in_again(load: Loader) -> None:
    plane = load("switch")
    frame = ethernet(b"z" * 50, kind=0x1234)
    plane.packet_out(struct.pack(">H", CPU << 7) + frame)
    assert plane.events(5.0) == [PacketInEvent(struct.pack(">H", CPU << 7) + frame)]


def test_idle_entries_are_told_once(load: Loader) -> None:
    plane = load("switch")
    match = Match(MAC_B, b"\xff" * 6)
    entry = Entry(match, "I.forward", b"\0\2", 1_000_000)
    assert plane.write([Update(Op.INSERT, "I.l2", entry)]) == [0]
    plane.inject(1, ethernet(bytes(50)))
    events = [e for e in plane.events(5.0) if isinstance(e, IdleTimeoutEvent)]
    while not events:
        events = [e for e in plane.events(5.0) if isinstance(e, IdleTimeoutEvent)]
    assert events == [IdleTimeoutEvent("I.l2", match)]


def test_a_const_entry_can_not_be_changed(load: Loader) -> None:
    plane = load("switch")
    lldp = Entry(Match(b"\x88\xcc", b"\xff\xff"), "NoAction", b"")
    assert plane.write([Update(op_, "I.kind", lldp) for op_ in Op]) == [1, 4, 4]
    assert plane.inject(1, ethernet(bytes(50), kind=0x88CC)) == []


def test_random_frames_of_every_length_do_no_harm(load: Loader) -> None:
    rng = random.Random(4)
    plane = load("features")
    plane.set_clone_session(7, [Replica(4, 1)])
    plane.set_multicast_group(3, [Replica(2, 1), Replica(3, 2)])
    for n in range(3000):
        length = n % 200
        plane.inject(1, bytes([rng.randrange(16)]) + rng.randbytes(length))
