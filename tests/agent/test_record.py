"""What is kept in the device across a restart: whole, cut, of another version."""

from __future__ import annotations

import struct
from ipaddress import ip_address

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dysco.agent.agent import Agent
from dysco.agent.events import Recovered
from dysco.agent.model import FiveTuple, Host, Interface, OnFailure
from dysco.agent.options import Negotiated
from dysco.agent.record import RecordError, long_record, read_record, short_record
from dysco.agent.session import Leg, Session, State
from dysco.agent.settings import Settings
from dysco.agent.trust import Nonce, TrustGroup

PORTS = st.integers(0, 65535)
SESSION_FIELDS = (
    *("policy", "on_failure", "position", "created", "rest", "tag", "sender", "nonce"),
    *("relays", "opening"),
)
OPTIONS = st.builds(
    Negotiated, st.none() | PORTS, st.none() | st.integers(0, 14), st.booleans(), st.booleans()
)


@st.composite
def sessions(draw: st.DrawFn) -> tuple[Session, Leg]:
    version = draw(st.sampled_from([4, 6]))
    addresses = st.ip_addresses(v=version)
    tuples = st.builds(FiveTuple, addresses, PORTS, addresses, PORTS)
    emitted = draw(tuples)
    is_right = draw(st.booleans())
    as_leg_has_it = emitted if is_right else emitted.reversed
    has_sender = draw(st.booleans())
    session = Session(
        id=draw(st.integers(0, 2**52 - 1)),
        session=as_leg_has_it if draw(st.booleans()) else draw(tuples),
        policy=draw(PORTS),
        on_failure=draw(st.sampled_from(OnFailure)),
        position=draw(st.integers(0, 32)),
        rest=tuple(draw(st.lists(addresses, max_size=4))),
        created=draw(st.floats(0, 2e9)),
        state=State.ESTABLISHED,
        tag=draw(st.none() | st.integers(0, 2**32 - 1)),
        sender=draw(addresses) if has_sender else None,
        nonce=Nonce(draw(st.integers(0, 2**64 - 1)), 7) if has_sender else None,
        relays=draw(st.booleans()),
        opening=draw(st.binary(max_size=80)),
    )
    leg = Leg(
        session,
        3,
        emitted,
        draw(tuples),
        draw(st.integers(0, 2**32 - 1)),
        is_right,
        draw(OPTIONS),
        draw(st.none() | OPTIONS),
    )
    if is_right:
        session.right = leg
    else:
        session.left = leg
    return session, leg


@settings(max_examples=120, deadline=None)
@given(sessions(), st.data())
def test_a_record_is_read_as_it_was_written(made: tuple[Session, Leg], data: st.DataObject) -> None:
    session, leg = made
    written = long_record(leg)
    record = read_record(written)
    assert (record.session_id, record.is_right) == (session.id, leg.is_right)
    assert record.leg is not None
    assert record.session is not None
    assert (record.leg.isn, record.leg.offered, record.leg.accepted) == (
        leg.isn,
        leg.offered,
        leg.accepted,
    )
    found = record.session
    as_leg_has_it = leg.emitted if leg.is_right else leg.emitted.reversed
    assert (found.session or as_leg_has_it) == session.session
    for name in SESSION_FIELDS:
        assert getattr(found, name) == getattr(session, name), name
    # Cut or longer: refused, whatever the rest says.
    cut = data.draw(st.integers(0, len(written) - 1))
    with pytest.raises(RecordError):
        read_record(written[:cut])
    with pytest.raises(RecordError, match="1 bytes too many"):
        read_record(written + b"\0")


@given(st.binary(max_size=120), st.booleans())
def test_noise_is_refused_or_read(noise: bytes, ours: bool) -> None:
    metadata = b"\x01" + noise if ours else noise
    try:
        read_record(metadata)
    except RecordError as error:
        assert str(error)  # noqa: PT017 - either outcome is right


@settings(max_examples=30, deadline=None)
@given(sessions())
def test_a_restart_brings_back_by_what_a_session_came(made: tuple[Session, Leg]) -> None:
    """A box of a new path that forgot its opening refused the SYN that came again, for good."""
    session, leg = made
    mappings = (leg.outbound(long_record(leg), 0.0), leg.inbound(short_record(leg), 0.0))
    host = Host(leg.host, "box", "counter", (Interface(2, bytes(6), (leg.emitted.src,)),))
    agent = Agent(host, TrustGroup("group", bytes(32)), Settings(), epoch=1)
    agent.handle(Recovered(mappings), 2e9)
    assert agent.sessions[session.id].opening == session.opening


def test_records_are_small() -> None:
    """A device keeps two for each leg: 10 bytes, and about 80 for a chain of three."""
    ends = FiveTuple(ip_address("10.0.0.1"), 1, ip_address("10.0.0.2"), 2)
    rest = tuple(ip_address(f"10.0.0.{n}") for n in (3, 4, 5))
    session = Session(
        1, ends, 5, OnFailure.REFUSE, 1, rest, 1.7e9, State.SENT, sender=ends.src, nonce=Nonce(1, 2)
    )
    nothing = Negotiated(None, None, False, False)
    session.left = Leg(session, 1, ends.reversed, ends.reversed, 1, False, nothing, nothing)
    assert len(short_record(session.left)) == struct.calcsize("!BBQ") == 10
    assert len(long_record(session.left)) <= 80
