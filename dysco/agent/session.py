"""One session at one host: its states, and its one or two subsessions.

              left leg                         right leg
previous  -- subsession -->  host  -- subsession -->  next
(none at the initiator)            (none at the last host)

RECEIVED --> SENT --> ESTABLISHED --> CLOSING --> RELEASED
   |          |            |-------> RESET ----------^
   '----------'------------'-------------------------'  time-outs, idle, operator, replaced
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from math import inf

from dysco.agent.model import Address, FiveTuple, Mapping, MappingKey, OnFailure, Side
from dysco.agent.options import Negotiated
from dysco.agent.packet import Segment
from dysco.agent.trust import Nonce


class State(Enum):
    """Where a session stands at this host."""

    RECEIVED = "received"
    """Its SYN is with the host, which has neither answered nor sent it on."""
    SENT = "sent"
    """Its SYN went to the next host; no answer yet."""
    ESTABLISHED = "established"
    CLOSING = "closing"
    """FINs in both directions, on every leg."""
    RESET = "reset"
    RELEASED = "released"


class Step(Enum):
    """What moves a session from state to state."""

    SEND_ON = "the host sent the SYN on"
    ANSWER = "a SYN-ACK passed"
    FINISH = "every leg has FINs in both directions"
    ABORT = "every leg is closed, by a RST"
    RELEASE = "release"


TRANSITIONS: dict[tuple[State, Step], State] = {
    (State.RECEIVED, Step.SEND_ON): State.SENT,
    (State.RECEIVED, Step.ANSWER): State.ESTABLISHED,
    (State.RECEIVED, Step.FINISH): State.CLOSING,
    (State.RECEIVED, Step.ABORT): State.RESET,
    (State.SENT, Step.SEND_ON): State.SENT,
    (State.SENT, Step.ANSWER): State.ESTABLISHED,
    (State.SENT, Step.FINISH): State.CLOSING,
    (State.SENT, Step.ABORT): State.RESET,
    # A terminating proxy answers first and sends on later; and a late SYN may come again.
    (State.ESTABLISHED, Step.SEND_ON): State.ESTABLISHED,
    (State.ESTABLISHED, Step.ANSWER): State.ESTABLISHED,
    (State.ESTABLISHED, Step.FINISH): State.CLOSING,
    (State.ESTABLISHED, Step.ABORT): State.RESET,
    # What is said late changes nothing.
    (State.CLOSING, Step.SEND_ON): State.CLOSING,
    (State.CLOSING, Step.ANSWER): State.CLOSING,
    (State.CLOSING, Step.FINISH): State.CLOSING,
    (State.CLOSING, Step.ABORT): State.CLOSING,
    (State.RESET, Step.SEND_ON): State.RESET,
    (State.RESET, Step.ANSWER): State.RESET,
    (State.RESET, Step.FINISH): State.RESET,
    (State.RESET, Step.ABORT): State.RESET,
    **{(state, Step.RELEASE): State.RELEASED for state in State if state is not State.RELEASED},
}

SETTING_UP = frozenset({State.RECEIVED, State.SENT})


class IllegalStepError(Exception):
    """A step that its state doesn't know: a fault of ours, never of the network's."""

    def __init__(self, state: State, step: Step) -> None:
        super().__init__(f"a session that is {state.value} can't take the step {step.value!r}")


@dataclass(slots=True, eq=False)
class Leg:
    """A session between this host and one neighbour."""

    session: Session
    host: int
    emitted: FiveTuple
    """As packets leave this host's own stack."""
    sent: FiveTuple
    """As they then travel: the subsession, away from this host."""
    isn: int
    """Sequence number of the SYN on this leg."""
    is_right: bool
    offered: Negotiated
    """Options of the SYN."""
    accepted: Negotiated | None = None
    """Options of the SYN-ACK, once it passed."""
    answer_isn: int = 0
    """Sequence number of the SYN-ACK."""
    path: int = 0
    """Which of the data plane's two places for a subsession `sent` has."""
    spare: FiveTuple | None = None
    """The subsession in the other place: the new path, or the old one that lingers."""
    syn_at: float = -inf
    """When its SYN was handled last."""
    seen: bool = False
    """Packets pass both ways, though no SYN-ACK was seen."""
    fin_sent: bool = False
    fin_received: bool = False
    reset: bool = False

    def start(self, isn: int, offered: Negotiated) -> None:
        """Another connection takes the same five-tuple: its SYN."""
        self.isn, self.offered, self.accepted = isn, offered, None
        self.seen = self.fin_sent = self.fin_received = self.reset = False

    @property
    def answered(self) -> bool:
        """True if the other end has answered its SYN."""
        return self.accepted is not None or self.seen

    @property
    def closed(self) -> bool:
        """True if nothing but retransmissions can come."""
        return self.reset or (self.fin_sent and self.fin_received)

    @property
    def outbound_key(self) -> MappingKey:
        """Finds the mapping for what the host sends."""
        return MappingKey(Side.OUTBOUND, self.host, self.emitted)

    @property
    def inbound_key(self) -> MappingKey:
        """Finds the mapping for what comes to the host."""
        return MappingKey(Side.INBOUND, self.host, self.sent.reversed)

    @property
    def keys(self) -> tuple[MappingKey, MappingKey]:
        """Both."""
        return self.outbound_key, self.inbound_key

    @property
    def first(self) -> FiveTuple:
        """The subsession in the first place, which the outbound mapping names."""
        return self.sent if self.path == 0 or self.spare is None else self.spare

    def outbound(self, metadata: bytes, idle_timeout: float) -> Mapping:
        """The mapping for what the host sends."""
        return Mapping(self.outbound_key, self.first, metadata, idle_timeout)

    def inbound(self, metadata: bytes, idle_timeout: float) -> Mapping:
        """The mapping for what comes to the host."""
        ends = self.emitted.reversed
        return Mapping(self.inbound_key, ends, metadata, idle_timeout, path=self.path)


