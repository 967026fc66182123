"""The server in native code (softnic/server/), as Python's handlers see it.

client <--gRPC--> softnic/server/  --take--> handlers (service.py) --send, end--> client
                      '-- plain Writes, packet-outs and packet-ins: done there, by what
                          `show_roles` and `show_pipeline` said last
"""

from __future__ import annotations

import ctypes
import threading
import zlib
from collections.abc import Iterable
from ctypes import POINTER, c_char_p, c_int, c_uint32, c_uint64, c_void_p
from dataclasses import dataclass
from enum import IntEnum, IntFlag
from functools import cache
from pathlib import Path

from softnic import wire
from softnic.build import server_object
from softnic.clib import runtime
from softnic.dataplane import Status
from softnic.p4runtime.arbitration import RoleView
from softnic.p4runtime.errors import Code, P4RuntimeError
from softnic.p4runtime.pipeline import Pipeline
from softnic.p4runtime.schema import ControllerHeader

MAX_MESSAGE = 128 << 20
"""Bytes of one message, `MAX_MESSAGE` of softnic/server/server.h."""
UNLIMITED = 0xFFFFFFFF
_WHY = 512
_INFLATE_ANY = 32 + zlib.MAX_WBITS
"""zlib finds out by itself whether it is gzip or deflate."""

LOSSES = (
    "slow client: packet",
    "packet-in without a primary",
    "packet-in shorter than its header",
    "event without a pipeline",
    "connection refused: too many",
    "out of memory",
)
"""In the order of `enum loss` (softnic/server/server.h)."""


class BindError(OSError):
    """The server can't listen on its address."""


class Method(IntEnum):
    """The RPCs, in the order of `enum method`."""

    WRITE = 0
    READ = 1
    SET_PIPELINE = 2
    GET_PIPELINE = 3
    CAPABILITIES = 4
    STREAM_CHANNEL = 5


class Queue(IntEnum):
    """Where what is handed over waits, in the order of `enum queue`."""

    STREAMS = 0
    WRITES = 1
    CALLS = 2
    PUSHES = 3


class Kind(IntEnum):
    """What is handed over, in the order of `enum kind`."""

    CALL = 0
    FAILED_WRITE = 1
    OPENED = 2
    MESSAGE = 3
    HALF_CLOSED = 4
    CLOSED = 5


class Sent(IntEnum):
    """What became of a message, in the order of `enum sent`."""

    SENT = 0
    DROPPED = 1
    BROKEN = 2
    GONE = 3


class _RoleFlag(IntFlag):
    HAS_PRIMARY = 1
    WRITES_ALL = 2
    TAKES_PACKET_INS = 4
    FILTERS = 8


class _Item(ctypes.Structure):
    _fields_ = (
        ("next", c_void_p),
        ("call", c_uint64),
        ("kind", c_uint32),
        ("method", c_uint32),
        ("compressed", c_uint32),
        ("n", c_uint32),
        ("data", c_void_p),
        ("len", c_uint64),
        ("status", c_void_p),
        ("spans", POINTER(c_uint64)),
        ("generation", c_uint64),
    )


@dataclass(frozen=True, slots=True)
class Tls:
    """Files of a TLS server, PEM."""

    cert: Path
    key: Path
    ca: Path | None = None
    client_auth: bool = False


@dataclass(frozen=True, slots=True)
class Handed:
    """Something to be done: a call, a message of a stream, or what became of a stream."""

    item: int
    """Its address; `Front.done` takes it back."""
    call: int
    kind: Kind
    method: Method
    data: bytes
    is_compressed: bool
    failed: list[tuple[int, Status, bytes]]
    """Of a failed Write: index, status and bytes of each update that failed."""
    updates: int
    generation: int
    """The number that `show_pipeline` gave the pipeline that it was written to."""

    def message(self) -> bytes:
        """The request, inflated where the client compressed it; RESOURCE_EXHAUSTED, INTERNAL."""
        if not self.is_compressed:
            return self.data
        inflate = zlib.decompressobj(_INFLATE_ANY)
        try:
            data = inflate.decompress(self.data, MAX_MESSAGE)
        except zlib.error as error:
            raise P4RuntimeError(
                Code.INTERNAL, f"the message can't be inflated: {error}"
            ) from error
        if inflate.unconsumed_tail:
            raise P4RuntimeError(
                Code.RESOURCE_EXHAUSTED, f"the message has more than {MAX_MESSAGE} bytes"
            )
        return data


