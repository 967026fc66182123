"""A TCP segment as far as the rules of a reconfiguration look at it.

The executable reference works on these, the P4 program on headers; `window` is the field as on the
wire, unscaled. SYNs go by the control logic and are tracked only.
"""

from __future__ import annotations

from dataclasses import dataclass

from dysco.agent.reconfigure.serial import add

FIN, SYN, RST, PSH, ACK = 0x01, 0x02, 0x04, 0x08, 0x10
ECE, CWR = 0x40, 0x80
"""Explicit congestion notification (RFC 3168): the one belongs to the ACK, the other to data."""

Block = tuple[int, int]
"""A SACK block: first sequence number, and one past the last."""


@dataclass(slots=True, unsafe_hash=True)
class Segment:
    """One segment; sequence numbers in the space of where it is.

    Nobody changes one. Not frozen: it would take five times as long to make.
    """

    seq: int
    ack: int
    flags: int
    window: int
    data: bytes = b""
    sack: tuple[Block, ...] = ()
    tsval: int | None = None
    """None: no timestamps option, and `tsecr` means nothing."""
    tsecr: int = 0

    @property
    def end(self) -> int:
        """One past its last byte, a SYN or FIN counted."""
        flags = self.flags
        return add(self.seq, len(self.data) + (flags & FIN) + ((flags & SYN) >> 1))

    @property
    def has_content(self) -> bool:
        """True if it takes sequence space as data or FIN."""
        return bool(self.data) or bool(self.flags & FIN)
