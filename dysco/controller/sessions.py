"""Sessions as a whole: the views of the agents put together by session id.

Each agent sees a session at its own host only. Hops on devices of other daemons are missing here,
and one daemon for all devices shows what one for each shows, added up.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from dysco.agent.model import FiveTuple
from dysco.agent.session import Session, State
from dysco.controller.chains import Paths, paths
from dysco.controller.filter_compiler import compile_filter
from dysco.controller.nic import Nic
from dysco.controller.policies import NotFoundError

_ID = re.compile(r"[0-9a-fA-F]{13}")


def session_number(text: str) -> int:
    """The session that an id of 13 hex digits names. Raises NotFoundError."""
    if not _ID.fullmatch(text):
        raise NotFoundError(f"{text!r} is no session id: 13 hex digits")
    return int(text, 16)


@dataclass(frozen=True, slots=True)
class Hop:
    """A session at one host."""

    nic: Nic
    host: str
    host_id: int
    session: Session


@dataclass(frozen=True, slots=True)
class WholeSession:
    """A session with the hops that this daemon knows, in the order of the chain."""

    id: int
    hops: tuple[Hop, ...]
    """The chain's, then those of a new path, then what has just left the chain."""

    @property
    def paths(self) -> Paths[Hop]:
        """Which hop is on which path."""
        return paths(self.hops)

    @property
    def first(self) -> Session:
        """The view nearest to the session's initiator."""
        return self.hops[0].session

    @property
    def state(self) -> State:
        """As the hop nearest to the initiator has it."""
        return self.first.state

    @property
    def hosts(self) -> tuple[str, ...]:
        """Names of the hosts that the session crosses, as far as they are known here.

        What the last known hop has before it goes to hosts of other daemons.
        """
        chain = self.paths.chain
        return (*(hop.host for hop in chain), *chain[-1].session.chain)


Wanted = Callable[[Session], bool]


def all_hops(nics: Iterable[Nic]) -> Iterator[Hop]:
    """Every agent's view of every session."""
    for nic in nics:
        names = {h.host_id: h.name for h in nic.config.hosts}
        for host_id, agent in nic.runner.agents.items():
            for session in agent.sessions.values():
                yield Hop(nic, names[host_id], host_id, session)


def hops_of(nics: Iterable[Nic], number: int) -> Iterator[Hop]:
    """Every agent's view of one session."""
    for nic in nics:
        for host_id, agent in nic.runner.agents.items():
            session = agent.sessions.get(number)
            if session is not None:
                yield Hop(nic, agent.host.name, host_id, session)


def merge(hops: Iterable[Hop], wanted: Wanted | None = None) -> list[WholeSession]:
    """Sessions that `wanted` accepts at their first known hop, the youngest first."""
    by_id: dict[int, list[Hop]] = {}
    for hop in hops:
        by_id.setdefault(hop.session.id, []).append(hop)
    whole = []
    for number, found in by_id.items():
        found.sort(key=lambda hop: hop.session.position)
        chain, new, rest = paths(found)
        if wanted is None or wanted(chain[0].session):
            whole.append(WholeSession(number, (*chain, *new, *rest)))
    whole.sort(key=lambda session: session.first.created, reverse=True)
    return whole


def five_tuple_filter(text: str) -> Callable[[FiveTuple], bool]:
    """A filter in the policies' language, for five-tuples. Raises FilterError."""
    compiled = compile_filter(text)
    entries = {4: compiled.v4, 6: compiled.v6}

    def matches(ends: FiveTuple) -> bool:
        values = (int(ends.src), int(ends.dst), ends.sport, ends.dport)
        # A session has no DSCP: what an entry says of it, its last field, is left out.
        return any(
            all(
                value & mask == wanted for value, (wanted, mask) in zip(values, entry, strict=False)
            )
            for entry in entries[ends.src.version]
        )

    return matches