_SIGNATURES: dict[str, tuple[object, list[object]]] = {
    "sn_server_new": (
        c_void_p,
        [c_void_p, c_char_p, c_char_p, c_char_p, c_char_p, c_int, c_char_p, c_uint64],
    ),
    "sn_server_port": (c_int, [c_void_p]),
    "sn_server_start": (c_int, [c_void_p]),
    "sn_server_stop": (None, [c_void_p, c_uint64]),
    "sn_server_free": (None, [c_void_p]),
    "sn_server_take": (c_void_p, [c_void_p, c_uint32]),
    "sn_server_done": (None, [c_void_p, c_void_p]),
    "sn_server_send": (c_int, [c_void_p, c_uint64, c_char_p, c_uint64, c_uint32, c_int]),
    "sn_server_wait": (c_int, [c_void_p, c_uint64, c_uint64]),
    "sn_server_end": (
        None,
        [
            c_void_p,
            c_uint64,
            c_char_p,
            c_uint64,
            c_int,
            c_char_p,
            c_uint64,
            c_char_p,
            c_uint64,
        ],
    ),
    "sn_server_roles": (c_int, [c_void_p, c_uint32, POINTER(c_uint64), c_char_p, c_uint64]),
    "sn_server_pipeline": (
        c_int,
        [c_void_p, c_uint64, c_uint64, c_int, c_void_p, POINTER(c_uint32)],
    ),
    "sn_server_counts": (None, [c_void_p, POINTER(c_uint64)]),
}


@cache
def _library() -> ctypes.CDLL:
    runtime()  # it finds the runtime's functions by name
    lib = ctypes.CDLL(str(server_object()), mode=ctypes.RTLD_LOCAL)
    for name, (result, arguments) in _SIGNATURES.items():
        function = getattr(lib, name)
        function.restype = result
        function.argtypes = arguments
    return lib