@dataclass(slots=True, eq=False)
class Session:
    """A session at this host. Outside of the agent: look, don't touch."""

    id: int
    """The same at all its hosts; 52 bits, so that JSON readers keep it whole."""
    session: FiveTuple
    """As its initiator sees it."""
    policy: int
    on_failure: OnFailure
    position: int
    """0 at the initiator, 1 at the next host, and so on."""
    rest: tuple[Address, ...]
    """The chain after this host."""
    created: float
    state: State
    left: Leg | None = None
    right: Leg | None = None
    chain: tuple[str, ...] = ()
    """Names of the hosts in `rest`."""
    tag: int | None = None
    """Marks the SYN on its way through the middlebox."""
    sender: Address | None = None
    nonce: Nonce | None = None
    """Sender and number of the last header that was accepted."""
    upstream: FiveTuple | None = None
    """What the host said it will send this session on as."""
    relays: bool = False
    """The host answered before the next one did: it is a proxy, with two connections."""
    opening: bytes = b""
    """Of the reconfiguration that this session came by, to be sent on."""
    hidden: dict[FiveTuple, FiveTuple] = field(default_factory=dict)
    """A subsession away from the host at its other end, where a NAT of the network shows another
    five-tuple; by the subsession as it is here, away from this host."""
    in_band: set[FiveTuple] = field(default_factory=set)
    """Subsessions on which the other agent writes itself: it knows of no other way to us."""
    recovered: bool = False
    token: int = 0
    """Of the last Install that may yet fail."""
    syn: Segment | None = field(default=None, repr=False)
    """The last SYN, as long as a set-up that fails needs it."""
    syn_port: int = 0
    """The host port that it came from."""

    def note_sender(self, ends: FiveTuple, subsession: FiveTuple) -> None:
        """Another host opened a subsession; `ends`: away from here, `subsession`: from there."""
        if subsession != ends.reversed:
            self.hidden[ends] = subsession

    def at_peer(self, ends: FiveTuple) -> FiveTuple:
        """A subsession away from the host at its other end, as that host has it."""
        return self.hidden.get(ends, ends.reversed)

    @property
    def legs(self) -> tuple[Leg, ...]:
        """Left, then right, those that there are."""
        return tuple(leg for leg in (self.left, self.right) if leg is not None)

    @property
    def primary(self) -> Leg:
        """The leg whose outbound mapping carries the session's record."""
        leg = self.left or self.right
        if leg is None:
            raise ValueError(f"session {self.id:013x} has no leg")
        return leg

    @property
    def received(self) -> FiveTuple | None:
        """The five-tuple as this host gets it from the left; None at the initiator."""
        return self.left.emitted.reversed if self.left is not None else None

    @property
    def emitted(self) -> FiveTuple | None:
        """The five-tuple as this host sends it on; None where it ends, or not yet."""
        return self.right.emitted if self.right is not None else None

    @property
    def previous(self) -> FiveTuple | None:
        """The subsession that it came by, towards this host."""
        return self.left.sent.reversed if self.left is not None else None

    @property
    def next(self) -> FiveTuple | None:
        """The subsession that it goes on by, away from this host."""
        return self.right.sent if self.right is not None else None

    @property
    def keys(self) -> tuple[MappingKey, ...]:
        """Of all its mappings; their counters are the session's."""
        return tuple(key for leg in self.legs for key in leg.keys)

    def take(self, step: Step) -> bool:
        """Move on; True if the state changed. Raises IllegalStepError."""
        after = TRANSITIONS.get((self.state, step))
        if after is None:
            raise IllegalStepError(self.state, step)
        changed = after is not self.state
        self.state = after
        return changed

    def __str__(self) -> str:
        return f"session {self.id:013x} ({self.session})"
