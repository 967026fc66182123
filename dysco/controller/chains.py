"""A session's hosts in the order of its chain, and what an operator's wish means on it.

Subsessions link them: where one host's right leg ends, the next one's left leg begins. While there
are two paths, the new one's hosts hang on the left anchor's other subsession.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import Enum
from typing import Generic, NamedTuple, Protocol, TypeVar

from dysco.agent.model import FiveTuple
from dysco.agent.session import Session


class HasSession(Protocol):
    """A session at one host."""

    @property
    def session(self) -> Session:
        """As its agent has it."""


Hop = TypeVar("Hop", bound=HasSession)


class WishError(ValueError):
    """A wish that makes no sense on this chain; the text says why, and what there is."""


class Paths(NamedTuple, Generic[Hop]):
    """The hops of a session that are known here."""

    chain: tuple[Hop, ...]
    """As data goes, or went until now."""
    new: tuple[Hop, ...]
    """On a new path that is being opened or drained onto."""
    rest: tuple[Hop, ...]
    """On neither: what has just left the chain, or can't be linked."""


class Kind(Enum):
    """What a reconfiguration changes."""

    PATH = "path"
    """The boxes between two hosts."""
    STATE = "state"
    """One box, and the next one goes on with its state of the session."""
    END = "end"
    """Where the session ends, with the end's state."""


@dataclass(frozen=True, slots=True)
class Plan:
    """A reconfiguration: between which hosts, and through which from now on."""

    left: str
    right: str
    """Of an end that moves: itself."""
    through: tuple[str, ...]
    """Of an end that moves: where to."""
    kind: Kind = Kind.PATH
    old: str = ""
    """The host whose state goes along."""


def paths(hops: Sequence[Hop]) -> Paths[Hop]:
    """Sorts the hops of one session."""
    by_left: dict[FiveTuple, Hop] = {}
    for hop in hops:
        if hop.session.left is not None:
            by_left[hop.session.at_peer(hop.session.left.sent)] = hop
    sent = {hop.session.right.sent for hop in hops if hop.session.right is not None}
    spare = {
        hop.session.right.spare
        for hop in hops
        if hop.session.right is not None and hop.session.right.spare is not None
    }
    starts = [
        hop
        for hop in hops
        if hop.session.left is None
        or hop.session.at_peer(hop.session.left.sent) not in sent | spare
    ]
    starts.sort(key=lambda hop: (hop.session.left is not None, hop.session.position))
    chain: list[Hop] = []
    for start in starts[:1]:
        chain = _follow(start, by_left)
    new: list[Hop] = []
    for hop in chain:
        right = hop.session.right
        if right is not None and right.spare is not None:
            first = by_left.get(right.spare)
            if first is not None and first not in chain:
                new += [h for h in _follow(first, by_left) if h not in chain]
    rest = [hop for hop in hops if hop not in chain and hop not in new]
    return Paths(tuple(chain), tuple(new), tuple(rest))


def _follow(hop: Hop, by_left: dict[FiveTuple, Hop]) -> list[Hop]:
    found = [hop]
    while (right := found[-1].session.right) is not None:
        following = by_left.get(right.sent)
        if following is None or following in found:
            break
        found.append(following)
    return found


def delete(names: Sequence[str], middleboxes: Sequence[str]) -> Plan:
    """Take out one middlebox, or several that follow each other. Raises WishError."""
    indices = sorted(_index(names, name) for name in middleboxes)
    first, last = indices[0], indices[-1]
    if indices != list(range(first, last + 1)):
        raise WishError("these middleboxes don't follow each other: take them out one by one")
    if first == 0 or last == len(names) - 1:
        raise WishError(f"{names[first if first == 0 else last]} is an end of the session")
    return Plan(names[first - 1], names[last + 1], ())


def insert(names: Sequence[str], middlebox: str, after: str) -> Plan:
    """Put a middlebox behind a host. Raises WishError."""
    index = _index(names, after)
    if index == len(names) - 1:
        raise WishError(f"{after} is the last host of the session: name the one before")
    return Plan(after, names[index + 1], (middlebox,))


def exchange(names: Sequence[str], old: str, new: str) -> Plan:
    """Put one middlebox in another's place. Raises WishError."""
    plan = delete(names, [old])
    return Plan(plan.left, plan.right, (new,))


def migrate(names: Sequence[str], old: str, new: str) -> Plan:
    """As `exchange`, with the old middlebox's state. Raises WishError."""
    if new in names:
        raise WishError(f"{new} is on the chain {' > '.join(names)} already")
    return replace(exchange(names, old, new), kind=Kind.STATE, old=old)


def move(names: Sequence[str], old: str, new: str) -> Plan:
    """The session ends at another host from now on. Raises WishError."""
    index = _index(names, old)
    if index == 0:
        raise WishError(f"{old} began the session: only the other end, {names[-1]}, can be moved")
    if index != len(names) - 1:
        raise WishError(f"{old} is no end of the session: that is {names[-1]}")
    if new in names:
        raise WishError(f"{new} is on the chain {' > '.join(names)} already")
    return Plan(names[-2], old, (new,), Kind.END, old)


def _index(names: Sequence[str], name: str) -> int:
    if name not in names:
        raise WishError(f"{name} is not on the chain {' > '.join(names)}")
    return names.index(name)