class Front:
    """One server of one device; any thread."""

    def __init__(self, device: int, address: str, tls: Tls | None) -> None:
        """Listen at once on HOST:PORT (port 0: a free one) or unix:PATH. BindError says why not."""
        self._lib = _library()
        why = ctypes.create_string_buffer(_WHY)
        files: list[bytes | None] = [None, None, None]
        if tls is not None:
            files = [_path(tls.cert), _path(tls.key), _path(tls.ca)]
        self._server: int | None = self._lib.sn_server_new(
            device, address.encode(), *files, int(tls is not None and tls.client_auth), why, _WHY
        )
        if not self._server:
            raise BindError(f"can't listen on {address}: {why.value.decode(errors='replace')}")
        self._freeing = threading.Lock()
        """Who asks for counts may do so at any time."""
        self.port: int = self._lib.sn_server_port(self._server)
        self._plan: object = None
        """What the server reads Writes with, kept as long as it may."""

    def start(self) -> None:
        """Begin to serve."""
        if self._lib.sn_server_start(self._server) != 0:
            raise BindError("can't serve: there is no thread for it")

    def stop(self, grace_s: float) -> None:
        """End streams and serving; those who wait in `take` come back with None."""
        self._lib.sn_server_stop(self._server, int(grace_s * 1e9))

    def free(self) -> None:
        """After `stop`, when no other thread uses this any more."""
        with self._freeing:
            server, self._server = self._server, None
        self._lib.sn_server_free(server)

    def take(self, queue: Queue) -> Handed | None:
        """Wait for the next of a queue; None: the server has stopped."""
        address: int | None = self._lib.sn_server_take(self._server, queue)
        if not address:
            return None
        item = _Item.from_address(address)
        data = ctypes.string_at(item.data, item.len) if item.data else b""
        failed: list[tuple[int, Status, bytes]] = []
        if item.n:
            status = ctypes.string_at(item.status, item.n)
            failed = wire.failures(data, status, item.spans)
        return Handed(
            address,
            item.call,
            Kind(item.kind),
            Method(item.method),
            data,
            bool(item.compressed),
            failed,
            item.n,
            item.generation,
        )

    def done(self, handed: Handed) -> None:
        """Give back what `take` gave; the client of a stream may send more then."""
        self._lib.sn_server_done(self._server, handed.item)

    def send(
        self, call: int, message: bytes, limit: int = UNLIMITED, *, must: bool = False
    ) -> Sent:
        """Queue a message; where `limit` wait it is dropped, or with `must` the call ends."""
        return Sent(
            self._lib.sn_server_send(self._server, call, message, len(message), limit, must)
        )

    def wait(self, call: int, size: int) -> bool:
        """Wait until at most `size` bytes of a call are queued; False: it ended."""
        return Sent(self._lib.sn_server_wait(self._server, call, size)) is Sent.SENT

    def end(
        self, call: int, code: Code, text: str = "", details: bytes = b"", body: bytes | None = None
    ) -> None:
        """End a call after what is queued, and after `body`."""
        words = text.encode()
        self._lib.sn_server_end(
            self._server,
            call,
            body,
            len(body or b""),
            code,
            words,
            len(words),
            details,
            len(details),
        )

    def show_roles(self, roles: Iterable[tuple[RoleView, int]]) -> None:
        """Say who is primary: each role with its primary's call. Writes by older ones are over."""
        words: list[int] = []
        names = bytearray()
        count = 0
        for role, call in roles:
            config = role.config
            filter_id, value = config.packet_in_filter or (0, b"")
            flags = _RoleFlag(0)
            if role.primary_id is not None:
                flags |= _RoleFlag.HAS_PRIMARY
            if config.ids is None:
                flags |= _RoleFlag.WRITES_ALL
            if config.receives_packet_ins:
                flags |= _RoleFlag.TAKES_PACKET_INS
            if config.packet_in_filter is not None:
                flags |= _RoleFlag.FILTERS
            name, number = role.name.encode(), role.primary_id or 0
            low = number & 0xFFFFFFFFFFFFFFFF
            words += [call, number >> 64, low, flags, filter_id, len(name), len(value)]
            names += name + value
            count += 1
        array = (c_uint64 * max(len(words), 1))(*words)
        if self._lib.sn_server_roles(self._server, count, array, bytes(names), len(names)) != 0:
            raise MemoryError("no memory for the roles")

    def show_pipeline(
        self, device_id: int, generation: int, pipeline: Pipeline | None, *, may_write: bool
    ) -> None:
        """Say what runs; `generation` comes back with Writes that failed."""
        array = None
        plan = None if pipeline is None else pipeline.plan
        if pipeline is not None:
            words = [*_header(pipeline.schema.packet_in), *_header(pipeline.schema.packet_out)]
            array = (c_uint32 * len(words))(*words)
        address = plan.address if isinstance(plan, wire.NativePlan) else None
        if self._lib.sn_server_pipeline(
            self._server, device_id, generation, may_write, address, array
        ):
            raise MemoryError("no memory for the pipeline's headers")
        self._plan = plan

    def losses(self) -> dict[str, int]:
        """What was lost here since the start, by reason."""
        return {name: n for name, n in zip(LOSSES, self._counts(), strict=False) if n}

    def held(self) -> int:
        """Bytes of requests that came and are not done."""
        return self._counts()[len(LOSSES)]

    def _counts(self) -> list[int]:
        values = (c_uint64 * (len(LOSSES) + 1))()
        with self._freeing:
            if self._server:
                self._lib.sn_server_counts(self._server, values)
        return list(values)


def _path(path: Path | None) -> bytes | None:
    return None if path is None else bytes(path)


def _header(header: ControllerHeader) -> list[int]:
    words = [header.size, len(header.fields)]
    for f in header.fields:
        words += [f.id, f.bits, f.shift, f.is_padding]
    return words
