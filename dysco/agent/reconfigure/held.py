"""What one leg holds while state moves, and segments in the pieces that may leave."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from enum import Enum
from typing import NamedTuple

from dysco.agent import packet
from dysco.agent.reconfigure.segment import CWR, FIN, PSH
from dysco.agent.reconfigure.serial import add, diff


class Phase(Enum):
    """How far a hold is."""

    HOLDING = "the gate is closed"
    WANTED = "it is to end, as soon as the leg's entry is in the device"
    LETTING_GO = "what was held has left, and what is still held leaves at once"


class Held(NamedTuple):
    """A frame, the port that it came from, and whether TCP never repeats it."""

    frame: bytes
    port: int
    is_reset: bool


@dataclass(slots=True)
class Hold:
    """What one leg holds."""

    until: float
    """From then on nothing is kept but resets, which TCP does not repeat."""
    phase: Phase = Phase.HOLDING
    queue: deque[Held] = field(default_factory=deque)
    size: int = 0
    tries: int = 0
    ack: int | None = None
    """The highest ACK that the host sent meanwhile, kept or not."""
    window: int = 0
    """What came with it."""

    def saw(self, ack: int, window: int) -> None:
        """The host sent an ACK."""
        if self.ack is None or diff(ack, self.ack) >= 0:
            self.ack, self.window = ack, window


def cut(segment: packet.Segment, size: int) -> list[packet.Segment]:
    """A segment in pieces of at most `size` bytes; 0: whole."""
    payload = segment.payload
    room = size - len(segment.options)
    if room <= 0 or len(payload) <= room:
        return [segment]
    pieces = []
    for start in range(0, len(payload), room):
        piece = segment.copy()
        piece.seq = add(segment.seq, start)
        piece.payload = payload[start : start + room]
        if start + room < len(payload):
            piece.flags &= ~(FIN | PSH)
        if start:
            piece.flags &= ~CWR
        pieces.append(piece)
    return pieces
