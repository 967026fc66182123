"""One P4 device as its clients see it: pipeline, entities and clients around a data plane.

Locks, taken in this order: a push of a pipeline (slow: it compiles) > arbitration (in Clients)
> the data plane's `exclusive` (short: every Write, the selecting part of every Read, the switch to
a new pipeline). Native code, which does plain Writes by itself, has only the last, and goes by what
`attach`'s front was shown.
"""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Iterable, Iterator
from typing import Protocol

from finsy.proto import U128, p4r

from softnic.dataplane import DataPlane, Status
from softnic.p4runtime import pre
from softnic.p4runtime.arbitration import RoleView
from softnic.p4runtime.atomic import AtomicBatch, check_atomicity
from softnic.p4runtime.clients import Client, Clients
from softnic.p4runtime.drops import Drops
from softnic.p4runtime.errors import Code, P4RuntimeError, invalid
from softnic.p4runtime.pipeline import Compile, Pipeline, prepare, select
from softnic.p4runtime.reader import Reader, chunks
from softnic.p4runtime.roles import RoleConfig
from softnic.p4runtime.writer import Writer, refusals

_PUSH_WAIT_S = 300.0
"""Seconds that a push waits for another one's compiler."""

Push = p4r.SetForwardingPipelineConfigRequest
_WITH_CONFIG = (Push.VERIFY, Push.VERIFY_AND_SAVE, Push.VERIFY_AND_COMMIT)


class Front(Protocol):
    """Who does the plain part of the work without asking, and so must know how things stand."""

    def show_roles(self, roles: Iterable[tuple[RoleView, int]]) -> None:
        """Who is primary: each role with its primary's stream."""

    def show_pipeline(
        self, device_id: int, generation: int, pipeline: Pipeline | None, *, may_write: bool
    ) -> None:
        """What runs; writes that fail name the generation."""


_KEPT_GENERATIONS = 4
"""Pipelines that are remembered for writes whose errors are not worded yet."""


