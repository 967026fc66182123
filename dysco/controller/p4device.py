"""One P4Runtime device: connection, arbitration, pipeline, packet-in and packet-out, writes.

    connect -> arbitrate -> (push the program, if it is not there) -> reconcile -> ready
       ^                                                                            |
       +------------------------- back-off <------------------ stream broken -------+

Arbitration: the highest election id is primary, and the default id is the time, so that a
restarted daemon takes over from the dead one. A daemon that finds a newer one in charge waits.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter, deque
from collections.abc import AsyncIterator, Iterable
from enum import Enum
from typing import Protocol

import grpc
from finsy import GRPCStatusCode, P4Client, P4ClientError
from finsy.proto import p4r, p4r_grpc, rpc_code
from google.protobuf.message import Message

from dysco.controller.config import DeviceConfig
from dysco.controller.mappings import TABLE_NAMES
from dysco.controller.pipeline import Pipeline, packed
from dysco.controller.writer import Errors, Writer

log = logging.getLogger(__name__)

BACKOFF_MIN, BACKOFF_MAX = 0.1, 2.0
"""Seconds between attempts to connect."""
CONNECT_TIMEOUT = 10.0
WRITE_TIMEOUT = 5.0
"""Seconds; then the device is held to be stuck."""
PIPELINE_TIMEOUT = 120.0
"""Seconds; a target may have to compile the program."""
MAX_EARLY = 4096
"""Packets kept for when the device is reconciled; more are dropped and counted."""
MAX_STRIDE = 1000
MAX_PACKET_OUTS = 2048
"""Waiting to be sent; more are dropped and counted."""


class State(Enum):
    """Where a device stands."""

    CONNECTING = "connecting"
    BACKUP = "backup"
    RECONCILING = "reconciling"
    READY = "ready"
    STOPPED = "stopped"


class DeviceError(Exception):
    """The device can't be used as it is; the text says why and what to do."""


class Handler(Protocol):
    """What is done with a device."""

    async def reconcile(self) -> None:
        """Make the device what it should be; called whenever it has become ours."""

    def packet_in(self, packet: p4r.PacketIn) -> None:
        """A packet from the pipeline; only while the device is ready."""

    def idle(self, entries: Iterable[p4r.TableEntry]) -> None:
        """Entries that no packet hit for their time-out."""

    def down(self) -> None:
        """The device is not ours any more; whatever was outstanding has failed."""


