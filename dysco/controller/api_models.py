"""What goes over the northbound API: requests, answers, errors."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

from dysco.agent.model import Address, FiveTuple, MappingKey, OnFailure
from dysco.agent.session import Leg
from dysco.controller.nic import Nic
from dysco.controller.p4device import State
from dysco.controller.policies import DEFAULT_PRIORITY, MAX_PRIORITY, Policy
from dysco.controller.sessions import Hop, WholeSession


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Problem(_Model):
    """An error, as RFC 9457 has it."""

    type: str = "about:blank"
    title: str
    status: int
    detail: str
    """What went wrong, and what to do."""


class Ends(_Model):
    """A five-tuple; the protocol is always TCP."""

    src: Address
    sport: int = Field(ge=0, le=65535)
    dst: Address
    dport: int = Field(ge=0, le=65535)

    @staticmethod
    def of(ends: FiveTuple | None) -> Ends | None:
        """For an answer."""
        if ends is None:
            return None
        return Ends(src=ends.src, sport=ends.sport, dst=ends.dst, dport=ends.dport)

    def five_tuple(self) -> FiveTuple:
        """For the agent."""
        return FiveTuple(self.src, self.sport, self.dst, self.dport)


class NewPolicy(_Model):
    """A policy to add."""

    match: str = Field("", description="Which sessions, in pcap-filter words; empty: all.")
    chain: list[str] | None = Field(
        None,
        description="Middleboxes: host names, addresses or kinds. Empty: tracked, but direct. "
        "Absent or null: sessions stay untouched, an exception from policies that win less.",
    )
    priority: int = Field(DEFAULT_PRIORITY, ge=0, le=MAX_PRIORITY, description="Higher wins.")
    host: str | None = Field(None, description="Only sessions that this host starts.")
    on_failure: OnFailure = OnFailure.REFUSE
    name: str | None = None


class PolicyOut(_Model):
    """A policy."""

    id: int
    name: str
    match: str
    chain: list[str] | None
    priority: int
    host: str | None
    on_failure: OnFailure
    sessions: int | None
    """How many SYNs it caught, as the devices counted since it came to them."""

    @staticmethod
    def of(policy: Policy, hits: int | None) -> PolicyOut:
        """For an answer."""
        return PolicyOut(
            id=policy.id,
            name=policy.name,
            match=policy.match,
            chain=None if policy.chain is None else list(policy.chain),
            priority=policy.priority,
            host=policy.host,
            on_failure=policy.on_failure,
            sessions=hits,
        )


class Traffic(_Model):
    """What a device counted."""

    packets: int
    bytes: int


class LegOut(_Model):
    """A session between a host and one neighbour."""

    subsession: Ends | None
    """As packets travel, away from the host."""
    host_side: Ends | None
    """As the host itself sends them."""
    sent: Traffic | None = None
    received: Traffic | None = None

    @staticmethod
    def of(
        leg: Leg | None, traffic: dict[MappingKey, tuple[int, int]] | None = None
    ) -> LegOut | None:
        """For an answer; with its counters if they were read."""
        if leg is None:
            return None
        found = traffic or {}
        return LegOut(
            subsession=Ends.of(leg.sent),
            host_side=Ends.of(leg.emitted),
            sent=_traffic(found.get(leg.outbound_key)),
            received=_traffic(found.get(leg.inbound_key)),
        )


def _traffic(counted: tuple[int, int] | None) -> Traffic | None:
    return None if counted is None else Traffic(packets=counted[0], bytes=counted[1])


class HopOut(_Model):
    """A session at one host."""

    device: str
    host: str
    position: int
    state: str
    previous: LegOut | None
    """Towards the initiator; null at the initiator's own host."""
    next: LegOut | None
    """Towards the other end; null where the session ends, or was not sent on yet."""
    recovered: bool

    @staticmethod
    def of(hop: Hop, traffic: dict[MappingKey, tuple[int, int]] | None = None) -> HopOut:
        """For an answer."""
        session = hop.session
        return HopOut(
            device=hop.nic.name,
            host=hop.host,
            position=session.position,
            state=session.state.value,
            previous=LegOut.of(session.left, traffic),
            next=LegOut.of(session.right, traffic),
            recovered=session.recovered,
        )


