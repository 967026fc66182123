"""The native server at its edges: HTTP/2 and gRPC that are broken, slow, compressed or too much."""

from __future__ import annotations

import contextlib
import os
import random
import socket
import struct
import time
import zlib
from collections.abc import Callable, Iterator

import grpc
import pytest
from finsy.proto import p4r, p4r_grpc
from p4rt import INSERT, WAIT_S, Client, mac, write_request
from rawh2 import END_HEADERS, END_STREAM, PREFACE, Kind, RawClient, headers, message, packed, value
from target import Target

from softnic.p4runtime import front

CAPABILITIES = "/p4.v1.P4Runtime/Capabilities"
WRITE = "/p4.v1.P4Runtime/Write"
STREAM = "/p4.v1.P4Runtime/StreamChannel"
ENHANCE_YOUR_CALM = 11
MAX_CONCURRENT_STREAMS = 3
BEGIN = PREFACE + packed(Kind.SETTINGS, 0, 0)


@pytest.fixture
def raw(bare: Target) -> Iterator[RawClient]:
    client = RawClient(bare.server.address)
    yield client
    client.close()


def until(done: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + WAIT_S
    while not done():
        assert time.monotonic() < deadline, what
        time.sleep(0.002)


def serves(target: Target) -> None:
    """Others are served as ever, and nothing of the streams that broke is left."""
    request = p4r.CapabilitiesRequest()
    assert target.client().stub.Capabilities(request).p4runtime_api_version == "1.4.0"
    until(lambda: target.device.clients.count == 0, "streams are left")


@pytest.mark.parametrize(
    "data", [b"GET / HTTP/1.1\r\n\r\n", bytes(100), PREFACE + b"no frame at all, but long enough"]
)
def test_bytes_that_are_no_http2(bare: Target, data: bytes) -> None:
    client = RawClient(bare.server.address, data)
    assert client.ended()
    client.close()
    serves(bare)


def test_another_content_type(raw: RawClient) -> None:
    raw.call(1, CAPABILITIES, message(b""), content_type="text/html")
    assert value("415") in raw.end(1)


@pytest.mark.parametrize(
    ("path", "data", "code"),
    [
        ("/p4.v1.P4Runtime/Nothing", message(b""), 12),
        ("/other.Service/Write", message(b""), 12),
        (CAPABILITIES, b"", 13),  # no message
        (CAPABILITIES, b"\0\0\0\0\5abc", 13),  # half a message
        (CAPABILITIES, message(b"") * 2, 13),  # two
        (CAPABILITIES, b"\7\0\0\0\0", 13),  # neither compressed nor not
        (CAPABILITIES, message(b"no gzip", compressed=1), 13),
        (CAPABILITIES, message(b"\xff\xff"), 13),  # no protobuf
        (WRITE, b"\0\xff\xff\xff\xff", 8),  # four gigabytes are announced
        (WRITE, message(b"\xff"), 3),
        (STREAM, b"\0\0\0", 13),  # the stream ends in the middle of a message
        (STREAM, message(b"\xff\xff"), 13),
    ],
)
def test_a_call_that_is_no_call(bare: Target, path: str, data: bytes, code: int) -> None:
    client = RawClient(bare.server.address)
    client.call(1, path, data)
    assert value(str(code)) in client.end(1)
    client.call(3, CAPABILITIES, message(b""))
    assert value("0") in client.end(3)
    client.close()
    serves(bare)


def test_a_request_in_many_small_frames(raw: RawClient) -> None:
    raw.begin(1, CAPABILITIES)
    for byte in message(b""):
        raw.send(packed(Kind.DATA, 0, 1, bytes([byte])))
    raw.send(packed(Kind.DATA, END_STREAM, 1))
    assert value("0") in raw.end(1)


def test_a_deadline_that_passes(bare: Target) -> None:
    """The server itself ends the call, of a client that doesn't."""
    client = RawClient(bare.server.address)
    client.begin(1, STREAM, grpc_timeout="50m")
    assert value("4") in client.end(1)
    serves(bare)
    client.close()


def test_too_many_pings(raw: RawClient) -> None:
    raw.send(packed(Kind.PING, 0, 0, bytes(8)) * 5)
    _, payload = raw.first(Kind.GOAWAY, 0)
    assert int.from_bytes(payload[4:8], "big") == ENHANCE_YOUR_CALM
    assert payload[8:] == b"too_many_pings"
    assert raw.ended()


def test_calls_beyond_the_limit(bare: Target) -> None:
    """The limit is told; who doesn't hear is refused, and only that call."""
    client = RawClient(bare.server.address)
    _, settings = client.first(Kind.SETTINGS, 0)
    limit = dict(struct.iter_unpack(">HI", settings))[MAX_CONCURRENT_STREAMS]
    beyond = 2 * limit + 1
    for stream in range(1, beyond + 1, 2):
        client.begin(stream, CAPABILITIES)
    client.first(Kind.RST_STREAM, beyond)
    client.send(packed(Kind.DATA, END_STREAM, 1, message(b"")))
    assert value("0") in client.end(1)
    client.close()
    serves(bare)


def test_a_socket_that_a_forked_process_holds(bare: Target) -> None:
    """Its connection has ended here, but the kernel goes on telling of it."""
    client = RawClient(bare.server.address)
    client.call(1, CAPABILITIES, message(b""))
    assert value("0") in client.end(1)
    held = os.dup(_server_side(client))
    client.send(b"no frame at all" * 10)
    assert client.first(Kind.GOAWAY, 0)
    client.send(b"more")
    client.close()
    serves(bare)
    serves(bare)
    os.close(held)


def _server_side(client: RawClient) -> int:
    """The server is in this process: the descriptor whose peer is the client."""
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError), socket.socket(fileno=os.dup(int(name))) as one:
            if one.getpeername() == client.socket.getsockname():
                return int(name)
    raise AssertionError("the server has no such connection")


