"""The P4Runtime RPCs: what arrives over gRPC, handed to the device, errors as statuses."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from typing import Any

import grpc
from finsy.proto import p4r

from softnic.p4runtime.clients import Client
from softnic.p4runtime.device import Device
from softnic.p4runtime.errors import (
    GRPC_CODE,
    Code,
    P4RuntimeError,
    abort_batch,
    invalid,
    unimplemented,
)

_log = logging.getLogger(__name__)

API_VERSION = "1.4.0"
_MAX_READS = 16
"""Reads at a time: each holds a thread for as long as its client takes."""


class P4RuntimeService:
    """Serves one device; gRPC calls from its thread pool."""

    def __init__(self, device: Device) -> None:
        self._device = device
        self._reads = threading.BoundedSemaphore(_MAX_READS)

    def handler(self) -> grpc.GenericRpcHandler:
        """The RPCs by name. A Write stays as it is on the wire: native code reads it."""
        unary, stream = grpc.unary_unary_rpc_method_handler, grpc.unary_stream_rpc_method_handler
        both = grpc.stream_stream_rpc_method_handler
        methods: dict[str, grpc.RpcMethodHandler[Any, Any]] = {
            "Write": unary(self.write, None, p4r.WriteResponse.SerializeToString),
            "Read": stream(
                self.read, p4r.ReadRequest.FromString, p4r.ReadResponse.SerializeToString
            ),
            "SetForwardingPipelineConfig": unary(
                self.set_pipeline,
                p4r.SetForwardingPipelineConfigRequest.FromString,
                p4r.SetForwardingPipelineConfigResponse.SerializeToString,
            ),
            "GetForwardingPipelineConfig": unary(
                self.get_pipeline,
                p4r.GetForwardingPipelineConfigRequest.FromString,
                p4r.GetForwardingPipelineConfigResponse.SerializeToString,
            ),
            "Capabilities": unary(
                self.capabilities,
                p4r.CapabilitiesRequest.FromString,
                p4r.CapabilitiesResponse.SerializeToString,
            ),
            "StreamChannel": both(
                self.stream_channel,
                p4r.StreamMessageRequest.FromString,
                p4r.StreamMessageResponse.SerializeToString,
            ),
        }
        return grpc.method_handlers_generic_handler("p4.v1.P4Runtime", methods)

    def write(self, request: bytes, context: grpc.ServicerContext) -> p4r.WriteResponse:
        """Apply a batch of updates."""
        try:
            results = self._device.write(request)
        except P4RuntimeError as error:
            context.abort(GRPC_CODE[error.code], error.message)
        if any(results):
            abort_batch(context, "updates", results)
        return p4r.WriteResponse()

    def read(
        self, request: p4r.ReadRequest, context: grpc.ServicerContext
    ) -> Iterator[p4r.ReadResponse]:
        """Stream the entities asked for."""
        if not self._reads.acquire(blocking=False):
            context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, f"{_MAX_READS} reads are going on")
        try:
            responses, results = self._device.read(request)
            yield from responses
        except P4RuntimeError as error:
            context.abort(GRPC_CODE[error.code], error.message)
        finally:
            self._reads.release()
        if any(results):
            abort_batch(context, "read requests", results)

    def set_pipeline(
        self, request: p4r.SetForwardingPipelineConfigRequest, context: grpc.ServicerContext
    ) -> p4r.SetForwardingPipelineConfigResponse:
        """Verify, save or commit a pipeline."""
        try:
            self._device.set_pipeline(request)
        except P4RuntimeError as error:
            _log.warning("SetForwardingPipelineConfig refused: %s", error.message)
            context.abort(GRPC_CODE[error.code], error.message)
        return p4r.SetForwardingPipelineConfigResponse()

    def get_pipeline(
        self, request: p4r.GetForwardingPipelineConfigRequest, context: grpc.ServicerContext
    ) -> p4r.GetForwardingPipelineConfigResponse:
        """Return the pipeline's config, or the parts asked for."""
        try:
            config = self._device.get_pipeline(request)
        except P4RuntimeError as error:
            context.abort(GRPC_CODE[error.code], error.message)
        return p4r.GetForwardingPipelineConfigResponse(config=config)

    def capabilities(
        self, request: p4r.CapabilitiesRequest, context: grpc.ServicerContext
    ) -> p4r.CapabilitiesResponse:
        """Say which version of P4Runtime this is."""
        return p4r.CapabilitiesResponse(p4runtime_api_version=API_VERSION)

    def stream_channel(
        self,
        request_iterator: Iterator[p4r.StreamMessageRequest],
        context: grpc.ServicerContext,
    ) -> Iterator[p4r.StreamMessageResponse]:
        """Arbitration, packets and notifications; lives as long as its client."""
        try:
            client = self._device.clients.connect(context.cancel)
        except P4RuntimeError as error:
            context.abort(GRPC_CODE[error.code], error.message)
        reader = threading.Thread(
            target=self._take, args=(client, request_iterator), name="stream-reader", daemon=True
        )
        try:
            if not context.add_callback(client.outbox.close):
                return
            reader.start()
            yield from client.outbox
        except P4RuntimeError as error:
            context.abort(GRPC_CODE[error.code], error.message)
        finally:
            self._device.clients.leave(client)

    def _take(self, client: Client, requests: Iterator[p4r.StreamMessageRequest]) -> None:
        """The stream's other direction, in a thread of its own, until the client is done."""
        end: P4RuntimeError | None = P4RuntimeError(Code.INTERNAL, "the stream's reader failed")
        try:
            for request in requests:
                self._one(client, request)
            end = None
        except P4RuntimeError as error:
            end = error
        except grpc.RpcError:
            end = None  # the client broke the stream
        finally:
            client.outbox.close(end)

    def _one(self, client: Client, request: p4r.StreamMessageRequest) -> None:
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


def _stream_error(error: P4RuntimeError) -> p4r.StreamMessageResponse:
    return p4r.StreamMessageResponse(
        error=p4r.StreamError(
            canonical_code=error.code, message=error.message, space="softnic-v1model"
        )
    )