class Device:
    """The state behind the RPCs; any thread."""

    def __init__(self, device_id: int, dp: DataPlane, compile_program: Compile) -> None:
        self.device_id = device_id
        self.dp = dp
        self.drops = Drops()
        self.clients = Clients(
            device_id, self.drops, self._settle, self._primary_changed, self._show_roles
        )
        self._compile = compile_program
        self._push = threading.Lock()
        self._pipeline: Pipeline | None = None
        self._saved: Pipeline | None = None
        self._front: Front | None = None
        self._generation = 0
        self._generations: dict[int, Pipeline] = {}

    def attach(self, front: Front) -> None:
        """Keep this one informed, from now on."""
        with self.dp.exclusive():
            self._front = front
            self._show_pipeline()
        self.clients.show()

    @property
    def pipeline(self) -> Pipeline | None:
        """The pipeline that runs."""
        return self._pipeline

    def check_id(self, device_id: int) -> None:
        """NOT_FOUND for another device's id."""
        if device_id != self.device_id:
            raise P4RuntimeError(
                Code.NOT_FOUND, f"there is no device {device_id} here, this is {self.device_id}"
            )

    def write(self, encoded: bytes) -> list[P4RuntimeError | None]:
        """Apply a p4.v1.WriteRequest; the error of each update that failed, others in place."""
        try:
            head = self.dp.write_head(encoded)
            role_name = head.role.decode()
        except ValueError as error:
            raise invalid(f"the request is damaged: {error}") from error
        self._check_sender(head.device_id, head.role_id, role_name, head.election_id)
        check_atomicity(head)
        with self.dp.exclusive():
            role = self.clients.check_primary(role_name, head.election_id)
            pipeline = self._ready()
            writer = Writer(self.dp, pipeline, role)
            if head.atomicity != p4r.WriteRequest.CONTINUE_ON_ERROR:
                return AtomicBatch(self.dp, pipeline, writer).apply(encoded, head)
            return writer.apply(encoded, head.updates)

    def refusals(
        self, generation: int, count: int, failed: Iterable[tuple[int, Status, bytes]]
    ) -> list[P4RuntimeError | None]:
        """The errors of a Write of `count` updates that native code did, where some failed."""
        results: list[P4RuntimeError | None] = [None] * count
        pipeline = self._generations.get(generation)
        if pipeline is None:
            gone = P4RuntimeError(Code.ABORTED, "failed, and its pipeline was replaced meanwhile")
            for index, _, _ in failed:
                results[index] = gone
            return results
        for index, error in refusals(pipeline, failed):
            results[index] = error
        return results

    def read(
        self, request: p4r.ReadRequest
    ) -> tuple[Iterator[p4r.ReadResponse], list[P4RuntimeError | None]]:
        """Select entities now; their messages, and the error of each request that failed."""
        self.check_id(request.device_id)
        role = self.clients.role_config(request.role)
        results: list[P4RuntimeError | None] = []
        selected: list[Iterator[p4r.Entity]] = []
        with self.dp.exclusive():
            reader = Reader(self.dp, self._ready(), role)
            for wanted in request.entities:
                try:
                    selected.append(reader.select(wanted))
                    results.append(None)
                except P4RuntimeError as error:
                    results.append(error)
        return chunks(entity for part in selected for entity in part), results

    def set_pipeline(self, request: p4r.SetForwardingPipelineConfigRequest) -> None:
        """Verify, save or commit a pipeline; other RPCs go on meanwhile (14)."""
        self._check_pusher(request)
        if not self._push.acquire(timeout=_PUSH_WAIT_S):
            raise P4RuntimeError(Code.ABORTED, "another pipeline is still being set, try again")
        try:
            self._set_pipeline(request)
        finally:
            self._push.release()

    def get_pipeline(
        self, request: p4r.GetForwardingPipelineConfigRequest
    ) -> p4r.ForwardingPipelineConfig | None:
        """The parts of the running (or saved) config asked for; None before there is one."""
        self.check_id(request.device_id)
        pipeline = self._pipeline or self._saved
        return None if pipeline is None else select(pipeline.config, request.response_type)

    def _set_pipeline(self, request: p4r.SetForwardingPipelineConfigRequest) -> None:
        action = request.action
        if action == Push.COMMIT:
            if request.HasField("config"):
                raise invalid("COMMIT takes no config, it commits the saved one")
            if self._saved is None:
                raise P4RuntimeError(Code.NOT_FOUND, "no config is saved: VERIFY_AND_SAVE first")
            self._commit(request, self._saved)
        elif action == Push.RECONCILE_AND_COMMIT:
            self._reconcile(request)
        elif action in _WITH_CONFIG:
            pipeline = prepare(request.config, self._compile)
            if action == Push.VERIFY_AND_COMMIT:
                self._commit(request, pipeline)
            elif action == Push.VERIFY_AND_SAVE:
                with self.dp.exclusive():
                    self._check_pusher(request)
                    self._saved = pipeline
                    self._show_pipeline()
        else:
            raise invalid(f"action {action} is none of SetForwardingPipelineConfig's")

    def _commit(self, request: p4r.SetForwardingPipelineConfigRequest, pipeline: Pipeline) -> None:
        with self.dp.exclusive():
            self._check_pusher(request)
            if self._pipeline is not None:
                pre.clear(self.dp, self._pipeline.state)
            try:
                self.dp.load(pipeline.program)
            except ValueError as error:
                raise invalid(f"the data plane can't load the program: {error}") from error
            except RuntimeError as error:
                raise P4RuntimeError(Code.RESOURCE_EXHAUSTED, str(error)) from error
            self._pipeline, self._saved = pipeline, None
            self._show_pipeline()

    def _reconcile(self, request: p4r.SetForwardingPipelineConfigRequest) -> None:
        if not request.HasField("config"):
            raise invalid("RECONCILE_AND_COMMIT needs a config")
        with self.dp.exclusive():
            self._check_pusher(request)
            running = self._pipeline
            if running is not None and running.is_same_program(request.config):
                self._pipeline = dataclasses.replace(running, config=request.config)
                self._saved = None
                self._show_pipeline()
                return
        if running is not None:
            raise invalid(
                "RECONCILE_AND_COMMIT: entries can be kept only under the same program; "
                "use VERIFY_AND_COMMIT, which clears them"
            )
        self._commit(request, prepare(request.config, self._compile))

    def _ready(self) -> Pipeline:
        if self._saved is not None:
            raise P4RuntimeError(
                Code.FAILED_PRECONDITION, "a saved pipeline waits for its COMMIT, send that first"
            )
        if self._pipeline is None:
            raise P4RuntimeError(
                Code.FAILED_PRECONDITION,
                "no pipeline is set: SetForwardingPipelineConfig first",
            )
        return self._pipeline

    def _check_sender(
        self, device_id: int, role_id: int, role: str, election_id: int | None
    ) -> RoleConfig:
        self.check_id(device_id)
        if role_id:
            raise invalid(f"role_id {role_id}: numeric role ids ended with 1.3")
        return self.clients.check_primary(role, election_id)

    def _check_pusher(self, request: p4r.SetForwardingPipelineConfigRequest) -> None:
        number = U128.decode(request.election_id) if request.HasField("election_id") else None
        role = self._check_sender(request.device_id, request.role_id, request.role, number)
        if not role.can_push_pipeline:
            raise P4RuntimeError(
                Code.PERMISSION_DENIED, f"role {request.role!r} may not set the pipeline"
            )

    def _show_pipeline(self) -> None:
        if self._front is None:
            return
        self._generation += 1
        if self._pipeline is not None:
            self._generations[self._generation] = self._pipeline
        self._generations.pop(self._generation - _KEPT_GENERATIONS, None)
        self._front.show_pipeline(
            self.device_id, self._generation, self._pipeline, may_write=self._saved is None
        )

    def _show_roles(self, roles: list[RoleView]) -> None:
        if self._front is not None:
            self._front.show_roles((role, _stream_of(role)) for role in roles)

    def _settle(self) -> None:
        """Wait for the writes that began before the primary changed; later ones are refused."""
        with self.dp.exclusive():
            return

    def _primary_changed(self) -> None:
        if self._pipeline is not None:
            self._pipeline.digests.forget_unacknowledged()


def _stream_of(role: RoleView) -> int:
    return role.primary.outbox.call if isinstance(role.primary, Client) else 0
