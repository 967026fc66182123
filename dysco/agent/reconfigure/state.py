"""What the data plane keeps for one leg of a session: constants in a table entry, and registers.

    host --from_host--> [ Entry | Registers ] --> old way, new way, or both
    host <------------- [                   ] <--from_network-- old way, new way

All registers are in the host's own sequence space, so that they stay true when ways change:
`out` is what the host sends, `in` what it receives. A way adds constants.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from enum import Enum, IntEnum

MAX_WINDOW = 0xFFFF
MAX_JUMP = 1 << 30
"""Default of `Entry.jump`: the largest window that TCP can offer (RFC 7323, 2.3)."""


class Way(Enum):
    """One of the two paths between the anchors."""

    OLD = "old"
    NEW = "new"


class Path(IntEnum):
    """A leg's two places for a subsession in the data plane; reconfigurations take turns."""

    FIRST = 0
    SECOND = 1

    @property
    def other(self) -> Path:
        """The one that is free, or is to take over."""
        return Path(1 - self)


@dataclass(frozen=True, slots=True)
class OldWay:
    """Constants of the path that a leg has outside of a reconfiguration."""

    seq_out: int = 0
    """Added to what the host sends to get what travels."""
    seq_in: int = 0
    """Added to what arrives to get what the host expects."""
    ts_in: int = 0
    """Likewise, for timestamps; the sender never changes its own."""
    scale_in: int = 0
    """Window scale of what arrives."""
    floor: int | None = None
    """The cutoff that this way began with, host's space: nothing below may travel on it. None: it
    has carried the session from the SYN on, or everything below the cutoff has long died out."""

    @property
    def is_plain(self) -> bool:
        """True if what travels has the host's own numbers."""
        return not (self.seq_out or self.seq_in or self.ts_in)


@dataclass(frozen=True, slots=True)
class NewWay:
    """Constants of the path that is to take over, known when its handshake is done."""

    token: int
    """Agreed under the lock's authentication; an announcement without it is ignored."""
    epoch: int
    """Counts the reconfigurations of this leg; never 0."""
    isn_out: int
    """Of this side's SYN or SYN-ACK; the cutoff travels as `isn_out + 1`."""
    isn_in: int
    """Of the other side's, as it arrived here."""
    delta_in: int
    """Other host's number of an incoming byte + delta_in = our host's, on the old path."""
    delta_out: int
    """Our host's number of an outgoing byte + delta_out = the other host's, on the old path."""
    ts_in: int
    """Timestamp of the other side's SYN or SYN-ACK as it arrived here."""
    ts_shift: int | None
    """Added to timestamps that arrive, where no box on either path has a clock of its own: what the
    old path adds in all. None: the first that arrives becomes the last that the host was given."""
    scale_in: int
    edge: int | None = None
    """What the other host really offered by the time of the handshake, our outgoing space. None:
    windows of the old path are the other host's own."""


class Gate(IntEnum):
    """What a leg lets pass while a session's state moves from one host to another."""

    OPEN = 0
    HELD = 1
    """What the host sends goes to its agent, which keeps it for a while; what arrives passes."""
    SHUT = 2
    """Nothing passes, in either direction: the state is being copied, or is elsewhere already."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One leg's constants, replaced as a whole by one table write."""

    old: OldWay = field(default_factory=OldWay)
    new: NewWay | None = None
    path: Path = Path.FIRST
    """Which of the leg's two subsessions the old way is; the new way is the other one."""
    scale_own: int = 0
    """Window scale of what our host sends."""
    scale_heard: int = 0
    """Window scale that our host believes its peer to use."""
    jump: int = MAX_JUMP
    """How far one segment may move the tracking."""
    gate: Gate = Gate.OPEN
    """Other than OPEN only where there is no new way."""
    hold: int = 0
    """Names this time of holding, where `gate` is HELD: even, and never 0."""


class Count(Enum):
    """Why something of a reconfiguration was dropped or changed; the P4 program's counters."""

    EARLY_NEW = "new_data_before_its_announcement"
    LATE_OLD = "old_data_after_the_old_path"
    OLD_BEYOND = "old_path_beyond_the_cutoff"
    OLD_REPEATED = "old_data_answered_by_the_anchor"
    DUPLICATE_ACK = "duplicate_ack_held_back"
    STALE_ACK = "stale_ack_held_back"
    JUMP = "sequence_number_out_of_bounds"
    OLD_RESET = "reset_of_the_old_path_swallowed"
    STRADDLES = "segment_across_the_cutoff"
    ANNOUNCEMENT = "announcement_ignored"
    HELD = "held_while_state_moves"
    SHUT = "dropped_while_state_moves"


@dataclass(slots=True)
class Registers:
    """What one leg's packets leave behind for the next one. Set by the SYN-ACK that passes."""

    isn: int | None = None
    """Of the SYN-ACK that set the others."""
    snd_max: int = 0
    """Out: one past the highest byte that the host sent, FIN not counted."""
    fin_sent: bool = False
    """Out: the host sent a FIN or RST; from then on nothing is latched."""
    snd_una: int = 0
    """Out: highest ACK that the host was given."""
    edge_out: int = 0
    """Out: highest right edge of a window that the other host offered."""
    ts_sent: int = 0
    """Out: last timestamp of the host; what a handshake says for it."""
    rcv_ack: int = 0
    """In: highest ACK that the host sent."""
    edge_in: int = 0
    """In: highest right edge of a window that the host offered."""
    ts_given: int = 0
    """In: highest timestamp that the host was given."""
    ts_switch: int = 0
    """In: `ts_given` when `known` was set."""
    ts_old: int = 0
    """In: last timestamp that came by the old path since then, or `ts_switch`; not necessarily the
    last one that the host was given."""
    latched: int = 0
    """Epoch for which `cutoff_out` stands."""
    revoked: int = 0
    """Epoch that this side will never latch."""
    known: int = 0
    """Epoch for which `cutoff_in` stands: the other side's announcement came."""
    told: int = 0
    """Epoch for which the other side is known to have ours."""
    cutoff_out: int = 0
    cutoff_in: int = 0
    last_way: Way = Way.OLD
    """By which the last segment for the host came."""
    hold: int = 0
    """`Entry.hold`: that holding is over. One more: something was held since it was asked."""
    counts: Counter[Count] = field(default_factory=Counter)


@dataclass(frozen=True, slots=True)
class Announcement:
    """A packet from anchor to anchor, outside of the boxes; latches, and says that it did."""

    token: int
    epoch: int
    cutoff: int
    """The sender's C, in its host's space."""
    edge: int
    """Right edge of the window that its host offers, in its host's space of incoming bytes."""
    known: bool
    """True if the sender has the receiver's announcement already."""


class To(Enum):
    """Where a rule sends a segment."""

    OLD = "old path"
    NEW = "new path"
    HOST = "host"
    SPLIT = "the agent, which splits it at the cutoff and submits both parts"
    PEER = "the other anchor"
    HELD = "the agent, which keeps it until the state has moved"


def switching(entry: Entry, registers: Registers) -> NewWay | None:
    """The new way, if the host's new data goes there already."""
    new = entry.new
    return new if new is not None and registers.latched == new.epoch else None
