"""Which client is primary, by role: the rules of P4Runtime 1.4, section 5, without I/O.

    update(stream, role, election id) --> notices to send, or an error that ends the stream
    leave(stream)                     --> notices to send

For each role the server remembers the highest election id it ever received; the live client that
has that id is the primary, so there is none after the primary leaves until a client comes with
an election id at least as high. A stream stays with its first role.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, field
from enum import Enum

from softnic.p4runtime.errors import Code, P4RuntimeError, invalid
from softnic.p4runtime.roles import ANY, RoleConfig

DEFAULT_ROLE = ""


class Standing(Enum):
    """How a client stands in its role, with the code that tells it so (5.4)."""

    PRIMARY = Code.OK
    BACKUP = Code.ALREADY_EXISTS
    NO_PRIMARY = Code.NOT_FOUND


@dataclass(frozen=True, slots=True)
class Notice:
    """One MasterArbitrationUpdate to send."""

    stream: Hashable
    role: str
    election_id: int | None
    """The highest one ever received for the role; None if there was none."""
    standing: Standing


@dataclass(frozen=True, slots=True)
class Outcome:
    """What follows from one message: notices in sending order."""

    notices: tuple[Notice, ...]
    new_primary: Hashable | None = None
    """Set when the primary changed: its notice waits until writes in flight are done."""


@dataclass(frozen=True, slots=True)
class RoleView:
    """A role as it stands: its primary, with that one's election id, and what the role may do."""

    name: str
    primary: Hashable | None
    primary_id: int | None
    config: RoleConfig


@dataclass(slots=True)
class _Role:
    clients: dict[Hashable, int | None] = field(default_factory=dict)
    highest: int | None = None
    primary: Hashable | None = None
    primary_id: int | None = None
    config: RoleConfig = ANY


class Arbiter:
    """The clients of one device. Calls must not overlap, except `is_primary` and `primary_of`."""

    def __init__(self, max_clients: int = 32) -> None:
        self._roles: dict[str, _Role] = {DEFAULT_ROLE: _Role()}
        self._role_of: dict[Hashable, str] = {}
        self._max_clients = max_clients

    def update(
        self, stream: Hashable, role: str, election_id: int | None, config: RoleConfig = ANY
    ) -> Outcome:
        """Take a MasterArbitrationUpdate; `election_id` None: never primary.

        Errors end the stream: FAILED_PRECONDITION for a change of role, INVALID_ARGUMENT for an
        election id that another live client of the role uses, RESOURCE_EXHAUSTED for too many.
        """
        if self._role_of.get(stream, role) != role:
            raise P4RuntimeError(
                Code.FAILED_PRECONDITION,
                f"stream has role {self._role_of[stream]!r} and can't change to {role!r}; "
                "open another stream",
            )
        state = self._roles.setdefault(role, _Role())
        if election_id is not None and any(
            other != stream and used == election_id for other, used in state.clients.items()
        ):
            raise invalid(f"election id {election_id} of role {role!r} is used by another client")
        if stream not in state.clients and len(state.clients) >= self._max_clients:
            raise P4RuntimeError(
                Code.RESOURCE_EXHAUSTED,
                f"role {role!r} has {len(state.clients)} clients, the most this target takes",
            )
        was_primary = state.primary == stream
        self._role_of[stream] = role
        state.clients[stream] = election_id
        if election_id is not None and (state.highest is None or election_id >= state.highest):
            changed = not was_primary
            state.highest = election_id
            state.primary_id = election_id
            state.config = config
            state.primary = stream
            others = [c for c in state.clients if c != stream]
            return Outcome(
                self._notices(role, [*others, stream]), new_primary=stream if changed else None
            )
        if was_primary:
            state.primary = state.primary_id = None
            return Outcome(self._notices(role, list(state.clients)))
        return Outcome(self._notices(role, [stream]))

    def leave(self, stream: Hashable) -> Outcome:
        """Take note that a stream ended."""
        role = self._role_of.pop(stream, None)
        if role is None:
            return Outcome(())
        state = self._roles[role]
        del state.clients[stream]
        if state.primary != stream:
            return Outcome(())
        state.primary = state.primary_id = None
        return Outcome(self._notices(role, list(state.clients)))

    def is_primary(self, role: str, election_id: int | None) -> bool:
        """True if the primary of `role` has this election id. Any thread, without a lock."""
        state = self._roles.get(role)
        return state is not None and election_id is not None and state.primary_id == election_id

    def knows(self, role: str) -> bool:
        """True if a client ever asked for this role, or it is the default role."""
        return role in self._roles

    def role_of(self, stream: Hashable) -> str | None:
        """The role of a live client."""
        return self._role_of.get(stream)

    def config(self, role: str) -> RoleConfig:
        """What the role may do, as its last primary said."""
        state = self._roles.get(role)
        return ANY if state is None else state.config

    def primary_of(self, role: str) -> Hashable | None:
        """The stream of the role's primary. Any thread, without a lock."""
        state = self._roles.get(role)
        return None if state is None else state.primary

    def primaries(self) -> list[tuple[Hashable, RoleConfig]]:
        """The primary of every role that has one. Any thread, without a lock."""
        return [(s.primary, s.config) for s in list(self._roles.values()) if s.primary is not None]

    def roles(self) -> list[RoleView]:
        """All roles as they stand."""
        return [
            RoleView(name, state.primary, state.primary_id, state.config)
            for name, state in self._roles.items()
        ]

    def _notices(self, role: str, streams: list[Hashable]) -> tuple[Notice, ...]:
        state = self._roles[role]
        return tuple(
            Notice(stream, role, state.highest, self._standing(state, stream)) for stream in streams
        )

    @staticmethod
    def _standing(state: _Role, stream: Hashable) -> Standing:
        if state.primary is None:
            return Standing.NO_PRIMARY
        return Standing.PRIMARY if state.primary == stream else Standing.BACKUP
