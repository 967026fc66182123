"""One P4Runtime device: connection, arbitration, pipeline, packet-in and packet-out, writes.

    connect -> arbitrate -> (push the program, if it is not there) -> reconcile -> ready
       ^                                                                            |
       +------------------------- back-off <------------------ stream broken -------+

Packets and Writes have a connection of their own (`grpc_link`), where each costs little; reads and
the program, which are rare and large, go by grpc.aio.

Arbitration: the highest election id is primary, and the default id is the time, so that a
restarted daemon takes over from the dead one. A daemon that finds a newer one in charge waits.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter, deque
from collections.abc import AsyncIterator, Callable, Iterable
from enum import Enum
from typing import Protocol

import grpc
from finsy import GRPCStatusCode, P4Client, P4ClientError
from finsy.proto import p4r, p4r_grpc, rpc_code, rpc_status
from google.protobuf.message import DecodeError, Message

from dysco.controller.config import DeviceConfig, endpoint
from dysco.controller.grpc_link import Code, Link, Reply, Stream
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
_SERVICE = "/p4.v1.P4Runtime/"


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

    def about_to_send(self) -> None:
        """Packet-outs and Writes are about to leave: what must be kept before them is kept now."""


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
        self._link: Link | None = None
        self._stream: Stream | None = None
        self._ended: asyncio.Future[str] | None = None
        """Why the stream ended."""
        self._write_head = b""
        """What every WriteRequest begins with, until the next bid."""
        self._templates: dict[tuple[int, int], p4r.StreamMessageRequest] = {}
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
        except OSError as error:
            self._lost(f"UNAVAILABLE: {error}")
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
        self._primary.clear()
        self._stuck.clear()
        client = P4Client(self.config.address, wait_for_ready=False)
        loop = asyncio.get_running_loop()
        self._ended = loop.create_future()
        async with asyncio.timeout(CONNECT_TIMEOUT):
            link = await Link.open(endpoint(self.config.address), self._handler.about_to_send)
        self._link = link
        link.on_taken = self.writer.dispatch
        try:
            await client.open(complete_request=self._complete)
            self._client = client
            self._stream = link.stream(
                _SERVICE + "StreamChannel", self._received, self._stream_ended
            )
            async with asyncio.timeout(CONNECT_TIMEOUT):
                self._bid()
                answered = asyncio.ensure_future(self._changed.wait())
                try:
                    await asyncio.wait((answered, self._ended), return_when=asyncio.FIRST_COMPLETED)
                finally:
                    answered.cancel()
            async with asyncio.TaskGroup() as group:
                group.create_task(self._until_ended())
                group.create_task(self._serve(client))
                group.create_task(self._watch())
        except ExceptionGroup as errors:
            raise errors.exceptions[0] from None
        finally:
            self._client = self._stub = None
            self._stream = self._link = None
            self._early.clear()
            self.writer.stop(f"device {self.config.name} is not connected")
            self._handler.down()
            link.close("the controller left")
            await client.close()

    async def _until_ended(self) -> None:
        assert self._ended is not None
        raise DeviceError(await self._ended)

    def _stream_ended(self, reply: Reply) -> None:
        if self._ended is not None and not self._ended.done():
            name = GRPCStatusCode(reply.code).name
            self._ended.set_result(f"{name}: {reply.message or 'the device closed the stream'}")

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
            self._set_state(State.RECONCILING, self._last_problem or "being reconciled")
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

    def _bid(self) -> None:
        device, bid = self.config.device_id, self._uint128()
        self._write_head = p4r.WriteRequest(device_id=device, election_id=bid).SerializeToString()
        update = p4r.MasterArbitrationUpdate(device_id=device, election_id=bid)
        if self._stream is not None:
            self._stream.send(p4r.StreamMessageRequest(arbitration=update).SerializeToString())

    def _uint128(self) -> p4r.Uint128:
        return p4r.Uint128(high=self._election_id >> 64, low=self._election_id & (1 << 64) - 1)

    def _complete(self, request: Message) -> None:
        if isinstance(request, p4r.WriteRequest | p4r.SetForwardingPipelineConfigRequest):
            request.election_id.CopyFrom(self._uint128())

    def _received(self, data: bytes) -> None:
        """A message of the stream."""
        try:
            self._message(p4r.StreamMessageResponse.FromString(data))
        except Exception:
            # The bulkhead: whatever one message does, all other sessions go on.
            self.counters["packet_in_failed"] += 1
            log.exception("device %s: a message failed; please report this", self.config.name)

    def _message(self, message: p4r.StreamMessageResponse) -> None:
        kind = message.WhichOneof("update")
        if kind == "packet":
            if self.state is State.READY:
                self._handler.packet_in(message.packet)
            elif self.state is State.RECONCILING and len(self._early) < MAX_EARLY:
                self._early.append(message.packet)
            else:
                self.counters["packet_in_not_ready"] += 1
        elif kind == "idle_timeout_notification":
            self._handler.idle(message.idle_timeout_notification.table_entry)
        elif kind == "arbitration":
            self._arbitrated(message.arbitration)
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

    def _arbitrated(self, update: p4r.MasterArbitrationUpdate) -> None:
        if update.status.code == rpc_code.OK:
            self._primary.set()
        elif update.status.code == rpc_code.NOT_FOUND:
            # No primary: the higher bid is gone, but a bid below it would not win. Several that
            # wait do this at once: by strides of their own they don't bid the same.
            highest = max(self._election_id, _election_id(update.election_id))
            self._election_id = highest + self._stride
            self._bid()
        else:
            self._primary.clear()
        self._changed.set()
        self._changed = asyncio.Event()

    def packet_out(self, port: int, submit: int, frame: bytes) -> None:
        """Put a frame into the pipeline; dropped and counted while the device is not ready."""
        stream = self._stream
        if stream is None or self.state not in (State.READY, State.RECONCILING):
            self.counters["packet_out_not_ready"] += 1
            return
        if not stream.has_room:
            self.counters["packet_out_overflow"] += 1
            return
        request = p4r.StreamMessageRequest()
        request.CopyFrom(self._template(port, submit))
        request.packet.payload = frame
        stream.send(request.SerializeToString())

    def _template(self, port: int, submit: int) -> p4r.StreamMessageRequest:
        """A packet-out without its frame: there are few of them."""
        made = self._templates.get((port, submit))
        if made is None:
            ids = self.pipeline.metadata["packet_out"]
            values = {ids["port"]: port, ids["submit"]: submit}
            metadata = [
                p4r.PacketMetadata(metadata_id=number, value=packed(value))
                for number, value in values.items()
            ]
            made = p4r.StreamMessageRequest(packet=p4r.PacketOut(metadata=metadata))
            self._templates[port, submit] = made
        return made

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

    def _write(self, updates: list[p4r.Update], done: Callable[[Errors], None]) -> None:
        """One Write; `done` gets errors by index of the update: (canonical code, text)."""
        link, count = self._link, len(updates)
        if link is None:
            reason = f"device {self.config.name} is not connected"
            done(dict.fromkeys(range(count), (int(rpc_code.UNAVAILABLE), reason)))
            return

        def answered(reply: Reply) -> None:
            done(self._write_errors(reply, count) if reply.code else {})

        # Messages that are joined merge (protobuf encoding, "Last One Wins"): no copy of updates.
        request = self._write_head + p4r.WriteRequest(updates=updates).SerializeToString()
        link.call(_SERVICE + "Write", request, WRITE_TIMEOUT, answered)

    def _write_errors(self, reply: Reply, updates: int) -> Errors:
        if reply.code == Code.DEADLINE_EXCEEDED:
            # What it took of this is unknown: the next reconciliation will see.
            self.counters["write_timeout"] += 1
            self._stuck.set()
        details = _details(reply.details)
        if details:
            return {i: error for i, error in details.items() if i < updates}
        name = GRPCStatusCode(reply.code).name
        return dict.fromkeys(range(updates), (reply.code, f"{name}: {reply.message}"))


def _details(data: bytes) -> Errors:
    """The updates that failed, of the status of a Write (P4Runtime 1.4, 12.3)."""
    errors: Errors = {}
    try:
        for index, detail in enumerate(rpc_status.Status.FromString(data).details):
            error = p4r.Error()
            if detail.Unpack(error) and error.canonical_code:
                code = error.canonical_code
                errors[index] = code, error.message or GRPCStatusCode(code).name
    except DecodeError:
        return {}
    return errors


def explain(error: P4ClientError) -> str:
    """A P4Runtime error in one line."""
    return f"{error.code.name}: {error.message}".replace("\n", " ")


def _election_id(value: p4r.Uint128) -> int:
    return int(value.high) << 64 | int(value.low)
