"""gRPC over one HTTP/2 connection, as far as P4Runtime needs it: made for many small messages.

    call(method, message)  == HEADERS, DATA ==>    <== HEADERS, DATA, HEADERS ==   done(Reply)
    stream(method).send(message)   == DATA ==>     <== DATA ==                     on_message(bytes)

HTTP/2 itself is h2's. What one wake-up of the event loop asks for leaves in one system call, the
messages of a stream in as few frames as they fit in, and what has arrived is handed on in one go:
no task, queue or frame of its own for each message, as grpc.aio has them. The gRPC-over-HTTP/2
protocol says the rest; TLS and compression are none of it.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import struct
from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from urllib.parse import unquote_to_bytes

from h2 import events
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.errors import ErrorCodes
from h2.exceptions import ProtocolError
from h2.settings import SettingCodes, Settings

MAX_QUEUED = 4 << 20
"""Bytes that wait for the end of the wake-up, or for the peer; see `Stream.has_room`."""
MAX_MESSAGE = 64 << 20
PING_EVERY = 10.0
"""Seconds; a peer that leaves one ping without an answer until the next is gone."""

_MESSAGE = struct.Struct("!BL")
_WINDOW = (1 << 31) - 1
_DEFAULT_WINDOW = 65535


class Code(IntEnum):
    """gRPC's status codes that are given here."""

    OK = 0
    UNKNOWN = 2
    DEADLINE_EXCEEDED = 4
    UNIMPLEMENTED = 12
    INTERNAL = 13
    UNAVAILABLE = 14


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

    __slots__ = ("_link", "_partial", "_status", "done", "last", "number", "on_message", "queue")

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
        self.queue = bytearray()
        """Messages that have not left."""
        self.last = False
        """Nothing comes after them."""
        self._link = link
        self._partial = b""
        self._status: Reply | None = None

    @property
    def has_room(self) -> bool:
        """False while too much waits for the peer."""
        return len(self.queue) < MAX_QUEUED

    def send(self, message: bytes, *, last: bool = False) -> None:
        """A message; it leaves at the end of this wake-up."""
        self.queue += _MESSAGE.pack(0, len(message))
        self.queue += message
        self.last = last
        self._link.wake(self)

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

    def headers(self, found: dict[bytes, bytes]) -> None:
        """The answer's begin, or its end."""
        if b"grpc-status" in found:
            self._status = _status(found)
        elif found.get(b":status", b"200") != b"200":
            text = f"HTTP status {found[b':status'].decode(errors='replace')}"
            self._status = Reply(Code.UNAVAILABLE, text)

    def end(self) -> None:
        """The peer sends no more."""
        self.done(self._status or Reply(Code.INTERNAL, "the answer ended without a status"))


