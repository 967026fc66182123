"""gRPC over one HTTP/2 connection, as far as P4Runtime needs it: made for many small messages.

    call(method, message)  == HEADERS, DATA ==>    <== HEADERS, DATA, HEADERS ==   done(Reply)
    stream(method).send(message)   == DATA ==>     <== DATA ==                     on_message(bytes)

What one wake-up of the event loop asks for leaves in one system call, and what has arrived is
handed on in one go, without a task or a queue for each message: a message costs some microseconds
here, where grpc.aio takes a hundred. Header blocks are ready-made, and the peer is allowed no
header table (`header_block`). RFC 9113 and the gRPC-over-HTTP/2 protocol say the rest; TLS, server
push, compression and priorities are none of it.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import struct
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from urllib.parse import unquote_to_bytes

from dysco.controller import header_block
from dysco.controller.header_block import HeaderError

MAX_QUEUED = 2048
"""Messages that wait for the end of the wake-up, or for the peer; see `Stream.has_room`."""
MAX_BLOCK = 1 << 16
"""Bytes of a header block."""
MAX_MESSAGE = 64 << 20
PING_EVERY = 10.0
"""Seconds; a peer that leaves one ping without an answer until the next is gone."""

_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_FRAME = struct.Struct("!HBBBL")
_MESSAGE = struct.Struct("!BL")
_SETTING = struct.Struct("!HL")
_WINDOW = (1 << 31) - 1
_DEFAULT_WINDOW = 65535
_REFRESH = 1 << 29
"""Bytes taken from the peer before it is told that it may send as many again."""
_STREAM_BITS = 0x7FFFFFFF


class _Kind(IntEnum):
    DATA = 0
    HEADERS = 1
    RST_STREAM = 3
    SETTINGS = 4
    PUSH_PROMISE = 5
    PING = 6
    GOAWAY = 7
    WINDOW_UPDATE = 8
    CONTINUATION = 9


_END_STREAM, _ACK, _END_HEADERS, _PADDED, _PRIORITY = 1, 1, 4, 8, 32
_TABLE_SIZE, _PUSH, _INITIAL_WINDOW, _FRAME_SIZE = 1, 2, 4, 5
_CANCEL = 8

OK, CANCELLED, UNKNOWN, DEADLINE_EXCEEDED, UNIMPLEMENTED, INTERNAL, UNAVAILABLE = (
    0,
    1,
    2,
    4,
    12,
    13,
    14,
)
"""gRPC's status codes that are given here."""


@dataclass(frozen=True, slots=True)
class Reply:
    """How a call ended."""

    code: int
    message: str = ""
    details: bytes = b""
    """A google.rpc.Status, if the peer sent one."""
    body: bytes = b""


class LinkError(Exception):
    """The connection can't be used any more; the text says why."""


class Stream:
    """One call, in both directions."""

    __slots__ = (
        "_link",
        "_partial",
        "_status",
        "done",
        "number",
        "on_message",
        "queue",
        "taken",
        "window",
    )

    def __init__(
        self,
        link: Link,
        number: int,
        on_message: Callable[[bytes], None],
        done: Callable[[Reply], None],
    ) -> None:
        self.number = number
        self.on_message = on_message
        self.done = done
        self.window = link.first_window
        """Bytes that the peer takes on this stream."""
        self.queue: deque[tuple[bytes, bool]] = deque()
        """Messages, or what is left of them, that wait for the peer; True: the last one."""
        self.taken = 0
        """Bytes that came, and that the peer was not yet told it may send again."""
        self._link = link
        self._partial = b""
        self._status: Reply | None = None

    @property
    def has_room(self) -> bool:
        """False while too much waits for the peer."""
        return len(self.queue) + self._link.unsent < MAX_QUEUED

    def send(self, message: bytes, *, last: bool = False) -> None:
        """A message; it leaves at the end of this wake-up."""
        if not self._link.closed:
            self._link.send(self, _MESSAGE.pack(0, len(message)) + message, last)

    def cancel(self) -> None:
        """Nothing of it is wanted any more; `done` is not called."""
        self._link.cancel(self)

    def take(self, data: bytes) -> None:
        """Bytes of messages. Raises LinkError."""
        if self._partial:
            data = self._partial + data
        at, size = 0, len(data)
        while size - at >= _MESSAGE.size:
            packed, length = _MESSAGE.unpack_from(data, at)
            if packed or length > MAX_MESSAGE:
                raise LinkError(f"a message of {length} bytes, compressed {packed}")
            end = at + _MESSAGE.size + length
            if end > size:
                break
            self.on_message(data[at + _MESSAGE.size : end])
            at = end
        self._partial = data[at:]

    def headers(self, block: bytes, *, last: bool) -> None:
        """The answer's begin or its end. Raises LinkError."""
        try:
            found = header_block.decode(block)
        except HeaderError as error:
            raise LinkError(f"a header block: {error}") from error
        if "grpc-status" in found:
            self._status = _status(found)
        elif found.get(":status", b"200") != b"200":
            text = f"HTTP status {found[':status'].decode(errors='replace')}"
            self._status = Reply(UNAVAILABLE, text)
        if last:
            self.end()

    def end(self) -> None:
        """The peer sends no more."""
        self._link.forget(self)
        self.done(self._status or Reply(INTERNAL, "the answer ended without a status"))


