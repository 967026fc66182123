"""Digest lists: gathering, de-duplication, acknowledgement (9.10), without threads or clocks.

    message --> buffer of its digest --(full, or oldest too old)--> DigestList
                     ^                                                 |
                     '-- duplicates: in the buffer, or sent and  <-----'
                         neither acknowledged nor timed out

Times are nanoseconds of one monotonic clock, given by the caller.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from finsy.proto import p4r

from softnic.p4runtime.errors import Code, P4RuntimeError, invalid
from softnic.p4runtime.schema import DigestSchema

_MAX_LIST = 1024
"""Messages in one list where the client sets no limit."""
_MAX_UNACKED = 65536
"""Messages of one digest waiting for an acknowledgement; the oldest lists are forgotten first."""


@dataclass(slots=True)
class _Buffer:
    schema: DigestSchema
    config: p4r.DigestEntry.Config
    waiting: dict[bytes, None] = field(default_factory=dict)
    since_ns: int = 0
    sent: dict[int, tuple[int, list[bytes]]] = field(default_factory=dict)
    unacked: set[bytes] = field(default_factory=set)

    def forget(self, list_id: int) -> bool:
        _, messages = self.sent.pop(list_id, (0, None))
        if messages is None:
            return False
        self.unacked.difference_update(messages)
        return True

    def due_ns(self) -> int | None:
        return self.since_ns + self.config.max_timeout_ns if self.waiting else None


class DigestBuffers:
    """The digests of one pipeline; any thread."""

    def __init__(self, schemas: Mapping[int, DigestSchema]) -> None:
        self._schemas = schemas
        self._by_name = {schema.name: schema for schema in schemas.values()}
        self._buffers: dict[int, _Buffer] = {}
        self._lock = threading.Lock()
        self._last_list_id = 0
        self.disabled = 0
        """Messages dropped because no client enabled their digest."""

    def insert(self, digest_id: int, config: p4r.DigestEntry.Config) -> None:
        """Enable a digest."""
        schema = self._schema(digest_id)
        with self._lock:
            if digest_id in self._buffers:
                raise P4RuntimeError(
                    Code.ALREADY_EXISTS, f"digest {schema.name} is already enabled"
                )
            self._buffers[digest_id] = _Buffer(schema, _checked(schema, config))

    def modify(self, digest_id: int, config: p4r.DigestEntry.Config) -> None:
        """Change an enabled digest's parameters."""
        schema = self._schema(digest_id)
        with self._lock:
            self._enabled(digest_id).config = _checked(schema, config)

    def delete(self, digest_id: int) -> None:
        """Disable a digest; what waits is dropped."""
        self._schema(digest_id)
        with self._lock:
            self._enabled(digest_id)
            del self._buffers[digest_id]

    def keep(self, digest_id: int) -> Callable[[], None]:
        """What brings a digest back to how it is enabled now; messages that wait still do."""
        with self._lock:
            old = self._buffers.get(digest_id)
            config = old.config if old else None

        def bring_back() -> None:
            with self._lock:
                if old is None or config is None:
                    self._buffers.pop(digest_id, None)
                    return
                old.config = config
                self._buffers[digest_id] = old

        return bring_back

    def read(self, digest_id: int) -> list[p4r.DigestEntry]:
        """The configuration of one digest, or of all (id 0)."""
        if digest_id:
            self._schema(digest_id)
        with self._lock:
            return [
                p4r.DigestEntry(digest_id=known, config=buffer.config)
                for known, buffer in self._buffers.items()
                if digest_id in (0, known)
            ]

    def add(self, name: str, data: bytes, now_ns: int) -> p4r.DigestList | None:
        """Take a message of the data plane; the list that it completed, if any."""
        schema = self._by_name.get(name)
        with self._lock:
            buffer = self._buffers.get(schema.id) if schema is not None else None
            if buffer is None:
                self.disabled += 1
                return None
            self._expire(buffer, now_ns)
            if data in buffer.waiting or data in buffer.unacked:
                return None
            if not buffer.waiting:
                buffer.since_ns = now_ns
            buffer.waiting[data] = None
            config = buffer.config
            if not config.max_timeout_ns or len(buffer.waiting) >= (
                config.max_list_size or _MAX_LIST
            ):
                return self._flush(buffer, now_ns)
            return None

    def due(self, now_ns: int) -> list[p4r.DigestList]:
        """The lists whose oldest message waited long enough."""
        with self._lock:
            return [
                self._flush(buffer, now_ns)
                for buffer in self._buffers.values()
                if (due := buffer.due_ns()) is not None and due <= now_ns
            ]

    def next_due_ns(self) -> int | None:
        """When `due` will have something next; None: nothing waits."""
        with self._lock:
            return min(
                (due for b in self._buffers.values() if (due := b.due_ns()) is not None),
                default=None,
            )

    def acknowledge(self, ack: p4r.DigestListAck) -> None:
        """Take a client's acknowledgement; one for a list that is gone is no error."""
        self._schema(ack.digest_id)
        with self._lock:
            buffer = self._buffers.get(ack.digest_id)
            if buffer is not None:
                buffer.forget(ack.list_id)

    def forget_unacknowledged(self) -> None:
        """Another client is primary now: it has seen nothing of what was sent."""
        with self._lock:
            for buffer in self._buffers.values():
                buffer.sent.clear()
                buffer.unacked.clear()

    def _schema(self, digest_id: int) -> DigestSchema:
        schema = self._schemas.get(digest_id)
        if schema is None:
            raise invalid(f"no digest has id {digest_id}")
        return schema

    def _enabled(self, digest_id: int) -> _Buffer:
        buffer = self._buffers.get(digest_id)
        if buffer is None:
            raise P4RuntimeError(
                Code.NOT_FOUND, f"digest {self._schemas[digest_id].name} is not enabled"
            )
        return buffer

    def _flush(self, buffer: _Buffer, now_ns: int) -> p4r.DigestList:
        self._last_list_id += 1
        messages = list(buffer.waiting)
        buffer.waiting.clear()
        if buffer.config.ack_timeout_ns:
            buffer.sent[self._last_list_id] = (now_ns, messages)
            buffer.unacked.update(messages)
            while len(buffer.unacked) > _MAX_UNACKED:
                buffer.forget(next(iter(buffer.sent)))
        return p4r.DigestList(
            digest_id=buffer.schema.id,
            list_id=self._last_list_id,
            data=[buffer.schema.shape.decode(m) for m in messages],
        )

    @staticmethod
    def _expire(buffer: _Buffer, now_ns: int) -> None:
        oldest_ns = now_ns - buffer.config.ack_timeout_ns
        while buffer.sent:
            list_id, (sent_ns, _) = next(iter(buffer.sent.items()))
            if sent_ns > oldest_ns:
                return
            buffer.forget(list_id)


def _checked(schema: DigestSchema, config: p4r.DigestEntry.Config) -> p4r.DigestEntry.Config:
    for name in ("max_timeout_ns", "max_list_size", "ack_timeout_ns"):
        if getattr(config, name) < 0:
            raise invalid(f"digest {schema.name}: {name} {getattr(config, name)} is negative")
    kept = p4r.DigestEntry.Config()
    kept.CopyFrom(config)
    return kept