class P4Device:
    """The P4Runtime side of a device."""

    def __init__(
        self,
        config: DeviceConfig,
        pipeline: Pipeline,
        handler: Handler,
        *,
        election_id: int | None = None,
        push_pipeline: bool = False,
    ) -> None:
        self.config = config
        self.pipeline = pipeline
        self.state = State.CONNECTING
        self.problem = "not connected yet"
        self.counters: Counter[str] = Counter()
        self.writer = Writer(self._write)
        self._handler = handler
        self._push_pipeline = push_pipeline
        self._election_id = (election_id or time.time_ns() // 1000) - 1
        self._stride = 1 + self._election_id % MAX_STRIDE
        self._last_problem = ""
        self._primary = asyncio.Event()
        self._client: P4Client | None = None
        self._stub: p4r_grpc.P4RuntimeAsyncStub | None = None
        self._stuck = asyncio.Event()
        """Set when the device leaves a Write without an answer."""
        self._out: deque[p4r.StreamMessageRequest] = deque()
        self._out_ready = asyncio.Event()
        self._early: deque[p4r.PacketIn] = deque()
        """Packets that came while the device was being reconciled."""
        self._changed = asyncio.Event()

    @property
    def election_id(self) -> int:
        """The id of the current or last bid."""
        return self._election_id

    async def run(self) -> None:
        """Keep the device connected until cancelled."""
        delay = BACKOFF_MIN
        try:
            while True:
                started = time.monotonic()
                await self._attempt()
                if time.monotonic() - started > BACKOFF_MAX:
                    delay = BACKOFF_MIN
                await asyncio.sleep(delay)
                delay = min(delay * 2, BACKOFF_MAX)
        finally:
            self._set_state(State.STOPPED, "the daemon is stopping")

    async def _attempt(self) -> None:
        try:
            await self._session()
        except P4ClientError as error:
            self._lost(explain(error))
        except grpc.aio.AioRpcError as error:
            self._lost(f"{error.code().name}: {error.details()}")
        except TimeoutError:
            self._lost(f"no answer within {CONNECT_TIMEOUT:g} s")
        except DeviceError as error:
            self._lost(str(error))
        except Exception as error:
            # A fault of ours with one device: the others go on, and this one is tried again.
            self.counters["device_error"] += 1
            log.exception("device %s failed; please report this", self.config.name)
            self._lost(f"{type(error).__name__}: {error}")

    def _lost(self, why: str) -> None:
        if self._last_problem != why:
            log.warning(
                "device %s at %s: %s; trying again", self.config.name, self.config.address, why
            )
        self._last_problem = why
        self._set_state(State.CONNECTING, why)

    def _set_state(self, state: State, problem: str = "") -> None:
        self.state, self.problem = state, problem
        self._changed.set()
        self._changed = asyncio.Event()

    async def wait_ready(self, timeout: float) -> bool:
        """True once the device is ready; False if it isn't within `timeout` seconds."""
        try:
            async with asyncio.timeout(timeout):
                while self.state is not State.READY:
                    await self._changed.wait()
        except TimeoutError:
            return False
        return True

    async def _session(self) -> None:
        """One connection, from arbitration until it breaks."""
        # Every connection bids one more than the last: the device may not have missed that one
        # yet. A daemon that was started later still bids more.
        self._election_id += 1
        client = P4Client(self.config.address, wait_for_ready=False)
        self._primary.clear()
        self._stuck.clear()
        await client.open(complete_request=self._complete)
        self._client = client
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT):
                await self._bid(client)
                await self._receive_one(client)
            async with asyncio.TaskGroup() as group:
                group.create_task(self._receive(client))
                group.create_task(self._send(client))
                group.create_task(self._serve(client))
                group.create_task(self._watch())
        except ExceptionGroup as errors:
            raise errors.exceptions[0] from None
        finally:
            self._client = self._stub = None
            self._out.clear()
            self._early.clear()
            self.writer.stop(f"device {self.config.name} is not connected")
            self._handler.down()
            await client.close()

    async def _watch(self) -> None:
        """A device that hangs keeps its connection: end it, and begin anew."""
        await self._stuck.wait()
        raise DeviceError(f"it left a Write without an answer for {WRITE_TIMEOUT:g} s")

    async def _serve(self, client: P4Client) -> None:
        """Reconcile whenever the device becomes ours."""
        while True:
            if not self._primary.is_set():
                log.warning(
                    "device %s: another controller with a higher election id is in charge; "
                    "waiting until it leaves",
                    self.config.name,
                )
                self._set_state(State.BACKUP, "another controller is in charge")
            await self._primary.wait()
            self._set_state(State.RECONCILING, "being reconciled")
            await self._ensure_pipeline(client)
            self.writer.start()
            await self._handler.reconcile()
            if self._primary.is_set():
                self._set_state(State.READY)
                self._last_problem = ""
                log.info("device %s: ready", self.config.name)
                while self._early:
                    self._packet_in(self._early.popleft())
            while self._primary.is_set():
                await self._changed.wait()
            self.writer.stop(f"another controller took over device {self.config.name}")
            self._handler.down()

    # Arbitration and the stream

    async def _bid(self, client: P4Client) -> None:
        update = p4r.MasterArbitrationUpdate(device_id=self.config.device_id)
        self._fill_election_id(update.election_id)
        await client.send(p4r.StreamMessageRequest(arbitration=update))

    def _fill_election_id(self, target: p4r.Uint128) -> None:
        target.high = self._election_id >> 64
        target.low = self._election_id & (1 << 64) - 1

    def _complete(self, request: Message) -> None:
        if isinstance(request, p4r.WriteRequest | p4r.SetForwardingPipelineConfigRequest):
            self._fill_election_id(request.election_id)

    async def _receive_one(self, client: P4Client) -> None:
        try:
            message = await client.receive()
        except RuntimeError as error:
            raise DeviceError("the device closed the stream") from error
        kind = message.WhichOneof("update")
        if kind == "packet":
            if self.state is State.READY:
                self._packet_in(message.packet)
            elif self.state is State.RECONCILING and len(self._early) < MAX_EARLY:
                self._early.append(message.packet)
            else:
                self.counters["packet_in_not_ready"] += 1
        elif kind == "idle_timeout_notification":
            self._handler.idle(message.idle_timeout_notification.table_entry)
        elif kind == "arbitration":
            await self._arbitrated(client, message.arbitration)
        elif kind == "error":
            self.counters["stream_error"] += 1
            log.warning("device %s refused a packet-out: %s", self.config.name, message.error)

    def _packet_in(self, packet: p4r.PacketIn) -> None:
        try:
            self._handler.packet_in(packet)
        except Exception:
            # The bulkhead: whatever one packet does, all other sessions go on.
            self.counters["packet_in_failed"] += 1
            log.exception("device %s: a packet-in failed; please report this", self.config.name)

    async def _arbitrated(self, client: P4Client, update: p4r.MasterArbitrationUpdate) -> None:
        if update.status.code == rpc_code.OK:
            self._primary.set()
        elif update.status.code == rpc_code.NOT_FOUND:
            # No primary: the higher bid is gone, but a bid below it would not win. Several that
            # wait do this at once: by strides of their own they don't bid the same.
            highest = max(self._election_id, _election_id(update.election_id))
            self._election_id = highest + self._stride
            await self._bid(client)
        else:
            self._primary.clear()
        self._changed.set()
        self._changed = asyncio.Event()

    async def _receive(self, client: P4Client) -> None:
        while True:
            await self._receive_one(client)

    async def _send(self, client: P4Client) -> None:
        while True:
            while self._out:
                await client.send(self._out.popleft())
            self._out_ready.clear()
            await self._out_ready.wait()

    def packet_out(self, port: int, submit: int, frame: bytes) -> None:
        """Put a frame into the pipeline; dropped and counted while the device is not ready."""
        if self._client is None or self.state not in (State.READY, State.RECONCILING):
            self.counters["packet_out_not_ready"] += 1
            return
        if len(self._out) >= MAX_PACKET_OUTS:
            self.counters["packet_out_overflow"] += 1
            return
        ids = self.pipeline.metadata["packet_out"]
        metadata = [
            p4r.PacketMetadata(metadata_id=ids["port"], value=packed(port)),
            p4r.PacketMetadata(metadata_id=ids["submit"], value=packed(submit)),
        ]
        packet = p4r.PacketOut(payload=frame, metadata=metadata)
        self._out.append(p4r.StreamMessageRequest(packet=packet))
        self._out_ready.set()

    # Pipeline

    async def _ensure_pipeline(self, client: P4Client) -> None:
        """Push the program only where that costs no session."""
        running = await self._running(client)
        if running is not None and running.cookie.cookie == self.pipeline.cookie:
            return
        if running is not None and not self._push_pipeline and await self._has_sessions(running):
            if running.p4info.SerializeToString(
                deterministic=True
            ) == self.pipeline.p4info.SerializeToString(deterministic=True):
                log.warning(
                    "device %s runs another build of the program and holds sessions: left as it "
                    "is; --push-pipeline replaces it and ends them",
                    self.config.name,
                )
                return
            raise DeviceError(
                "it runs another version of the program and holds sessions; start dyscod with "
                "--push-pipeline to replace it, which ends them"
            )
        log.info("device %s: pushing the P4 program", self.config.name)
        request = p4r.SetForwardingPipelineConfigRequest(
            device_id=self.config.device_id,
            action=p4r.SetForwardingPipelineConfigRequest.VERIFY_AND_COMMIT,
            config=self.pipeline.config,
        )
        self._complete(request)
        stub = self._stub_of(client)
        await stub.SetForwardingPipelineConfig(request, timeout=PIPELINE_TIMEOUT)

    async def _running(self, client: P4Client) -> p4r.ForwardingPipelineConfig | None:
        request = p4r.GetForwardingPipelineConfigRequest(
            device_id=self.config.device_id,
            response_type=p4r.GetForwardingPipelineConfigRequest.P4INFO_AND_COOKIE,
        )
        try:
            reply = await client.request(request)
        except P4ClientError as error:
            if error.code is GRPCStatusCode.FAILED_PRECONDITION:
                return None
            raise
        return reply.config if reply.config.HasField("p4info") else None

    async def _has_sessions(self, running: p4r.ForwardingPipelineConfig) -> bool:
        for table in running.p4info.tables:
            if table.preamble.name.rpartition(".")[2] not in TABLE_NAMES:
                continue
            async for _ in self.read_table(table.preamble.id):
                return True
        return False

    # Reads and writes

    async def read(self, *entities: p4r.Entity) -> AsyncIterator[p4r.Entity]:
        """What the device holds. Raises P4ClientError, and DeviceError when not connected."""
        client = self._client
        if client is None:
            raise DeviceError(f"device {self.config.name} is not connected")
        request = p4r.ReadRequest(device_id=self.config.device_id, entities=entities)
        async for response in client.request_iter(request):
            for entity in response.entities:
                yield entity

    async def read_table(
        self, *table_ids: int, with_idle: bool = False
    ) -> AsyncIterator[p4r.TableEntry]:
        """All entries of tables, the const and default ones left out.

        `with_idle`: also for how long no packet hit each; for tables with idle time-outs.
        """
        wanted = [p4r.Entity(table_entry=p4r.TableEntry(table_id=number)) for number in table_ids]
        if with_idle:
            for asked in wanted:
                asked.table_entry.time_since_last_hit.SetInParent()
        async for entity in self.read(*wanted):
            entry = entity.table_entry
            if not entry.is_default_action and not entry.is_const:
                yield entry

    def _stub_of(self, client: P4Client) -> p4r_grpc.P4RuntimeAsyncStub:
        """For requests with time-outs of their own, which the client has not."""
        if self._stub is None:
            if client.channel is None:
                raise DeviceError("the connection is closed")
            self._stub = p4r_grpc.P4RuntimeStub(client.channel)
        return self._stub

    async def _write(self, updates: list[p4r.Update]) -> Errors:
        """One Write; errors by index of the update: (canonical code, text)."""
        client = self._client
        if client is None:
            reason = f"device {self.config.name} is not connected"
            return dict.fromkeys(range(len(updates)), (int(rpc_code.UNAVAILABLE), reason))
        request = p4r.WriteRequest(device_id=self.config.device_id, updates=updates)
        self._complete(request)
        try:
            await self._stub_of(client).Write(request, timeout=WRITE_TIMEOUT)
        except grpc.RpcError as error:
            return self._write_errors(P4ClientError(error, "Write", msg=request), len(updates))
        return {}

    def _write_errors(self, error: P4ClientError, updates: int) -> Errors:
        if error.code is GRPCStatusCode.DEADLINE_EXCEEDED:
            # What it took of this is unknown: the next reconciliation will see.
            self.counters["write_timeout"] += 1
            self._stuck.set()
        if error.details:
            return {
                i: (int(detail.canonical_code), detail.message or detail.canonical_code.name)
                for i, detail in error.details.items()
            }
        return dict.fromkeys(range(updates), (int(error.code), explain(error)))


def explain(error: P4ClientError) -> str:
    """A P4Runtime error in one line."""
    return f"{error.code.name}: {error.message}".replace("\n", " ")


def _election_id(value: p4r.Uint128) -> int:
    return int(value.high) << 64 | int(value.low)
