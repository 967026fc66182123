"""Every format of a reconfiguration, damaged or of noise: read, or refused by name.

`test_control`, `test_move_stories` and `tests/agent/test_wire` have what each format is by itself.
"""

from __future__ import annotations

import contextlib
from ipaddress import ip_address

from hypothesis import given, settings
from hypothesis import strategies as st

from dysco.agent import packet
from dysco.agent.model import FiveTuple
from dysco.agent.packet import PacketError
from dysco.agent.reconfigure import messages as m
from dysco.agent.reconfigure.control import (
    OPENING_SIZE,
    ControlError,
    Letter,
    decode,
    encode,
    pack_opening,
    read_opening,
)
from dysco.agent.reconfigure.frames import to_frame, to_segment
from dysco.agent.reconfigure.segment import SYN, Segment
from dysco.agent.reconfigure.state import Registers
from dysco.agent.trust import TAG_SIZE, Nonce, TrustGroup
from dysco.controller import legs

GROUP = TrustGroup("test", b"k" * 32)
ENDS = FiveTuple(ip_address("10.0.0.1"), 33000, ip_address("10.0.0.2"), 80)
KIND, LENGTH = 5, 6
"""Where a control message says its kind and its length."""

u16, u32 = st.integers(0, 0xFFFF), st.integers(0, 0xFFFFFFFF)
segments = st.builds(
    Segment,
    u32,
    u32,
    st.integers(0, 0x3F).map(lambda flags: flags & ~SYN),
    u16,
    st.binary(max_size=60),
    st.lists(st.tuples(u32, u32), max_size=3).map(tuple),
    st.none() | u32,
    st.just(0),
)


@settings(max_examples=500)
@given(st.integers(0, 40), st.binary(max_size=140))
def test_noise_of_a_member_of_the_group_is_refused_or_read(kind: int, content: bytes) -> None:
    """It is authentic: what is in it is believed only as far as it can be read."""
    letter = Letter(1, 2, Nonce(3, 4), m.Drained(m.ReconfigurationId(5, 6)))
    wire = bytearray(encode(letter, GROUP)[:-TAG_SIZE])
    wire[KIND] = kind
    wire[LENGTH : LENGTH + 2] = (len(wire) + len(content) + TAG_SIZE).to_bytes(2, "big")
    wire += content
    with contextlib.suppress(ControlError):
        read = decode(bytes(wire) + GROUP.sign(bytes(wire), 0, b""), GROUP)
        assert decode(encode(read, GROUP), GROUP) == read


@settings(max_examples=300)
@given(st.binary(min_size=OPENING_SIZE, max_size=OPENING_SIZE) | st.binary(max_size=120))
def test_a_noisy_opening_is_refused_or_read(noise: bytes) -> None:
    with contextlib.suppress(ControlError):
        opening = read_opening(noise)
        assert read_opening(pack_opening(opening)) == opening


@given(segments)
def test_a_segment_is_the_same_as_a_frame(segment: Segment) -> None:
    frame = packet.parse(to_frame(segment, ENDS, bytes(6)).build())
    assert frame.tuple == ENDS
    assert to_segment(frame) == segment


@given(segments, st.data())
def test_a_damaged_frame_is_refused_or_read(segment: Segment, data: st.DataObject) -> None:
    wire = bytearray(to_frame(segment, ENDS, bytes(6)).build())
    for _ in range(data.draw(st.integers(1, 4))):
        wire[data.draw(st.integers(0, len(wire) - 1))] = data.draw(st.integers(0, 255))
    with contextlib.suppress(PacketError):
        to_segment(packet.parse(bytes(wire), verify=False))


@given(st.binary(max_size=200), st.integers(0, 1 << 15), st.data())
def test_a_noisy_report_of_a_leg_is_refused_or_read(
    noise: bytes, slot: int, data: st.DataObject
) -> None:
    made = bytearray(legs.seed(slot, Registers(snd_max=1)))
    at = data.draw(st.integers(0, len(made) - 1))
    made[at] = data.draw(st.integers(0, 255))
    for frame in (noise, bytes(made), bytes(made[:at]), bytes(made) + noise[:1]):
        with contextlib.suppress(ValueError):
            legs.parse_report(frame)


@given(segments, u32)
def test_a_frame_is_split_inside_or_not_at_all(segment: Segment, cutoff: int) -> None:
    wire = to_frame(segment, ENDS, bytes(6)).build()
    with contextlib.suppress(ValueError):
        first, second = (to_segment(packet.parse(part)) for part in legs.split(wire, cutoff))
        assert first.data + second.data == segment.data
        assert first.end == second.seq == cutoff
        assert second.end == segment.end