class SessionOut(_Model):
    """A session, with the hops that this daemon knows."""

    id: str
    """13 hex digits."""
    session: Ends | None
    """As its initiator sees it."""
    state: str
    policy: int
    created: float
    """Seconds since 1970."""
    hosts: list[str]
    """Names of the hosts that it crosses, the initiator's first."""
    new_path: list[str]
    """While it has two paths: names of the hosts on the new one, between the anchors."""
    leaving: list[str]
    """Hosts that have just left the chain."""
    hops: list[HopOut]

    @staticmethod
    def of(
        whole: WholeSession, traffic: dict[MappingKey, tuple[int, int]] | None = None
    ) -> SessionOut:
        """For an answer."""
        first = whole.first
        return SessionOut(
            id=f"{whole.id:013x}",
            session=Ends.of(first.session),
            state=whole.state.value,
            policy=first.policy,
            created=first.created,
            hosts=list(whole.hosts),
            new_path=[hop.host for hop in whole.paths.new],
            leaving=[hop.host for hop in whole.paths.rest],
            hops=[HopOut.of(hop, traffic) for hop in whole.hops],
        )


class SessionList(_Model):
    """Some of the sessions, the youngest first."""

    total: int
    """How many there are that fit, listed or not."""
    sessions: list[SessionOut]


class ChainHop(_Model):
    """What one hop saw of a session."""

    host: str
    device: str
    came_as: Ends | None
    """The subsession that it came by; null at the initiator."""
    host_got: Ends | None
    """What the host was given."""
    host_sent: Ends | None
    """What the host sent on; null where the session ends."""
    went_as: Ends | None
    """The subsession that it went on by."""


class ChainOut(_Model):
    """The chain of a session, hop by hop."""

    id: str
    session: Ends | None
    state: str
    complete: bool
    """True if no hop is missing between the first and the last."""
    hops: list[ChainHop]

    @staticmethod
    def of(whole: WholeSession) -> ChainOut:
        """For an answer."""
        positions = [hop.session.position for hop in whole.hops]
        last = whole.hops[-1].session
        return ChainOut(
            id=f"{whole.id:013x}",
            session=Ends.of(whole.first.session),
            state=whole.state.value,
            complete=positions == list(range(len(positions))) and last.right is None,
            hops=[
                ChainHop(
                    host=hop.host,
                    device=hop.nic.name,
                    came_as=Ends.of(hop.session.previous),
                    host_got=Ends.of(hop.session.received),
                    host_sent=Ends.of(hop.session.emitted),
                    went_as=Ends.of(hop.session.next),
                )
                for hop in whole.hops
            ],
        )


class DeviceOut(_Model):
    """A device."""

    name: str
    address: str
    device_id: int
    ready: bool
    state: str
    problem: str
    """Why it is not ready; empty if it is."""
    hosts: list[str]
    entries: int
    """Session entries that it holds."""

    @staticmethod
    def of(nic: Nic) -> DeviceOut:
        """For an answer."""
        return DeviceOut(
            name=nic.name,
            address=nic.config.address,
            device_id=nic.config.device_id,
            ready=nic.device.state is State.READY,
            state=nic.device.state.value,
            problem=nic.device.problem,
            hosts=[host.name for host in nic.config.hosts],
            entries=nic.runner.entries,
        )


class SessionChoice(_Model):
    """Names one session at a middlebox: exactly one of the three."""

    session: str | None = Field(None, pattern="^[0-9a-f]{1,13}$", description="Its id.")
    tag: int | None = Field(None, ge=0, lt=2**32, description="The tag in its SYN.")
    five_tuple: Ends | None = Field(None, description="Of its SYN, as the middlebox got it.")


class RestOfChain(SessionChoice):
    """Where a session goes from this middlebox on."""

    chain: list[str]


class Upstream(SessionChoice):
    """The connection of a proxy's own that carries a session on."""

    upstream: Ends


class FixedDeltas(SessionChoice):
    """What a middlebox added to a session's stream, before it left it as it is."""

    rightwards: int = Field(
        ge=-(2**31), lt=2**31, description="Bytes added, less those removed, from the initiator."
    )
    leftwards: int = Field(ge=-(2**31), lt=2**31, description="Likewise, towards the initiator.")


class Answer(_Model):
    """What an agent did."""

    done: str


class Counters(_Model):
    """Everything counted, by device and by host."""

    devices: dict[str, dict[str, int]]
    hosts: dict[str, dict[str, int]]
    drops: dict[str, dict[str, int]]
    """Packets that the P4 program dropped, or a chain's change cost, by device and reason."""


class Ready(_Model):
    """Readiness."""

    ready: bool
    waiting_for: dict[str, str]
    """Devices that are not ready, with the reason."""
