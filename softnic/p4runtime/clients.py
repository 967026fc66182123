"""The clients of a device: their streams, and who of them is told what.

`Arbiter` decides; here its notices become messages, in an order that every client can rely on:
all others hear of a new primary first, writes of the old one end, then the new one hears it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass

from finsy.proto import U128, p4r

from softnic.p4runtime.arbitration import DEFAULT_ROLE, Arbiter, Notice, Outcome, RoleView
from softnic.p4runtime.drops import Drops
from softnic.p4runtime.errors import Code, P4RuntimeError
from softnic.p4runtime.roles import RoleConfig, parse_role
from softnic.p4runtime.stream import Outbox

_MAX_STREAMS = 32
"""Open streams."""


@dataclass(eq=False, slots=True)
class Client:
    """One StreamChannel."""

    outbox: Outbox


class Clients:
    """All streams of one device; any thread."""

    def __init__(
        self,
        device_id: int,
        drops: Drops,
        settle: Callable[[], None],
        changed: Callable[[], None],
        show: Callable[[list[RoleView]], None],
    ) -> None:
        """`settle` waits for writes in flight; `changed` hears of every new primary.

        `show` is told how the roles stand before anybody else is.
        """
        self._device_id = device_id
        self._drops = drops
        self._settle = settle
        self._changed = changed
        self._show = show
        self._arbiter = Arbiter(max_clients=_MAX_STREAMS)
        self._streams: set[Client] = set()
        self._lock = threading.Lock()

    @property
    def count(self) -> int:
        """Open streams now."""
        return len(self._streams)

    def connect(self, outbox: Outbox) -> Client:
        """A new stream; RESOURCE_EXHAUSTED if there are too many."""
        client = Client(outbox)
        with self._lock:
            if len(self._streams) >= _MAX_STREAMS:
                raise P4RuntimeError(
                    Code.RESOURCE_EXHAUSTED, f"{_MAX_STREAMS} streams are open, the most there are"
                )
            self._streams.add(client)
        return client

    def arbitrate(self, client: Client, message: p4r.MasterArbitrationUpdate) -> None:
        """Take an arbitration message; an error must end the stream (5.3)."""
        role, config = parse_role(message.role)
        with self._lock:
            if message.device_id != self._device_id:
                known = self._arbiter.role_of(client) is not None
                raise P4RuntimeError(
                    Code.FAILED_PRECONDITION if known else Code.NOT_FOUND,
                    f"there is no device {message.device_id} here, this is {self._device_id}",
                )
            election_id = (
                U128.decode(message.election_id) if message.HasField("election_id") else None
            )
            outcome = self._arbiter.update(client, role, election_id, config)
            self._show(self._arbiter.roles())
            self._tell(outcome)

    def leave(self, client: Client) -> None:
        """The stream ended; harmless if that is known."""
        with self._lock:
            self._streams.discard(client)
            outcome = self._arbiter.leave(client)
            self._show(self._arbiter.roles())
            self._tell(outcome)

    def check_primary(self, role: str, election_id: int | None) -> RoleConfig:
        """What the role may do; errors unless the request comes from its primary (12)."""
        if not self._arbiter.knows(role):
            raise P4RuntimeError(Code.NOT_FOUND, f"no client has role {role!r}")
        if not self._arbiter.is_primary(role, election_id):
            raise P4RuntimeError(
                Code.PERMISSION_DENIED,
                f"election id {election_id} is not the primary's"
                + (f" of role {role!r}" if role else ""),
            )
        return self._arbiter.config(role)

    def role_config(self, role: str) -> RoleConfig:
        """What the role may see."""
        if not self._arbiter.knows(role):
            raise P4RuntimeError(Code.NOT_FOUND, f"no client has role {role!r}")
        return self._arbiter.config(role)

    def is_primary(self, client: Client) -> bool:
        """True if this stream is the primary of its role."""
        role = self._arbiter.role_of(client)
        return role is not None and self._arbiter.primary_of(role) is client

    def send(self, message: p4r.StreamMessageResponse, wants: Callable[[RoleConfig], bool]) -> bool:
        """Queue a message for the primary of every role that wants it; False if there is none."""
        sent = False
        for stream, config in self._arbiter.primaries():
            if isinstance(stream, Client) and wants(config):
                stream.outbox.put(message)
                sent = True
        return sent

    def show(self) -> None:
        """Tell how the roles stand, once more."""
        with self._lock:
            self._show(self._arbiter.roles())

    def close(self) -> None:
        """End all streams."""
        with self._lock:
            for client in self._streams:
                client.outbox.close(P4RuntimeError(Code.UNAVAILABLE, "the device is shutting down"))

    def _tell(self, outcome: Outcome) -> None:
        for notice in outcome.notices:
            client = notice.stream
            if client is outcome.new_primary:
                self._settle()
                self._changed()
            if isinstance(client, Client):
                client.outbox.put_always(self._message(notice))

    def _message(self, notice: Notice) -> p4r.StreamMessageResponse:
        message = p4r.StreamMessageResponse()
        arbitration = message.arbitration
        arbitration.device_id = self._device_id
        if notice.role != DEFAULT_ROLE:
            arbitration.role.name = notice.role
            raw = self._arbiter.config(notice.role).raw
            if raw:
                arbitration.role.config.ParseFromString(raw)
        if notice.election_id is not None:
            arbitration.election_id.CopyFrom(U128.encode(notice.election_id))
        arbitration.status.code = notice.standing.value
        arbitration.status.message = _WORDS[notice.standing.value]
        return message


_WORDS = {
    Code.OK: "you are primary",
    Code.ALREADY_EXISTS: "you are backup, another client is primary",
    Code.NOT_FOUND: "you are backup, no client is primary",
}
