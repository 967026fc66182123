"""What an agent is told, and what it asks for in return.

    controller --Event--> Agent.handle(event, now) --list[Action]--> controller

Actions are carried out in order. `Install` writes its mappings in one batch and, once the device
has confirmed them, carries out `then`; if the device refuses, the mappings that did get in are
taken out again, `then` is dropped, and the agent gets `InstallFailed`.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, IntEnum, IntFlag
from typing import NamedTuple

from dysco.agent.model import Address, FiveTuple, Host, MacAddress, Mapping, MappingKey
from dysco.agent.reconfigure.state import Entry, Registers


class Reason(IntEnum):
    """Why a packet was punted or copied; the P4 program's `Reason`."""

    HOST_SYN = 1
    DYSCO_SYN = 2
    SENT = 3
    RECEIVED = 4
    NEIGHBOUR = 5
    NEW_PATH = 6
    """A segment of the handshake of a leg's other path, as the network has it."""
    SPLIT = 7
    """A host's segment that lies across the cutoff."""
    LEG = 8
    """A report of a leg's registers."""
    CONTROL = 9
    """A control message for a host's agent."""
    HELD = 10
    """A host's segment, on a leg whose gate holds."""


class Submit(IntEnum):
    """What the pipeline does with a packet-out; the P4 program's `Submit`."""

    PORT = 0
    """Leaves at `port` as it is."""
    ROUTE = 1
    """Routed by its destination address; the pipeline fills in the destination MAC."""
    BRIDGE = 2
    """Bridged as if it had come in at `port`, outside of any session."""
    HOST = 3
    """As if the host at `port` had sent it."""
    LATCH = 4
    """An announcement: the leg of its token takes the new path, and tells the other anchor."""
    REVOKE = 5
    """An announcement: the leg of its token never latches; answered by `Reason.LEG`."""
    QUERY = 6
    """Answered by `Reason.LEG`."""
    IN_BAND = 7
    """A control message in a segment as the host at `port` would send it: numbered on its way."""
    RELEASED = 8
    """As `HOST`, for what was held: it passes the gate."""
    END_HOLD = 9
    """The leg's gate holds no more, unless it held something since the last; `Reason.LEG`."""
    SEED = 10
    """Registers for a leg that came from another host."""


@dataclass(frozen=True, slots=True)
class PacketIn:
    """A frame from the data plane. `host` 0: none of ours; `policy` 0: none matched."""

    reason: Reason
    port: int
    host: int
    policy: int
    frame: bytes


@dataclass(frozen=True, slots=True)
class Idle:
    """No packet hit this mapping for its idle time-out."""

    key: MappingKey


@dataclass(frozen=True, slots=True)
class TimerFired:
    """A timer set with `SetTimer` ran out."""

    timer: TimerId


@dataclass(frozen=True, slots=True)
class Answered:
    """Packets pass both ways on these mappings' legs, so the session was answered.

    Instead of `TimerFired` for a session under set-up, where the device's counters say so: the copy
    of its SYN-ACK was lost, or passed while no agent was there.
    """

    session: int
    keys: tuple[MappingKey, ...]


@dataclass(frozen=True, slots=True)
class InstallFailed:
    """The device refused an `Install`: `token` is the one given there, `why` a text for people."""

    token: int
    why: str


class LegNews(IntFlag):
    """Why the registers of a leg are reported; 0: they were asked for."""

    ANNOUNCED = 1
    """The other anchor's announcement came, for the first time; this side has latched too."""
    DRAINED = 2
    """This anchor needs the old path no more."""
    CLOSING = 4
    """A latch was refused: the host has sent a FIN."""
    REVOKED = 8
    """This new way will never be latched."""
    HOLD_OVER = 16
    """What the host sends passes the gate."""
    STILL_HELD = 32
    """It does not yet: something was held since it was asked last."""


@dataclass(frozen=True, slots=True)
class LegReport:
    """What the data plane keeps of a leg; `key` is that of its outbound mapping."""

    key: MappingKey
    news: LegNews
    registers: Registers


@dataclass(frozen=True, slots=True)
class LegRefused:
    """The device refused a `SetLeg`."""

    key: MappingKey
    why: str


@dataclass(frozen=True, slots=True)
class HeldLeg:
    """A leg's constants as a device holds them; `second`: the subsession in its second place."""

    key: MappingKey
    entry: Entry
    second: FiveTuple | None


@dataclass(frozen=True, slots=True)
class Recovered:
    """After a restart: all that the device holds of this agent's host, and what was journalled."""

    mappings: tuple[Mapping, ...]
    legs: tuple[HeldLeg, ...] = ()
    journal: tuple[tuple[int, bytes], ...] = ()
    """By session: the last `Keep`."""


