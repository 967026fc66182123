"""An HTTP/2 client of a few lines that can say what no gRPC library would."""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator
from enum import IntEnum

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
END_STREAM, ACK, END_HEADERS = 1, 1, 4
WAIT_S = 10.0


class Kind(IntEnum):
    DATA = 0
    HEADERS = 1
    RST_STREAM = 3
    SETTINGS = 4
    PING = 6
    GOAWAY = 7
    WINDOW_UPDATE = 8


def packed(kind: Kind, flags: int, stream: int, payload: bytes = b"") -> bytes:
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload


def headers(path: str, content_type: str = "application/grpc", **more: str) -> bytes:
    """A request's header block: literals that nobody keeps (RFC 7541, 6.2.2)."""
    block = b""
    fixed = {":method": "POST", ":scheme": "http", ":path": path, ":authority": "here"}
    fixed |= {"content-type": content_type, "te": "trailers"}
    for name, value in (fixed | {k.replace("_", "-"): v for k, v in more.items()}).items():
        for text in (name, value):
            block += (b"\0" if text is name else b"") + bytes([len(text)]) + text.encode()
    return block


def message(data: bytes, *, compressed: int = 0) -> bytes:
    return struct.pack(">BI", compressed, len(data)) + data


def value(text: str) -> bytes:
    """A header's value as it stands in a block; nghttp2 Huffman-codes no short numbers."""
    return bytes([len(text)]) + text.encode()


class RawClient:
    """One connection; what it begins with are the preface and empty settings."""

    def __init__(self, address: str, begin: bytes = PREFACE + packed(Kind.SETTINGS, 0, 0)) -> None:
        host, _, port = address.rpartition(":")
        self.socket = socket.create_connection((host, int(port)), timeout=WAIT_S)
        self.send(begin)
        self._got = b""

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def begin(self, stream: int, path: str, **more: str) -> None:
        """The headers of a call that goes on."""
        self.send(packed(Kind.HEADERS, END_HEADERS, stream, headers(path, **more)))

    def call(self, stream: int, path: str, data: bytes, **more: str) -> None:
        """A whole unary call; `data` stands for its DATA frame."""
        self.begin(stream, path, **more)
        self.send(packed(Kind.DATA, END_STREAM, stream, data))

    def frames(self) -> Iterator[tuple[int, int, int, bytes]]:
        """Kind, flags, stream and payload of each frame, until the server closes."""
        while True:
            while len(self._got) >= 9:
                size = int.from_bytes(self._got[:3], "big")
                if len(self._got) < 9 + size:
                    break
                kind, flags, stream = struct.unpack_from(">BBI", self._got, 3)
                payload, self._got = self._got[9 : 9 + size], self._got[9 + size :]
                yield kind, flags, stream, payload
            try:
                more = self.socket.recv(65536)
            except ConnectionResetError:
                return
            if not more:
                return
            self._got += more

    def first(self, kind: Kind, stream: int) -> tuple[int, bytes]:
        """Flags and payload of the next frame of a kind and a stream; what comes before is lost."""
        for got, flags, at, payload in self.frames():
            if (got, at) == (kind, stream):
                return flags, payload
        raise AssertionError(f"the connection ended without {kind.name} of {stream}")

    def end(self, stream: int) -> bytes:
        """The header block that ends a call."""
        while True:
            flags, block = self.first(Kind.HEADERS, stream)
            if flags & END_STREAM:
                return block

    def ended(self) -> bool:
        """True once the server has closed; other frames are passed over."""
        for _ in self.frames():
            pass
        return True

    def close(self) -> None:
        self.socket.close()