def test_mutated_connections_do_no_harm(target: Target) -> None:
    """What a client would send, with bytes changed, cut off and repeated."""
    write = write_request([(INSERT, _entry(target.client(), 1))]).SerializeToString()
    calls = ((CAPABILITIES, b""), (WRITE, write), (STREAM, _hello().SerializeToString()))
    good = BEGIN
    for stream, (path, data) in zip((1, 3, 5), calls, strict=True):
        good += packed(Kind.HEADERS, END_HEADERS, stream, headers(path))
        good += packed(Kind.DATA, END_STREAM, stream, message(data))
    pick = random.Random(5)
    for _ in range(300):
        data = bytearray(good)
        for _ in range(pick.randrange(1, 6)):
            at = pick.randrange(len(PREFACE), len(data))
            data[at] = pick.choice(
                (0, 0xFF, pick.randrange(256), data[at] ^ 1 << pick.randrange(8))
            )
        if pick.randrange(4) == 0:
            del data[pick.randrange(len(PREFACE), len(data)) :]
        RawClient(target.server.address, bytes(data)).close()
    serves(target)


def _hello() -> p4r.StreamMessageRequest:
    request = p4r.StreamMessageRequest()
    request.arbitration.device_id = 1
    request.arbitration.election_id.low = 7
    return request


def _entry(client: Client, number: int) -> p4r.Entity:
    names = client.names
    action = names.action("forward", b"1")
    return names.entry("exact_table", {"hdr.ethernet.dst": mac(number)}, action)


@pytest.mark.parametrize("kind", [grpc.Compression.Gzip, grpc.Compression.Deflate])
def test_compressed_requests(target: Target, kind: grpc.Compression) -> None:
    with grpc.insecure_channel(target.server.address, compression=kind) as channel:
        stub = p4r_grpc.P4RuntimeStub(channel)
        hello = _hello()
        hello.arbitration.role.name = "of a compressing client" * 9  # worth its while
        stream = stub.StreamChannel(iter((hello,)))
        assert next(stream).arbitration.status.code == 0
        client = target.client()
        client.primary(8)
        updates = [(INSERT, _entry(client, number)) for number in range(50)]
        stub.Write(write_request(updates, election_id=8))
        assert len(client.entries("exact_table")) == 50


def test_a_message_that_inflates_beyond_the_limit(
    bare: Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(front, "MAX_MESSAGE", 1 << 20)
    client = RawClient(bare.server.address)
    client.call(1, CAPABILITIES, message(zlib.compress(bytes(2 << 20)), compressed=1))
    assert value("8") in client.end(1)
    client.close()
    serves(bare)


def test_a_message_larger_than_the_window_of_its_stream(target: Target) -> None:
    """It comes whole, though the client may send on only when what it sent is done."""
    client = target.client()
    stream = client.primary()
    request = p4r.StreamMessageRequest()
    request.packet.payload = bytes(1 << 20)
    request.packet.metadata.add(metadata_id=1, value=b"\1")
    stream.send(request)
    refused = stream.expect("error")
    assert "65535" in refused.message
    assert refused.packet_out.packet_out == request.packet