@dataclass(frozen=True, slots=True)
class Reconfigure:
    """Change a session's chain between this host and another: the wish of an operator.

    `through` are the hosts to cross there from now on, in the words of a policy's chain. The answer
    is one `Tell`: `reconfiguration_started`, or `request_refused` with the reason.
    """

    session: int
    right: str
    through: tuple[str, ...]
    with_state: bool = False
    """The one box between here and `right` is replaced by the one in `through`, which goes on with
    its state for this session: a *move*."""


@dataclass(frozen=True, slots=True)
class MoveEnd:
    """The session's right end goes to another host, with its TCP state: the wish of an operator.

    Asked of the agent of the end's left neighbour. The answer is one `Tell`, as for `Reconfigure`.
    """

    session: int
    right: str
    """Name of the host where the session ends now."""
    to: str
    """Name or address of the host where it is to end."""


@dataclass(frozen=True, slots=True)
class CancelReconfiguration:
    """Go back to the old path, if that is still possible.

    The answer is one `Tell`: `reconfiguration_cancelled`, or `request_refused` with the reason.
    """

    session: int


@dataclass(frozen=True, slots=True)
class CloseSession:
    """An operator wants the session gone: its mappings and ports are released."""

    session: int


@dataclass(frozen=True, slots=True)
class Tag:
    """Selects a session by the tag in the SYN that was delivered to a middlebox."""

    value: int


Selector = int | Tag | FiveTuple
"""A session by its id, by its tag, or by the five-tuple of the SYN as its middlebox got it."""


@dataclass(frozen=True, slots=True)
class SetRestOfChain:
    """A middlebox classified a SYN: where its session goes next, in the words of a policy's chain.

    Between the SYN's delivery and its emission. The answer is one `Tell`: `chain_set`, or
    `request_refused` with the reason.
    """

    selector: Selector
    chain: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class SetUpstream:
    """A terminating proxy says which SYN of its own will carry a session on.

    The answer is one `Tell`: `upstream_set`, or `request_refused` with the reason.
    """

    selector: Selector
    upstream: FiveTuple


@dataclass(frozen=True, slots=True)
class StateDone:
    """A `StateCall` was carried out; `state` is what an export gave, at most `MAX_STATE` bytes."""

    call: int
    """Number of the `StateCall`; one that nobody waits for any more is counted and ignored."""
    session: int
    state: bytes = b""


@dataclass(frozen=True, slots=True)
class StateFailed:
    """A `StateCall` was not carried out; `why` is a text for people, of some 150 characters."""

    call: int
    session: int
    why: str


@dataclass(frozen=True, slots=True)
class FixDeltas:
    """A middlebox that changed a session's stream passes it on as it is from now on.

    `rightwards`, `leftwards`: bytes that it added in all, less those that it removed, to what goes
    from the session's initiator, and back. From then on it may be taken out. The answer is one
    `Tell`: `deltas_fixed`, or `request_refused` with the reason.
    """

    selector: Selector
    rightwards: int
    leftwards: int


Event = (
    PacketIn
    | Idle
    | TimerFired
    | Answered
    | InstallFailed
    | Recovered
    | CloseSession
    | SetRestOfChain
    | SetUpstream
    | FixDeltas
    | LegReport
    | LegRefused
    | Reconfigure
    | MoveEnd
    | CancelReconfiguration
    | StateDone
    | StateFailed
)


@dataclass(frozen=True, slots=True)
class TimerId:
    """Names a timer; setting it again replaces it."""

    kind: str
    subject: int


@dataclass(frozen=True, slots=True)
class Send:
    """Put a frame into the pipeline."""

    frame: bytes
    submit: Submit
    port: int = 0


@dataclass(frozen=True, slots=True)
class SetTimer:
    """Fire `timer` `after` seconds from now."""

    timer: TimerId
    after: float


@dataclass(frozen=True, slots=True)
class CancelTimer:
    """Forget a timer; none with that name is fine."""

    timer: TimerId


@dataclass(frozen=True, slots=True)
class Remove:
    """Take these mappings out; those that are not there are fine."""

    keys: tuple[MappingKey, ...]


