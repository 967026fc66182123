"""gRPC over one connection: against grpcio's server, and peers that break the protocol."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import AsyncIterator, Iterator
from concurrent import futures
from pathlib import Path

import grpc
import pytest
from hpack import Encoder

from dysco.controller import grpc_link
from dysco.controller.grpc_link import MAX_QUEUED, Code, Link, Reply

SECONDS = 10.0


def _same(data: bytes, context: grpc.ServicerContext) -> bytes:
    return data


def _fails(data: bytes, context: grpc.ServicerContext) -> bytes:
    context.set_trailing_metadata((("grpc-status-details-bin", b"\x08\x05 details"),))
    context.abort(grpc.StatusCode.NOT_FOUND, "nothing at 100 % \u00e4")
    return b""


def _never(data: bytes, context: grpc.ServicerContext) -> bytes:
    ended = futures.Future[None]()
    context.add_callback(lambda: ended.set_result(None))
    ended.result(SECONDS)
    return b""


def _back(requests: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[bytes]:
    for data in requests:
        if data == b"end":
            return
        yield data * 2


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[Path]:
    made = grpc.server(futures.ThreadPoolExecutor(8))
    unary, both = grpc.unary_unary_rpc_method_handler, grpc.stream_stream_rpc_method_handler
    methods = {"Same": unary(_same), "Fails": unary(_fails), "Never": unary(_never)}
    methods["Back"] = both(_back)
    made.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("t.T", methods),))
    made.add_insecure_port(f"unix:{tmp_path}/server")
    made.start()
    yield tmp_path / "server"
    made.stop(None).wait(SECONDS)


async def call(link: Link, method: str, message: bytes, seconds: float = SECONDS) -> Reply:
    answer: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
    link.call(f"/t.T/{method}", message, seconds, answer.set_result)
    return await asyncio.wait_for(answer, SECONDS)


def nothing() -> None:
    pass


@pytest.mark.parametrize("size", [0, 1, 16384 - 5, 16384, 70_000, 3_000_000])
async def test_messages_of_any_size(server: Path, size: int) -> None:
    """Larger than a frame, and than the windows that the peer begins with."""
    link = await Link.open(server, nothing)
    message = bytes(i % 251 for i in range(size))
    assert await call(link, "Same", message) == Reply(Code.OK, body=message)
    link.close("done")


async def test_an_error_with_its_details(server: Path) -> None:
    link = await Link.open(server, nothing)
    wanted = Reply(5, "nothing at 100 % \u00e4", b"\x08\x05 details")
    assert await call(link, "Fails", b"") == wanted
    assert (await call(link, "None", b"")).code == Code.UNIMPLEMENTED
    assert await call(link, "Same", b"and on") == Reply(Code.OK, body=b"and on")
    link.close("done")


async def test_no_answer(server: Path) -> None:
    link = await Link.open(server, nothing)
    reply = await call(link, "Never", b"", 0.05)
    assert (reply.code, reply.message) == (Code.DEADLINE_EXCEEDED, "no answer within 0.05 s")
    assert await call(link, "Same", b"on") == Reply(Code.OK, body=b"on"), "only that call is over"
    link.close("done")


async def test_a_stream(server: Path) -> None:
    sent_before = 0

    def note() -> None:
        nonlocal sent_before
        sent_before += 1

    link = await Link.open(server, note)
    got: list[bytes] = []
    ended: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
    stream = link.stream("/t.T/Back", got.append, ended.set_result)
    messages = [bytes([n % 256]) * (n % 5000) for n in range(500)]
    for message in messages:
        stream.send(message)
    stream.send(b"end")
    assert await asyncio.wait_for(ended, SECONDS) == Reply(Code.OK)
    assert got == [message * 2 for message in messages]
    assert 1 <= sent_before < 500, "many leave together"
    link.close("done")


async def test_calls_end_with_their_connection(server: Path) -> None:
    link = await Link.open(server, nothing)
    waiting = asyncio.create_task(call(link, "Never", b""))
    await asyncio.sleep(0)
    link.close("over")
    assert await waiting == Reply(Code.UNAVAILABLE, "over")
    assert await call(link, "Same", b"") == Reply(Code.UNAVAILABLE, "over")


# Peers that we write ourselves.


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    size = len(payload)
    return struct.pack("!HBBBL", size >> 8, size & 255, kind, flags, stream) + payload


TRAILERS = Encoder().encode(((":status", "200"), ("grpc-status", "0")), huffman=False)
DATA, HEADERS, SETTINGS, PING, GOAWAY, CONTINUATION, PUSH = 0, 1, 4, 6, 7, 9, 5
BEGUN = frame(HEADERS, 4, 1, b"\x88")
BROKEN = "the peer broke the protocol"


@pytest.fixture
async def peer(tmp_path: Path) -> AsyncIterator[tuple[Link, asyncio.StreamWriter]]:
    accepted: asyncio.Future[asyncio.StreamWriter] = asyncio.get_running_loop().create_future()
    made = await asyncio.start_unix_server(
        lambda _, writer: accepted.set_result(writer), str(tmp_path / "peer")
    )
    link = await Link.open(tmp_path / "peer", nothing)
    writer = await asyncio.wait_for(accepted, SECONDS)
    yield link, writer
    link.close("done")
    writer.close()
    made.close()


async def answered(link: Link, writer: asyncio.StreamWriter, data: bytes) -> Reply:
    """How a call ends when the peer says that, byte by byte."""
    waiting = asyncio.create_task(call(link, "Same", b""))
    await asyncio.sleep(0)
    for byte in data:
        writer.write(bytes((byte,)))
        await writer.drain()
        await asyncio.sleep(0)
    return await waiting


@pytest.mark.parametrize(
    ("data", "code", "message"),
    [
        (frame(HEADERS, 5, 1, TRAILERS), Code.OK, ""),
        (frame(HEADERS, 0x0D, 1, b"\x02" + TRAILERS + b"\0\0"), Code.OK, ""),
        (frame(HEADERS, 0x25, 1, bytes(5) + TRAILERS), Code.OK, ""),
        (frame(HEADERS, 1, 1, TRAILERS[:3]) + frame(CONTINUATION, 4, 1, TRAILERS[3:]), Code.OK, ""),
        (frame(PING, 0, 0, bytes(8)) + frame(HEADERS, 5, 1, TRAILERS), Code.OK, ""),
        (frame(HEADERS, 5, 1, b"\x8d"), Code.UNAVAILABLE, "HTTP status 404"),
        (frame(HEADERS, 5, 1, b"\x88"), Code.INTERNAL, "without a status"),
        (frame(3, 0, 1, b"\0\0\0\x07"), Code.UNAVAILABLE, "HTTP/2 error 7"),
        (frame(GOAWAY, 0, 0, bytes(7) + b"\x0bcalm down"), Code.UNAVAILABLE, "error 11 calm down"),
        (frame(HEADERS, 1, 1, TRAILERS) + frame(PING, 0, 0), Code.UNAVAILABLE, BROKEN),
        (frame(CONTINUATION, 4, 1), Code.UNAVAILABLE, BROKEN),
        (frame(PUSH, 4, 1), Code.UNAVAILABLE, BROKEN),
        (frame(HEADERS, 5, 1, b"\xff\xff"), Code.UNAVAILABLE, BROKEN),
        (frame(DATA, 8, 1, b"\x09"), Code.UNAVAILABLE, BROKEN),
        (frame(DATA, 0, 1, bytes(5)), Code.UNAVAILABLE, "data before headers"),
        (BEGUN + frame(DATA, 0, 1, b"\x01\0\0\0\0"), Code.UNAVAILABLE, "compressed 1"),
        (
            BEGUN + frame(DATA, 0, 1, b"\0\xff\0\0\0"),
            Code.UNAVAILABLE,
            "a message of 4278190080 bytes",
        ),
    ],
)
async def test_what_a_peer_may_say(
    peer: tuple[Link, asyncio.StreamWriter], data: bytes, code: int, message: str
) -> None:
    reply = await answered(*peer, data)
    assert reply.code == code
    assert message in reply.message


async def test_a_peer_that_leaves(peer: tuple[Link, asyncio.StreamWriter]) -> None:
    link, writer = peer
    waiting = asyncio.create_task(call(link, "Same", b""))
    await asyncio.sleep(0)
    writer.write_eof()
    assert await waiting == Reply(Code.UNAVAILABLE, "the peer closed the connection")


async def test_a_peer_that_takes_nothing(peer: tuple[Link, asyncio.StreamWriter]) -> None:
    """It waits, within bounds, until the peer's window opens."""
    link, writer = peer
    writer.write(frame(SETTINGS, 0, 0, struct.pack("!HL", 4, 10)))
    stream = link.stream("/t.T/Back", lambda _: None, lambda _: None)
    while link._http.remote_settings.initial_window_size != 10:
        await asyncio.sleep(0.01)
    stream.send(bytes(20))
    while len(stream.queue) != 15:
        await asyncio.sleep(0.01)
    sent = 0
    while stream.has_room:
        stream.send(bytes(1 << 16))
        sent += 1
        await asyncio.sleep(0)
    assert sent == MAX_QUEUED >> 16, "what was queued fills up"
    writer.write(frame(8, 0, 1, (1 << 30).to_bytes(4, "big")))
    writer.write(frame(8, 0, 0, (1 << 30).to_bytes(4, "big")))
    while stream.queue:
        await asyncio.sleep(0.01)


async def test_a_peer_that_answers_no_ping(
    peer: tuple[Link, asyncio.StreamWriter], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(grpc_link, "PING_EVERY", 0.02)
    link = await Link.open(tmp_path / "peer", nothing)
    assert "answered no ping" in (await call(link, "Same", b"")).message
