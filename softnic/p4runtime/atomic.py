"""Batches of which all updates are applied or none (12.2).

    ROLLBACK_ON_ERROR   packets pass between two updates, and while they are taken back
    DATAPLANE_ATOMIC    no packet passes before the end: it sees all of the batch or nothing

The first update that fails ends the batch; those before it are taken back, newest first.
"""

from __future__ import annotations

import contextlib
import logging
from contextlib import AbstractContextManager

from finsy.proto import p4r

from softnic.dataplane import DataPlane, WriteHead
from softnic.p4runtime.errors import Code, P4RuntimeError, invalid
from softnic.p4runtime.pipeline import Pipeline
from softnic.p4runtime.undo import Keeper, Undo
from softnic.p4runtime.writer import Writer, decoded

_log = logging.getLogger(__name__)

MAX_HELD = 1024
"""Updates that packets wait for; what comes meanwhile must fit the ports' queues."""
MAX_CELLS = 1 << 14
"""Cells of counters, meters and registers that one batch changes."""

_Kind = p4r.WriteRequest
_KINDS = (_Kind.CONTINUE_ON_ERROR, _Kind.ROLLBACK_ON_ERROR, _Kind.DATAPLANE_ATOMIC)


def check_atomicity(head: WriteHead) -> None:
    """Refuse a batch for what it asks for as a whole."""
    if head.atomicity not in _KINDS:
        raise invalid(f"atomicity {head.atomicity} is none of WriteRequest's")
    if head.atomicity == _Kind.DATAPLANE_ATOMIC and head.updates > MAX_HELD:
        raise P4RuntimeError(
            Code.RESOURCE_EXHAUSTED,
            f"{head.updates} updates with DATAPLANE_ATOMIC, {MAX_HELD} are the most: packets wait "
            "for all of them; send fewer, or use ROLLBACK_ON_ERROR",
        )


class AtomicBatch:
    """Applies one batch. Called with the device's lock held."""

    def __init__(self, dp: DataPlane, pipeline: Pipeline, writer: Writer) -> None:
        self._dp = dp
        self._writer = writer
        self._keeper = Keeper(dp, pipeline, MAX_CELLS)
        self._undos: list[Undo] = []

    def apply(self, request: bytes, head: WriteHead) -> list[P4RuntimeError | None]:
        """All updates of a WriteRequest; the error of each, where one of them failed."""
        with self._whole(head):
            try:
                failed = self._try(request, head.updates)
            except BaseException:
                self._take_back()
                raise
            if failed is None:
                return [None] * head.updates
            self._take_back()
        place, error = failed
        before = P4RuntimeError(Code.ABORTED, "taken back")
        after = P4RuntimeError(Code.ABORTED, "not tried")
        return [*[before] * place, error, *[after] * (head.updates - place - 1)]

    def _whole(self, head: WriteHead) -> AbstractContextManager[None]:
        held = head.atomicity == _Kind.DATAPLANE_ATOMIC
        return self._dp.held() if held else contextlib.nullcontext()

    def _try(self, request: bytes, count: int) -> tuple[int, P4RuntimeError] | None:
        """Update for update; the place and the error of the first that failed."""
        failed: list[tuple[int, P4RuntimeError]] = []

        def next_one(index: int, data: bytes) -> None:
            if failed:
                return
            try:
                self._one(decoded(data))
            except P4RuntimeError as error:
                failed.append((index, error))

        self._dp.write_encoded(None, request, count, next_one)
        return failed[0] if failed else None

    def _one(self, update: p4r.Update) -> None:
        with self._dp.held():  # no packet between what is kept and what is done
            undo = self._keeper.keep(update)
            try:
                self._writer.one(update)
            except BaseException:
                undo()
                raise
            self._undos.append(undo)

    def _take_back(self) -> None:
        """Newest first. What can't be brought back (no memory) is told, the rest goes on."""
        lost: P4RuntimeError | None = None
        while self._undos:
            try:
                with self._dp.held():
                    self._undos.pop()()
            except P4RuntimeError as error:
                _log.error("%s", error.message)
                lost = lost or error
        if lost is not None:
            raise lost