class Level(Enum):
    """How loud a `Tell` is."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"


@dataclass(frozen=True, slots=True)
class Tell:
    """A line for the operator, of something that isn't everyday.

    `counter` names what it is (snake_case, bounded set of names); the agent has counted it already
    in its own `counters`, which count the everyday too.
    """

    level: Level
    counter: str
    host: Host
    text: str


@dataclass(frozen=True, slots=True)
class Install:
    """Write mappings (new ones inserted, known ones replaced), then do `then`."""

    mappings: tuple[Mapping, ...]
    token: int
    then: tuple[Action, ...] = ()


@dataclass(frozen=True, slots=True)
class SetLeg:
    """A leg's constants, and all that belongs to them; `key` is that of its outbound mapping.

    In this order: `mappings`, `second` and `token` are written; then `entry`; then what is not
    named here any more is taken out, `remove` too, and `then` is carried out. If the device
    refuses, `then` is dropped and the agent gets `LegRefused`.
    """

    key: MappingKey
    entry: Entry | None
    """None: the leg is over, and everything of it goes."""
    second: FiveTuple | None = None
    """Subsession in the second place."""
    token: int | None = None
    """Finds this leg for announcements."""
    mappings: tuple[Mapping, ...] = ()
    remove: tuple[MappingKey, ...] = ()
    then: tuple[Action, ...] = ()


@dataclass(frozen=True, slots=True)
class Announce:
    """A packet-out that latches or revokes: `submit` says which. Its token names the leg.

    With `Submit.ROUTE` it is the other side's announcement, from `src`, for the leg at `dst`.
    """

    submit: Submit
    token: int
    epoch: int
    src: Address
    dst: Address
    src_mac: MacAddress
    cutoff: int = 0
    edge: int = 0
    known: bool = False


@dataclass(frozen=True, slots=True)
class QueryLeg:
    """Ask the data plane for a leg's registers: `LegReport` answers, unless it is lost."""

    key: MappingKey


@dataclass(frozen=True, slots=True)
class EndHold:
    """A leg's gate is to hold no more, if it held nothing since it was asked last.

    `LegReport` answers, with `HOLD_OVER` or `STILL_HELD`, after all packet-ins of what was held.
    """

    key: MappingKey
    hold: int
    """`Entry.hold`."""


@dataclass(frozen=True, slots=True)
class SeedLeg:
    """A leg goes on where another host's ended: what its registers are to hold."""

    key: MappingKey
    registers: Registers


@dataclass(frozen=True, slots=True)
class SplitAt:
    """Part a host's frame at a sequence number, and submit both parts as the host's."""

    frame: bytes
    cutoff: int
    port: int


@dataclass(frozen=True, slots=True)
class Keep:
    """Journal this for a session before anything that follows; empty: forget it."""

    session: int
    record: bytes


MAX_STATE = 65536
"""Bytes of one session's state."""


class StateVerb(Enum):
    """What is to be done with a host's own state of a session (conntrack entry, TCP socket)."""

    EXPORT = "export"
    """Give a copy. The host keeps the state and sends nothing from it: no packet of the session
    reaches the host or leaves it now, until `RESUME` or `DROP`. An end host's socket is frozen."""
    IMPORT = "import"
    """Make the state of a copy, ready for the session's next packet: none comes before the answer.
    Nothing of it acts by itself yet (a socket stays frozen, its program does not run): the move may
    still go back. A second time, for the same session: in place of the first."""
    RESUME = "resume"
    """The state is in use from now on, a socket thawed: at the old host when the move is off, at
    the new one when it is decided."""
    DROP = "drop"
    """Forget the state, without a word to anybody: at the old host when the new one has it, at the
    new one when the move is off (also if nothing was imported there)."""


class Sides(NamedTuple):
    """A session as its host has it, in the direction from its initiator to its end."""

    received: FiveTuple | None
    """What comes from the left. None: the session begins here."""
    emitted: FiveTuple | None
    """What goes on to the right, after the host's own translation. None: the session ends here."""


@dataclass(frozen=True, slots=True)
class StateCall:
    """Ask for something to be done with this host's state of a session.

    Answered by one `StateDone` or `StateFailed` with its number. After `limit` seconds nobody waits
    for the answer any more: what is not done by then should be stopped, or undone.
    """

    call: int
    """Unique at this host, also after a restart."""
    session: int
    verb: StateVerb
    sides: Sides
    """As this host has it."""
    was: Sides
    """As the old host has it; another one only where an end moves to another address."""
    state: bytes
    """For `IMPORT`: what the export gave."""
    limit: float


@dataclass(frozen=True, slots=True)
class Progress:
    """A step of a reconfiguration, for the operator."""

    session: int
    left: str
    """Name of the left anchor's host."""
    number: int
    role: str
    state: str
    why: str


Action = (
    Send
    | SetTimer
    | CancelTimer
    | Tell
    | Install
    | Remove
    | SetLeg
    | Announce
    | QueryLeg
    | EndHold
    | SeedLeg
    | SplitAt
    | Keep
    | Progress
    | StateCall
)
