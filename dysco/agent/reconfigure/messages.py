"""What the agents of a reconfiguration tell each other, and what one asks of its controller.

requestLock -->          hop by hop along the old path; every hop's state is at its left end
<-- ackLock / nackLock   with the deltas added up, or the reason
cancelLock -->           gives up before the cutoff; <-- ackCancel
release -->              the old path is not needed any more; <-- ackRelease

revoke? <--> revoked, drained <--> : between the anchors only, directly; hop by hop along the old
path where that fails. So do cutoffs, which data planes else announce to each other.


Of a move, each from one agent straight to another (`move_left`, `move_right`, `source`, `target`):

moveOut L --> X, moveIn X --> Y, join Y --> R      the new path's subsessions
moveStep L --> R, X, Y; moveDone back              hold, export, switch, settle
chunk X --> Y, got Y --> X                         the state
moveFailed --> L                                   why not
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple

from dysco.agent.events import StateVerb
from dysco.agent.model import FiveTuple
from dysco.agent.options import Ecn
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
    ecn: Ecn = Ecn.NONE


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


class Change(Enum):
    """What a reconfiguration does to the segment that it locks."""

    PATH = 0
    """Another path, with a sequence space and a handshake of its own."""
    MOVE_BOX = 1
    """The box in it is replaced by another, which goes on with its state."""
    MOVE_END = 2
    """The right anchor's host, where the session ends, goes to another host with its state."""


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
    change: Change = Change.PATH


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


# Of moves.


@dataclass(frozen=True, slots=True)
class MoveOut:
    """To the old host: whither its state is to go. Answered by `MoveDone(PREPARE)`, from the end
    of the new path."""

    id: ReconfigurationId
    to: int
    """The new host."""
    subsession: FiveTuple
    """From the left anchor to the new host."""


@dataclass(frozen=True, slots=True)
class MoveIn:
    """From the old host to the new one: the session as the old one has it."""

    id: ReconfigurationId
    facts: bytes
    """See `facts`."""


@dataclass(frozen=True, slots=True)
class Join:
    """From the new host to the right anchor: the subsession by which it will come."""

    id: ReconfigurationId
    subsession: FiveTuple


class MoveStep(Enum):
    """What the left anchor asks for during a move."""

    PREPARE = 0
    """Of all on the new path, by way of `MoveOut`."""
    HOLD = 1
    """Of the right anchor: keep what the host sends."""
    EXPORT = 2
    """Of the old host: shut the gate, copy the state, send it to the new host; that answers."""
    SWITCH = 3
    """Of the right anchor: take the new path, and let go what was held."""
    SETTLE = 4
    """Of the new host: it is the session's from now on."""


@dataclass(frozen=True, slots=True)
class DoMove:
    """From the left anchor: one step."""

    id: ReconfigurationId
    step: MoveStep


@dataclass(frozen=True, slots=True)
class MoveDone:
    """To the left anchor: that step is done."""

    id: ReconfigurationId
    step: MoveStep


@dataclass(frozen=True, slots=True)
class MoveFailed:
    """To the left anchor: a step can't be done; it goes back, if it hasn't decided yet."""

    id: ReconfigurationId
    why: str


@dataclass(frozen=True, slots=True)
class Chunk:
    """From the old host to the new one: a piece of what moves."""

    id: ReconfigurationId
    index: int
    count: int
    data: bytes


@dataclass(frozen=True, slots=True)
class Got:
    """From the new host to the old one: which pieces are there, a bit each."""

    id: ReconfigurationId
    pieces: int


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
    | MoveOut
    | MoveIn
    | Join
    | DoMove
    | MoveDone
    | MoveFailed
    | Chunk
    | Got
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
class Post:
    """Send a message to a host; it may be lost."""

    to: int
    message: Message


@dataclass(frozen=True, slots=True)
class SetEntry:
    """Replace this anchor's entry, in one table write."""

    entry: Entry
    keep_spare: bool = False
    """The subsession in the leg's other place stays, although the entry has no new way."""


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

    forgot: bool = False
    """True if it has dropped its state of the session: there is nothing to reset."""


@dataclass(frozen=True, slots=True)
class Wake:
    """Call `wake` this many seconds from now; a new one replaces it, 0 stops it."""

    after: float
    exactly: bool = False
    """Not later, where answers take longer."""


@dataclass(frozen=True, slots=True)
class OpenWay:
    """Left anchor of a move: make its first subsession, and tell the old host (`MoveOut`)."""


@dataclass(frozen=True, slots=True)
class LetGo:
    """What this leg holds goes on its way, in order; then the gate opens."""

    switched: bool = False
    """The leg took the new path just now: the box there must learn how far the host is, even if
    nothing is held."""


@dataclass(frozen=True, slots=True)
class Look:
    """Read a leg's registers; `refresh` is told."""


@dataclass(frozen=True, slots=True)
class SendFacts:
    """Old host of a move: tell the new one all of the session (`MoveIn`)."""

    to: int
    subsession: FiveTuple


@dataclass(frozen=True, slots=True)
class SendState:
    """Old host of a move: the pieces that the new one has not got."""

    to: int
    got: int


@dataclass(frozen=True, slots=True)
class CallState:
    """Ask for something to be done with this host's state of the session."""

    verb: StateVerb


@dataclass(frozen=True, slots=True)
class WakeMove:
    """As `Wake`, for the old or the new host of a move."""

    after: float


@dataclass(frozen=True, slots=True)
class Report:
    """A step of the reconfiguration, for the operator."""

    id: ReconfigurationId
    state: str
    why: str = ""


Do = (
    Tell
    | Post
    | SetEntry
    | Latch
    | Revoke
    | TakeCutoff
    | SendNew
    | WindowUpdate
    | CloseHost
    | Wake
    | Report
    | OpenWay
    | LetGo
    | Look
    | SendFacts
    | SendState
    | CallState
    | WakeMove
)


@dataclass(frozen=True, slots=True)
class Leg:
    """The anchor's leg as the data plane has it: the answer to a query packet-out."""

    entry: Entry
    registers: Registers