def _status(found: dict[str, bytes]) -> Reply:
    text = found["grpc-status"]
    code = int(text) if text.isdigit() else UNKNOWN
    message = unquote_to_bytes(found.get("grpc-message", b"")).decode(errors="replace")
    details = found.get("grpc-status-details-bin", b"")
    return Reply(code, message, _base64(details))


def _base64(text: bytes) -> bytes:
    """Binary metadata; padding may be left out."""
    try:
        return base64.b64decode(text + b"=" * (-len(text) % 4))
    except binascii.Error:
        return b""


class Link(asyncio.Protocol):
    """One connection to a gRPC server."""

    def __init__(self, authority: str, before_sending: Callable[[], None]) -> None:
        """`before_sending` is called at the end of a wake-up in which something is to be sent."""
        self.first_window = _DEFAULT_WINDOW
        self.is_draining = True
        """False while the operating system takes no more."""
        self.closed = ""
        """Why, once it is."""
        self._authority = authority
        self._before_sending = before_sending
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._out: list[bytes] = []
        self._flushing = False
        self._buffer = b""
        self._block: tuple[int, bytes, bool] | None = None
        """A header block that goes on: stream, what came of it, whether the stream ends."""
        self._streams: dict[int, Stream] = {}
        self._blocked: dict[int, Stream] = {}
        """Streams that have something to send and may not."""
        self._next = 1
        self._window = _DEFAULT_WINDOW
        self._max_frame = 16384
        self._taken = 0
        self._blocks: dict[str, bytes] = {}
        self._pinged = False
        self._ping: asyncio.TimerHandle | None = None
        self.on_taken: Callable[[], None] = lambda: None
        """Called when all that has arrived was handed on, before the answers leave."""

    @classmethod
    async def open(cls, where: tuple[str, int] | Path, before_sending: Callable[[], None]) -> Link:
        """Connect. Raises OSError."""
        loop = asyncio.get_running_loop()
        if isinstance(where, Path):
            _, link = await loop.create_unix_connection(
                lambda: cls("localhost", before_sending), str(where)
            )
            return link
        host, port = where
        authority = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        _, link = await loop.create_connection(lambda: cls(authority, before_sending), host, port)
        return link

    # What the caller asks for.

    @property
    def unsent(self) -> int:
        """Frames that leave at the end of this wake-up."""
        return len(self._out) // 2

    def stream(
        self, method: str, on_message: Callable[[bytes], None], done: Callable[[Reply], None]
    ) -> Stream:
        """Begin a call; `done` is called when the peer ends it, or the connection breaks."""
        stream = Stream(self, self._next, on_message, done)
        self._next += 2
        self._streams[stream.number] = stream
        block = self._blocks.get(method)
        if block is None:
            block = self._blocks[method] = header_block.encode(
                (
                    (":method", "POST"),
                    (":scheme", "http"),
                    (":path", method),
                    (":authority", self._authority),
                    ("te", "trailers"),
                    ("content-type", "application/grpc"),
                    ("user-agent", "grpc-dyscod"),
                )
            )
        self._frame(_Kind.HEADERS, _END_HEADERS, stream.number, block)
        return stream

    def call(
        self, method: str, message: bytes, seconds: float, done: Callable[[Reply], None]
    ) -> None:
        """One message there, one back; `done` is always called, at the latest after `seconds`."""
        if self.closed:
            self._loop.call_soon(done, Reply(UNAVAILABLE, self.closed))
            return
        body: list[bytes] = []

        def ended(reply: Reply) -> None:
            timer.cancel()
            if body and reply.code == OK:
                reply = Reply(OK, body=body[0])
            done(reply)

        def too_late() -> None:
            stream.cancel()
            done(Reply(DEADLINE_EXCEEDED, f"no answer within {seconds:g} s"))

        stream = self.stream(method, body.append, ended)
        timer = self._loop.call_later(seconds, too_late)
        stream.send(message, last=True)

    def send(self, stream: Stream, data: bytes, last: bool) -> None:
        """Bytes of a stream."""
        size = len(data)
        fits = size <= self._max_frame and size <= stream.window and size <= self._window
        if fits and not stream.queue and self.is_draining:
            stream.window -= size
            self._window -= size
            self._frame(_Kind.DATA, _END_STREAM if last else 0, stream.number, data)
            return
        if stream.number in self._streams:
            stream.queue.append((data, last))
            self._blocked[stream.number] = stream
            self._send_blocked()

    def cancel(self, stream: Stream) -> None:
        """The stream is not wanted any more."""
        if self._streams.pop(stream.number, None) is not None:
            self._blocked.pop(stream.number, None)
            self._frame(_Kind.RST_STREAM, 0, stream.number, _CANCEL.to_bytes(4, "big"))

    def forget(self, stream: Stream) -> None:
        """The peer has ended it."""
        self._streams.pop(stream.number, None)
        self._blocked.pop(stream.number, None)

    def flush(self) -> None:
        """Send what this wake-up asked for."""
        self._flushing = False
        if not self._out or self._transport is None or self.closed:
            return
        self._before_sending()
        data = b"".join(self._out)
        self._out.clear()
        self._transport.write(data)

    def close(self, why: str) -> None:
        """End it; calls and streams end with UNAVAILABLE."""
        if self._transport is not None:
            self._transport.abort()
        self._end(why)

    # Frames out.

    def _frame(self, kind: _Kind, flags: int, stream: int, payload: bytes) -> None:
        size = len(payload)
        self._out.append(_FRAME.pack(size >> 8, size & 0xFF, kind, flags, stream))
        self._out.append(payload)
        if not self._flushing:
            self._flushing = True
            self._loop.call_soon(self.flush)

    def _send_blocked(self) -> None:
        """What may go now, of what had to wait."""
        for stream in list(self._blocked.values()):
            while stream.queue and self.is_draining:
                data, last = stream.queue[0]
                size = min(len(data), stream.window, self._window, self._max_frame)
                if size <= 0:
                    break
                stream.window -= size
                self._window -= size
                whole = size == len(data)
                if whole:
                    stream.queue.popleft()
                else:
                    stream.queue[0] = data[size:], last
                flags = _END_STREAM if last and whole else 0
                self._frame(_Kind.DATA, flags, stream.number, data[:size])
            if not stream.queue:
                self._blocked.pop(stream.number, None)

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The preface: what we allow the peer."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._out.append(_PREFACE)
        settings = ((_TABLE_SIZE, 0), (_PUSH, 0), (_INITIAL_WINDOW, _WINDOW))
        self._frame(_Kind.SETTINGS, 0, 0, b"".join(_SETTING.pack(*one) for one in settings))
        self._widen(0, _WINDOW - _DEFAULT_WINDOW)
        self._ping = self._loop.call_later(PING_EVERY, self._ping_peer)

    def _ping_peer(self) -> None:
        if self._pinged:
            self.close(f"the peer answered no ping for {PING_EVERY:g} s")
            return
        self._pinged = True
        self._frame(_Kind.PING, 0, 0, bytes(8))
        self._ping = self._loop.call_later(PING_EVERY, self._ping_peer)

    def pause_writing(self) -> None:
        """The operating system takes no more for now."""
        self.is_draining = False

    def resume_writing(self) -> None:
        """It does again."""
        self.is_draining = True
        self._send_blocked()

    def data_received(self, data: bytes) -> None:
        """All whole frames, then the answers to them leave at once."""
        try:
            self._take(data)
        except LinkError as error:
            self.close(f"the peer broke the protocol: {error}")
            return
        self.on_taken()
        self.flush()

    def eof_received(self) -> bool:
        """The peer closed the connection."""
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """Everything on it is over."""
        self._end(f"the connection broke: {exc}" if exc else "the peer closed the connection")

    def _end(self, why: str) -> None:
        if self.closed:
            return
        self.closed = why
        self._transport = None
        self._out.clear()
        if self._ping is not None:
            self._ping.cancel()
        streams, self._streams = self._streams, {}
        self._blocked.clear()
        for stream in streams.values():
            stream.done(Reply(UNAVAILABLE, why))

    # Frames in.

    def _take(self, data: bytes) -> None:
        if self._buffer:
            data = self._buffer + data
        at, size = 0, len(data)
        while size - at >= _FRAME.size:
            high, low, kind, flags, number = _FRAME.unpack_from(data, at)
            begin = at + _FRAME.size
            end = begin + (high << 8 | low)
            if end > size:
                break
            self._one(kind, flags, number & _STREAM_BITS, data[begin:end])
            if self.closed:
                return
            at = end
        self._buffer = data[at:]

    def _one(self, kind: int, flags: int, number: int, payload: bytes) -> None:
        if self._block is not None and kind != _Kind.CONTINUATION:
            raise LinkError("a header block was left unfinished")
        match kind:
            case _Kind.DATA:
                self._data(flags, number, payload)
            case _Kind.WINDOW_UPDATE:
                self._wider(number, int.from_bytes(payload, "big") & _STREAM_BITS)
            case _Kind.HEADERS:
                block = _unpadded(flags, payload)[5 if flags & _PRIORITY else 0 :]
                self._headers(number, block, bool(flags & _END_STREAM), bool(flags & _END_HEADERS))
            case _Kind.CONTINUATION:
                self._continued(number, payload, bool(flags & _END_HEADERS))
            case _Kind.PING if flags & _ACK:
                self._pinged = False
            case _Kind.PING:
                self._frame(_Kind.PING, _ACK, 0, payload)
            case _Kind.SETTINGS if not flags & _ACK:
                self._settings(payload)
            case _Kind.RST_STREAM:
                self._reset(number, int.from_bytes(payload, "big"))
            case _Kind.GOAWAY:
                code, text = int.from_bytes(payload[4:8], "big"), payload[8:200]
                why = text.decode(errors="replace")
                self.close(f"the peer is going away: HTTP/2 error {code} {why}".rstrip())
            case _Kind.PUSH_PROMISE:
                raise LinkError("a push, which was not allowed")

    def _continued(self, number: int, payload: bytes, whole: bool) -> None:
        if self._block is None or self._block[0] != number:
            raise LinkError("a header block goes on that was not begun")
        _, begun, last = self._block
        self._block = None
        if len(begun) > MAX_BLOCK:
            raise LinkError("a header block without an end")
        self._headers(number, begun + payload, last, whole)

    def _reset(self, number: int, code: int) -> None:
        stream = self._streams.get(number)
        if stream is not None:
            self.forget(stream)
            stream.done(Reply(UNAVAILABLE, f"the peer reset the stream: HTTP/2 error {code}"))

    def _data(self, flags: int, number: int, payload: bytes) -> None:
        size = len(payload)
        self._taken += size
        if self._taken >= _REFRESH:
            self._widen(0, self._taken)
            self._taken = 0
        stream = self._streams.get(number)
        if stream is None:
            return
        stream.taken += size
        if stream.taken >= _REFRESH:
            self._widen(number, stream.taken)
            stream.taken = 0
        stream.take(_unpadded(flags, payload))
        if flags & _END_STREAM and number in self._streams:
            stream.end()

    def _headers(self, number: int, block: bytes, last: bool, whole: bool) -> None:
        if not whole:
            self._block = number, block, last
            return
        stream = self._streams.get(number)
        if stream is not None:
            stream.headers(block, last=last)

    def _widen(self, number: int, size: int) -> None:
        self._frame(_Kind.WINDOW_UPDATE, 0, number, size.to_bytes(4, "big"))

    def _wider(self, number: int, size: int) -> None:
        if not number:
            self._window += size
        elif (stream := self._streams.get(number)) is not None:
            stream.window += size
        self._send_blocked()

    def _settings(self, payload: bytes) -> None:
        for name, value in _SETTING.iter_unpack(payload[: len(payload) // 6 * 6]):
            if name == _INITIAL_WINDOW:
                for stream in self._streams.values():
                    stream.window += value - self.first_window
                self.first_window = value
            elif name == _FRAME_SIZE:
                self._max_frame = value
        self._frame(_Kind.SETTINGS, _ACK, 0, b"")
        self._send_blocked()


def _unpadded(flags: int, payload: bytes) -> bytes:
    if not flags & _PADDED:
        return payload
    if not payload or payload[0] >= len(payload):
        raise LinkError("more padding than there are bytes")
    return payload[1 : len(payload) - payload[0]]
