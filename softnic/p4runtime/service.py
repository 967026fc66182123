"""The P4Runtime RPCs: what native code handed over, given to the device, errors as statuses."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping
from typing import ClassVar, TypeVar

from finsy.proto import p4r
from google.protobuf.message import DecodeError, Message

from softnic.p4runtime.clients import Client
from softnic.p4runtime.device import Device
from softnic.p4runtime.errors import Code, P4RuntimeError, batch_error, invalid, unimplemented
from softnic.p4runtime.front import Front, Handed, Kind, Method, Sent
from softnic.p4runtime.stream import Outbox

_log = logging.getLogger(__name__)

API_VERSION = "1.4.0"
MAX_READS = 16
"""Reads at a time: each holds a thread for as long as its client takes."""
_READ_AHEAD = 1 << 16
"""Bytes of a Read's answer that wait for its client."""

_M = TypeVar("_M", bound=Message)


class P4RuntimeService:
    """Serves one device. Calls may come from any thread, those of streams from one."""

    def __init__(self, device: Device, front: Front) -> None:
        self._device = device
        self._front = front
        self._reads = threading.BoundedSemaphore(MAX_READS)
        self._clients: dict[int, Client] = {}

    # -- calls -----------------------------------------------------------------------------

    def call(self, handed: Handed) -> None:
        """Do a call and end it."""
        try:
            body = self._METHODS[handed.method](self, handed)
        except P4RuntimeError as error:
            self._front.end(handed.call, error.code, error.message, error.details)
        else:
            self._front.end(handed.call, Code.OK, body=body)

    def _write(self, handed: Handed) -> bytes:
        if handed.kind is Kind.FAILED_WRITE:
            count, failed = handed.updates, handed.failed
            results = self._device.refusals(handed.generation, count, failed)
        else:
            results = self._device.write(handed.message())
        if any(results):
            raise batch_error("updates", results)
        return b""

    def _read(self, handed: Handed) -> bytes | None:
        request = _parsed(p4r.ReadRequest, handed)
        if not self._reads.acquire(blocking=False):
            raise P4RuntimeError(Code.RESOURCE_EXHAUSTED, f"{MAX_READS} reads are going on")
        try:
            responses, results = self._device.read(request)
            for response in responses:
                if self._front.send(handed.call, response.SerializeToString()) is not Sent.SENT:
                    return None
                if not self._front.wait(handed.call, _READ_AHEAD):
                    return None
        finally:
            self._reads.release()
        if any(results):
            raise batch_error("read requests", results)
        return None

    def _set_pipeline(self, handed: Handed) -> bytes:
        try:
            self._device.set_pipeline(_parsed(p4r.SetForwardingPipelineConfigRequest, handed))
        except P4RuntimeError as error:
            _log.warning("SetForwardingPipelineConfig refused: %s", error.message)
            raise
        return b""

    def _get_pipeline(self, handed: Handed) -> bytes:
        request = _parsed(p4r.GetForwardingPipelineConfigRequest, handed)
        config = self._device.get_pipeline(request)
        return p4r.GetForwardingPipelineConfigResponse(config=config).SerializeToString()

    def _capabilities(self, handed: Handed) -> bytes:
        _parsed(p4r.CapabilitiesRequest, handed)
        return p4r.CapabilitiesResponse(p4runtime_api_version=API_VERSION).SerializeToString()

    _METHODS: ClassVar[Mapping[Method, Callable[[P4RuntimeService, Handed], bytes | None]]] = {
        Method.WRITE: _write,
        Method.READ: _read,
        Method.SET_PIPELINE: _set_pipeline,
        Method.GET_PIPELINE: _get_pipeline,
        Method.CAPABILITIES: _capabilities,
    }

    # -- streams ---------------------------------------------------------------------------

    def stream(self, handed: Handed) -> None:
        """Take what became of a stream, or a message of it; an error ends the stream."""
        try:
            self._EVENTS[handed.kind](self, handed)
        except P4RuntimeError as error:
            self._front.end(handed.call, error.code, error.message)

    def _opened(self, handed: Handed) -> None:
        outbox = Outbox(self._front, handed.call, self._device.drops)
        self._clients[handed.call] = self._device.clients.connect(outbox)

    def _half_closed(self, handed: Handed) -> None:
        self._front.end(handed.call, Code.OK)

    def _closed(self, handed: Handed) -> None:
        client = self._clients.pop(handed.call, None)
        if client is not None:
            self._device.clients.leave(client)

    def _message(self, handed: Handed) -> None:
        client = self._clients.get(handed.call)
        if client is None:
            return  # it was refused
        request = _parsed(p4r.StreamMessageRequest, handed)
        match request.WhichOneof("update"):
            case "packet":
                self._packet_out(client, request.packet)
            case "arbitration":
                self._device.clients.arbitrate(client, request.arbitration)
            case "digest_ack":
                self._digest_ack(client, request.digest_ack)
            case _:
                error = unimplemented("this target takes no architecture-specific messages")
                message = _stream_error(error)
                message.error.other.other.CopyFrom(request.other)
                client.outbox.put(message)

    _EVENTS: ClassVar[Mapping[Kind, Callable[[P4RuntimeService, Handed], None]]] = {
        Kind.OPENED: _opened,
        Kind.MESSAGE: _message,
        Kind.HALF_CLOSED: _half_closed,
        Kind.CLOSED: _closed,
    }

    def _packet_out(self, client: Client, packet: p4r.PacketOut) -> None:
        try:
            pipeline = self._device.pipeline
            if not self._device.clients.is_primary(client):
                raise P4RuntimeError(
                    Code.PERMISSION_DENIED, "only the primary sends packet-outs, this is none"
                )
            if pipeline is None:
                raise P4RuntimeError(Code.FAILED_PRECONDITION, "no pipeline is set")
            frame = pipeline.packet_out.encode(packet)
            try:
                self._device.dp.packet_out(frame)
            except ValueError as error:
                raise invalid(f"packet-out: {error}") from error
        except P4RuntimeError as error:
            self._device.drops.count(f"packet-out refused: {error.code.name}")
            message = _stream_error(error)
            message.error.packet_out.packet_out.CopyFrom(packet)
            client.outbox.put(message)

    def _digest_ack(self, client: Client, ack: p4r.DigestListAck) -> None:
        try:
            if not self._device.clients.is_primary(client):
                raise P4RuntimeError(Code.PERMISSION_DENIED, "only the primary acknowledges")
            pipeline = self._device.pipeline
            if pipeline is None:
                raise P4RuntimeError(Code.FAILED_PRECONDITION, "no pipeline is set")
            pipeline.digests.acknowledge(ack)
        except P4RuntimeError as error:
            message = _stream_error(error)
            message.error.digest_list_ack.digest_list_ack.CopyFrom(ack)
            client.outbox.put(message)


def _parsed(kind: type[_M], handed: Handed) -> _M:
    try:
        return kind.FromString(handed.message())
    except DecodeError as error:
        raise P4RuntimeError(
            Code.INTERNAL, f"the request is no {kind.DESCRIPTOR.full_name}: {error}"
        ) from error


def _stream_error(error: P4RuntimeError) -> p4r.StreamMessageResponse:
    return p4r.StreamMessageResponse(
        error=p4r.StreamError(
            canonical_code=error.code, message=error.message, space="softnic-v1model"
        )
    )
