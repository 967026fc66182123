"""The gRPC server around the service: address, TLS, limits, start and stop."""

from __future__ import annotations

from concurrent import futures
from dataclasses import dataclass
from pathlib import Path

import grpc

from softnic.p4runtime.device import Device
from softnic.p4runtime.notifier import Notifier
from softnic.p4runtime.service import P4RuntimeService

_MAX_MESSAGE = 128 << 20
"""Bytes of one message: a program's JSON may exceed gRPC's 4 MiB."""
_THREADS = 64
"""Bound of the pool: more than all streams and reads together, so that writes find one."""
_MAX_CALLS = 128
"""Calls of one connection at a time; more wait at the client."""
_OPTIONS = (
    ("grpc.max_concurrent_streams", _MAX_CALLS),
    ("grpc.http.overload_protection", 0),  # else calls at the limit are refused, not held back
    ("grpc.max_receive_message_length", _MAX_MESSAGE),
    ("grpc.so_reuseport", 0),  # two devices on one address must fail, not share it
    ("grpc.keepalive_time_ms", 10_000),  # a primary that vanished must make room
    ("grpc.keepalive_timeout_ms", 5_000),
    ("grpc.http2.min_ping_interval_without_data_ms", 1_000),
    ("grpc.keepalive_permit_without_calls", 1),
)


class BindError(OSError):
    """The server can't listen on its address."""


@dataclass(frozen=True, slots=True)
class Tls:
    """Files of a TLS server, PEM."""

    cert: Path
    key: Path
    ca: Path | None = None
    client_auth: bool = False

    def credentials(self) -> grpc.ServerCredentials:
        """Read the files; OSError if one is missing."""
        return grpc.ssl_server_credentials(
            [(self.key.read_bytes(), self.cert.read_bytes())],
            root_certificates=self.ca.read_bytes() if self.ca else None,
            require_client_auth=self.client_auth,
        )


class Server:
    """Serves a device on one address."""

    def __init__(self, device: Device, address: str, tls: Tls | None = None) -> None:
        """Bind at once: `address` is HOST:PORT (port 0: a free one) or unix:PATH."""
        self._device = device
        self._notifier = Notifier(device)
        self._grpc = grpc.server(
            futures.ThreadPoolExecutor(_THREADS, thread_name_prefix="rpc"), options=_OPTIONS
        )
        self._grpc.add_generic_rpc_handlers((P4RuntimeService(device).handler(),))
        try:
            if tls is None:
                port = self._grpc.add_insecure_port(address)
            else:
                port = self._grpc.add_secure_port(address, tls.credentials())
        except RuntimeError as error:
            raise BindError(f"can't listen on {address}: {error}") from error
        self.address = _with_port(address, port)

    def start(self) -> None:
        """Begin to serve."""
        self._notifier.start()
        self._grpc.start()

    def stop(self, grace_s: float = 1.0) -> None:
        """End streams and serving; the data plane stays the caller's."""
        self._device.clients.close()
        self._grpc.stop(grace_s).wait(grace_s + 1)
        self._notifier.stop()


def _with_port(address: str, port: int) -> str:
    """The address with the port that was picked in place of 0."""
    if address.startswith("unix:"):
        return address
    host, _, asked = address.rpartition(":")
    return f"{host}:{port}" if asked == "0" else address