def _status(found: dict[bytes, bytes]) -> Reply:
    text = found[b"grpc-status"]
    code = int(text) if text.isdigit() else Code.UNKNOWN
    message = unquote_to_bytes(found.get(b"grpc-message", b"")).decode(errors="replace")
    return Reply(code, message, _base64(found.get(b"grpc-status-details-bin", b"")))


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
        self.closed = ""
        """Why, once it is."""
        self.on_taken: Callable[[], None] = lambda: None
        """Called when all that has arrived was handed on, before the answers leave."""
        self._authority = authority
        self._before_sending = before_sending
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        # What is checked and set right of outgoing headers is ours, and right.
        self._http = H2Connection(
            H2Configuration(
                header_encoding=None,
                validate_outbound_headers=False,
                normalize_outbound_headers=False,
                validate_inbound_headers=False,
                normalize_inbound_headers=False,
            )
        )
        self._http.local_settings = Settings(
            initial_values={
                SettingCodes.ENABLE_PUSH: 0,
                SettingCodes.INITIAL_WINDOW_SIZE: _WINDOW,
            }
        )
        self._streams: dict[int, Stream] = {}
        self._awake: dict[int, Stream] = {}
        """Streams that have something to send."""
        self._flushing = False
        self._is_draining = True
        """False while the operating system takes no more."""
        self._pinged = False
        self._ping: asyncio.TimerHandle | None = None

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

    def stream(
        self, method: str, on_message: Callable[[bytes], None], done: Callable[[Reply], None]
    ) -> Stream:
        """Begin a call; `done` is called when the peer ends it, or the connection breaks."""
        number = self._http.get_next_available_stream_id()
        stream = self._streams[number] = Stream(self, number, on_message, done)
        self._http.send_headers(
            number,
            (
                (b":method", b"POST"),
                (b":scheme", b"http"),
                (b":path", method.encode()),
                (b":authority", self._authority.encode()),
                (b"te", b"trailers"),
                (b"content-type", b"application/grpc"),
                (b"user-agent", b"grpc-dyscod"),
            ),
        )
        self._flush_soon()
        return stream

    def call(
        self, method: str, message: bytes, seconds: float, done: Callable[[Reply], None]
    ) -> None:
        """One message there, one back; `done` is always called, at the latest after `seconds`."""
        if self.closed:
            self._loop.call_soon(done, Reply(Code.UNAVAILABLE, self.closed))
            return
        body: list[bytes] = []

        def ended(reply: Reply) -> None:
            timer.cancel()
            if body and reply.code == Code.OK:
                reply = Reply(Code.OK, body=body[0])
            done(reply)

        def too_late() -> None:
            stream.cancel()
            done(Reply(Code.DEADLINE_EXCEEDED, f"no answer within {seconds:g} s"))

        stream = self.stream(method, body.append, ended)
        timer = self._loop.call_later(seconds, too_late)
        stream.send(message, last=True)

    def wake(self, stream: Stream) -> None:
        """It has something to send."""
        if not self.closed and stream.number in self._streams:
            self._awake[stream.number] = stream
            self._flush_soon()

    def cancel(self, stream: Stream) -> None:
        """The stream is not wanted any more."""
        if self._forget(stream.number) is not None:
            self._http.reset_stream(stream.number, ErrorCodes.CANCEL)
            self._flush_soon()

    def close(self, why: str) -> None:
        """End it; calls and streams end with UNAVAILABLE."""
        if self._transport is not None:
            self._transport.abort()
        self._end(why)

    # Out.

    def _flush_soon(self) -> None:
        if not self._flushing:
            self._flushing = True
            self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        """Send what this wake-up asked for."""
        self._flushing = False
        if self._transport is None:
            return
        if self._awake:
            self._before_sending()
            if self._is_draining:
                for stream in list(self._awake.values()):
                    self._send(stream)
        data = self._http.data_to_send()
        if data:
            self._transport.write(data)

    def _send(self, stream: Stream) -> None:
        """Of what the stream has to say, what the peer takes."""
        waiting, http = stream.queue, self._http
        room = min(len(waiting), http.local_flow_control_window(stream.number))
        at, most = 0, http.max_outbound_frame_size
        ends = stream.last and room == len(waiting)
        while at < room:
            upto = min(at + most, room)
            http.send_data(stream.number, bytes(waiting[at:upto]), ends and upto == room)
            at = upto
        del waiting[:room]
        if not waiting:
            del self._awake[stream.number]

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The preface: what we allow the peer."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        http = self._http
        http.initiate_connection()
        http.increment_flow_control_window(_WINDOW - _DEFAULT_WINDOW)
        self._ping = self._loop.call_later(PING_EVERY, self._ping_peer)
        self._flush_soon()

    def _ping_peer(self) -> None:
        if self._pinged:
            self.close(f"the peer answered no ping for {PING_EVERY:g} s")
            return
        self._pinged = True
        self._http.ping(bytes(8))
        self._ping = self._loop.call_later(PING_EVERY, self._ping_peer)
        self._flush_soon()

    def pause_writing(self) -> None:
        """The operating system takes no more for now."""
        self._is_draining = False

    def resume_writing(self) -> None:
        """It does again."""
        self._is_draining = True
        self._flush_soon()

    def data_received(self, data: bytes) -> None:
        """All that happened, then the answers to it leave at once."""
        try:
            for event in self._http.receive_data(data):
                self._happened(event)
                if self.closed:
                    return
        except (ProtocolError, LinkError) as error:
            self.close(f"the peer broke the protocol: {error}")
            return
        self.on_taken()
        self._flush()

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
        if self._ping is not None:
            self._ping.cancel()
        streams, self._streams = self._streams, {}
        self._awake.clear()
        for stream in streams.values():
            stream.done(Reply(Code.UNAVAILABLE, why))

    # In.

    def _happened(self, event: events.Event) -> None:
        match event:
            case events.DataReceived():
                self._data(event)
            case events.ResponseReceived() | events.TrailersReceived():
                if stream := self._streams.get(event.stream_id):
                    stream.headers(dict(event.headers))
            case events.StreamEnded():
                if stream := self._forget(event.stream_id):
                    stream.end()
            case events.StreamReset():
                if stream := self._forget(event.stream_id):
                    why = f"the peer reset the stream: HTTP/2 error {event.error_code:d}"
                    stream.done(Reply(Code.UNAVAILABLE, why))
            case events.ConnectionTerminated():
                text = (event.additional_data or b"").decode(errors="replace")
                why = f"HTTP/2 error {event.error_code:d} {text}".rstrip()
                self.close(f"the peer is going away: {why}")
            case events.PingAckReceived():
                self._pinged = False

    def _data(self, event: events.DataReceived) -> None:
        if event.flow_controlled_length:
            self._http.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
        stream = self._streams.get(event.stream_id)
        if stream is not None:
            stream.take(event.data)

    def _forget(self, number: int) -> Stream | None:
        self._awake.pop(number, None)
        return self._streams.pop(number, None)
