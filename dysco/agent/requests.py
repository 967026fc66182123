"""What operators and middleboxes ask an agent for."""

from __future__ import annotations

from dysco.agent.core import Core
from dysco.agent.counters import Count, SetupError
from dysco.agent.events import (
    Action,
    CloseSession,
    Level,
    Selector,
    SetRestOfChain,
    SetUpstream,
    Tag,
)
from dysco.agent.model import FiveTuple
from dysco.agent.session import Session


def close_session(core: Core, event: CloseSession, now: float) -> list[Action]:
    """Release a session at an operator's wish."""
    session = core.table.sessions.get(event.session)
    if session is None:
        return [refuse(core, f"there is no session {event.session}")]
    told = core.tell(Level.INFO, Count.CLOSED_BY_OPERATOR, f"{session}: closed by an operator")
    return [*core.release(session, Count.CLOSED, now), told]


def set_rest_of_chain(core: Core, event: SetRestOfChain) -> list[Action]:
    """A middlebox decides where a session goes next."""
    session = find_session(core, event.selector)
    if session is None or session.left is None:
        return [refuse(core, f"no SYN was delivered here for {words(event.selector)}")]
    if session.right is not None:
        return [refuse(core, f"{session}: its SYN was sent on already")]
    received = session.left.emitted.reversed
    try:
        rest = core.peers.resolve(event.chain, received, core.host.name)
    except SetupError as error:
        return [refuse(core, f"{session}: {error}")]
    session.rest = rest
    session.chain = tuple(map(core.peers.name_of, rest))
    text = f"{session}: goes on through {', '.join(session.chain) or 'no more middleboxes'}"
    return [core.update(session.left), core.tell(Level.INFO, Count.CHAIN_SET, text)]


def set_upstream(core: Core, event: SetUpstream) -> list[Action]:
    """A proxy names the SYN of its own that carries a session on."""
    session = find_session(core, event.selector)
    if session is None or session.left is None:
        return [refuse(core, f"no SYN was delivered here for {words(event.selector)}")]
    upstream = event.upstream
    other = core.table.awaited.get(upstream)
    leg = core.table.by_emitted.get(upstream)
    if leg is not None:
        other = leg.session
    if other is not None and other is not session:
        return [refuse(core, f"{session}: {upstream} belongs to {other}")]
    if session.upstream is not None:
        core.table.stop_awaiting(session.upstream, session)
    session.upstream = upstream
    core.table.await_emission(upstream, session)
    text = f"{session}: goes on as {upstream}"
    return [core.tell(Level.INFO, Count.UPSTREAM_SET, text)]


def find_session(core: Core, selector: Selector) -> Session | None:
    """The session that somebody means."""
    match selector:
        case int():
            return core.table.sessions.get(selector)
        case Tag(value):
            return core.table.by_tag.get(value)
        case FiveTuple():
            leg = core.table.by_emitted.get(selector.reversed)
            return leg.session if leg is not None and not leg.is_right else None


def words(selector: Selector) -> str:
    """A selector for people."""
    match selector:
        case int():
            return f"session {selector:013x}"
        case Tag(value):
            return f"tag {value:08x}"
        case FiveTuple():
            return str(selector)


def refuse(core: Core, why: str) -> Action:
    """The answer to a request that can't be granted."""
    return core.tell(Level.WARNING, Count.REQUEST_REFUSED, why)
