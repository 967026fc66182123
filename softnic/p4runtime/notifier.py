"""From the data plane's events to the primary's stream: one thread, no polling.

Packet-ins don't come here: native code sends them (server/hot.c).

It sleeps in `DataPlane.events` until something happens or a digest list is due.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence

from finsy.proto import p4r

from softnic.dataplane import DigestEvent, Event, IdleTimeoutEvent
from softnic.p4runtime.device import Device
from softnic.p4runtime.pipeline import Pipeline
from softnic.p4runtime.roles import RoleConfig

_IDLE_WAIT_S = 0.5
"""Seconds after which it looks whether it should stop."""


class Notifier:
    """Carries digests and idle timeouts up."""

    def __init__(self, device: Device) -> None:
        self._device = device
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="notifier", daemon=True)

    def start(self) -> None:
        """Begin; once."""
        self._thread.start()

    def stop(self) -> None:
        """End at once."""
        self._stop.set()
        self._device.dp.wake()
        self._thread.join(timeout=2 * _IDLE_WAIT_S)

    def _run(self) -> None:
        while not self._stop.is_set():
            events = self._device.dp.events(self._wait_s())
            self._device.drops.look()
            pipeline = self._device.pipeline
            if pipeline is None:
                if events:
                    self._device.drops.count("event without a pipeline", len(events))
                continue
            idle = [e for e in events if self._one(pipeline, e)]
            if idle:
                self._idle_timeouts(pipeline, idle)
            for digest_list in pipeline.digests.due(time.monotonic_ns()):
                self._digest_list(digest_list)

    def _wait_s(self) -> float:
        pipeline = self._device.pipeline
        due_ns = None if pipeline is None else pipeline.digests.next_due_ns()
        if due_ns is None:
            return _IDLE_WAIT_S
        return min(_IDLE_WAIT_S, max(0.0, (due_ns - time.monotonic_ns()) / 1e9))

    def _one(self, pipeline: Pipeline, event: Event) -> bool:
        """Handle an event; True if it is an idle timeout, left to be sent with others."""
        if isinstance(event, DigestEvent):
            now_ns = time.monotonic_ns()
            digest_list = pipeline.digests.add(event.name, event.data, now_ns)
            if digest_list is not None:
                self._digest_list(digest_list)
            return False
        return True

    def _digest_list(self, digest_list: p4r.DigestList) -> None:
        digest_list.timestamp = time.time_ns()
        message = p4r.StreamMessageResponse(digest=digest_list)
        if not self._device.clients.send(message, _covering(digest_list.digest_id)):
            self._device.drops.count("digest list without a primary")

    def _idle_timeouts(self, pipeline: Pipeline, events: Sequence[Event]) -> None:
        by_table: dict[int, p4r.StreamMessageResponse] = {}
        with self._device.dp.exclusive():
            for event in events:
                if not isinstance(event, IdleTimeoutEvent):
                    continue
                schema = pipeline.schema.table_by_name.get(event.table)
                found = self._device.dp.entry(event.table, event.match)
                if schema is None or found is None:
                    continue
                message = by_table.setdefault(schema.id, p4r.StreamMessageResponse())
                entry = message.idle_timeout_notification.table_entry.add()
                codec = pipeline.codecs[schema.id]
                entry.table_id = schema.id
                codec.decode_match(event.match, entry)
                entry.metadata = found[0].metadata
                entry.controller_metadata = found[0].controller_metadata
                entry.idle_timeout_ns = found[0].idle_timeout_ns
        for table_id, message in by_table.items():
            message.idle_timeout_notification.timestamp = time.time_ns()
            if not self._device.clients.send(message, _covering(table_id)):
                self._device.drops.count("idle timeout without a primary")


def _covering(p4_id: int) -> Callable[[RoleConfig], bool]:
    return lambda role: role.covers(p4_id)
