"""What the agents of a reconfiguration tell each other, and what one asks of its controller.

requestLock -->          hop by hop along the old path; every hop's state is at its left end
<-- ackLock / nackLock   with the deltas added up, or the reason
cancelLock -->           gives up before the cutoff; <-- ackCancel
release -->              the old path is not needed any more; <-- ackRelease

revoke? <--> revoked, drained <--> : between the anchors only, directly; hop by hop along the old
path where that fails. So do cutoffs, which data planes else announce to each other.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple

from dysco.agent.reconfigure.segment import Segment
from dysco.agent.reconfigure.serial import add
from dysco.agent.reconfigure.state import Entry, Registers


class ReconfigurationId(NamedTuple):
    """Who reconfigures, and for the how manyeth time; grows at each left anchor."""

    left: int
    number: int


@dataclass(frozen=True, slots=True)
class Ends:
    """What an anchor tells the other of its host."""

    scale: int
    edge: int
    """Right edge of the window that it offers, in its space of incoming bytes."""
    timestamps: bool
    sack: bool
    takes: int = 0xFFFF
    """Longest segment that it accepts (its MSS option)."""
    sends: int = 0
    """Longest segment that it may send; what its peer accepts."""


@dataclass(frozen=True, slots=True)
class Deltas:
    """What the hosts in between add to sequence numbers and timestamps, per direction."""

    rightwards: int = 0
    leftwards: int = 0
    ts_rightwards: int = 0
    ts_leftwards: int = 0
    relays: bool = False
    """True if one acknowledges by itself: windows and timestamps are its own."""

    def __add__(self, other: Deltas) -> Deltas:
        """Of two stretches, one after the other."""
        return Deltas(
            add(self.rightwards, other.rightwards),
            add(self.leftwards, other.leftwards),
            add(self.ts_rightwards, other.ts_rightwards),
            add(self.ts_leftwards, other.ts_leftwards),
            self.relays or other.relays,
        )


@dataclass(frozen=True, slots=True)
class RequestLock:
    """From the left anchor, to the right."""

    id: ReconfigurationId
    right: int
    token: int
    epoch: int
    ends: Ends
    along: bool = False
    """A NAT of the network stands on the way: the anchors reach each other along the chain."""


@dataclass(frozen=True, slots=True)
class AckLock:
    """From the right anchor, to the left; each hop adds its deltas."""

    id: ReconfigurationId
    ends: Ends
    deltas: Deltas
    along: bool = False
    """As the request said when it came to the right anchor."""


@dataclass(frozen=True, slots=True)
class NackLock:
    """From whoever refuses, to the left."""

    id: ReconfigurationId
    why: str


@dataclass(frozen=True, slots=True)
class CancelLock:
    """From the left anchor, to the right."""

    id: ReconfigurationId
    right: int


@dataclass(frozen=True, slots=True)
class AckCancel:
    """From the right anchor, to the left."""

    id: ReconfigurationId


@dataclass(frozen=True, slots=True)
class Release:
    """From the left anchor, to the right: the old path's end, and the lock's."""

    id: ReconfigurationId
    right: int


@dataclass(frozen=True, slots=True)
class AckRelease:
    """From the right anchor, to the left."""

    id: ReconfigurationId


@dataclass(frozen=True, slots=True)
class Drained:
    """From the right anchor to the left: it needs the old path no more."""

    id: ReconfigurationId


@dataclass(frozen=True, slots=True)
class AskRevoke:
    """From the left anchor: if you have not latched, never do, and say so."""

    id: ReconfigurationId


@dataclass(frozen=True, slots=True)
class Revoked:
    """From the right anchor: it has not latched, and never will."""

    id: ReconfigurationId


@dataclass(frozen=True, slots=True)
class Cutoff:
    """From one anchor to the other: what its data plane announces, where that doesn't arrive."""

    id: ReconfigurationId
    epoch: int
    cutoff: int
    edge: int
    known: bool
    """True if the sender has the receiver's."""


Message = (
    RequestLock
    | AckLock
    | NackLock
    | CancelLock
    | AckCancel
    | Release
    | AckRelease
    | Drained
    | AskRevoke
    | Revoked
    | Cutoff
)


class Toward(Enum):
    """Where a message goes."""

    LEFT = "the next agent to the left"
    RIGHT = "the next agent to the right, on the old path"
    ANCHOR = "the other anchor, directly"
    ALONG = "the other anchor, hop by hop on the old path"


@dataclass(frozen=True, slots=True)
class Tell:
    """Send a message; it may be lost."""

    toward: Toward
    message: Message


@dataclass(frozen=True, slots=True)
class SetEntry:
    """Replace this anchor's entry, in one table write."""

    entry: Entry


@dataclass(frozen=True, slots=True)
class Latch:
    """The latch's packet-out; its announcement goes to the other anchor."""


@dataclass(frozen=True, slots=True)
class Opening:
    """In the header of the new path's SYN: what the right anchor must know of the old path."""

    id: ReconfigurationId
    ends: Ends
    deltas: Deltas
    """From the left anchor's host to the right anchor's."""
    tsval: int | None
    """Of the SYN as it was sent."""


@dataclass(frozen=True, slots=True)
class Revoke:
    """The revoking packet-out; the data plane answers with a packet-in."""


@dataclass(frozen=True, slots=True)
class TakeCutoff:
    """The other anchor's cutoff, for the own data plane: as if its announcement had come."""

    cutoff: Cutoff


@dataclass(frozen=True, slots=True)
class SendNew:
    """Put a segment of the handshake onto the new path."""

    segment: Segment
    opening: Opening | None = None
    """For a SYN."""


@dataclass(frozen=True, slots=True)
class WindowUpdate:
    """Tell the host what it may send, now that the old path's word does not count."""


@dataclass(frozen=True, slots=True)
class CloseHost:
    """This box is off the session's path: reset both of its connections, entries go with them."""


@dataclass(frozen=True, slots=True)
class Wake:
    """Call `wake` this many seconds from now; a new one replaces it, 0 stops it."""

    after: float
    exactly: bool = False
    """Not later, where answers take longer."""


@dataclass(frozen=True, slots=True)
class Report:
    """A step of the reconfiguration, for the operator."""

    id: ReconfigurationId
    state: str
    why: str = ""


Do = (
    Tell
    | SetEntry
    | Latch
    | Revoke
    | TakeCutoff
    | SendNew
    | WindowUpdate
    | CloseHost
    | Wake
    | Report
)


@dataclass(frozen=True, slots=True)
class Leg:
    """The anchor's leg as the data plane has it: the answer to a query packet-out."""

    entry: Entry
    registers: Registers
