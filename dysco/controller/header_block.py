"""Header blocks of HTTP/2 (HPACK, RFC 7541), as far as a gRPC client needs them.

Without a dynamic table (we allow the peer none, and use none), so that a block means the same
wherever it stands, and what was decoded once need not be decoded again.

    indexed          1 iiiiiii
    literal          01 iiiiii | 0000 iiii | 0001 iiii, the name unless i > 0, the value
    table size       001 sssss
    string           h nnnnnnn, then n bytes; Huffman-coded where h is set
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import lru_cache

_STATIC = 61
"""Entries of the static table."""
_STATUS = {8 + i: str(code).encode() for i, code in enumerate((200, 204, 206, 304, 400, 404, 500))}
"""Those of them that matter in an answer; names that gRPC needs stand in none."""
_BY_LENGTH: tuple[tuple[int, bytes], ...] = (
    (5, b"012aceiost"),
    (6, b" %-./3456789=A_bdfghlmnpru"),
    (7, b":BCDEFGHIJKLMNOPQRSTUVWYjkqvwxyz"),
    (8, b"&*,;XZ"),
    (10, b'!"()?'),
    (11, b"'+|"),
    (12, b"#>"),
    (13, b"\0$@[]~"),
    (14, b"^}"),
    (15, b"<`{"),
    (19, bytes.fromhex("5cc3d0")),
    (20, bytes.fromhex("808283a2b8c2e0e2")),
    (21, bytes.fromhex("99a1a7acb0b1b3d1d8d9e3e5e6")),
    (22, bytes.fromhex("8184858688929a9ca0a3a4a9aaadb2b5b9babbbdbec4c6e4e8e9")),
    (23, bytes.fromhex("0187898a8b8c8d8f93959697989b9d9ea5a6a8aeafb4b6b7bcbfc5e7ef")),
    (24, bytes.fromhex("098e9091949fabced7e1eced")),
    (25, bytes.fromhex("c7cfeaeb")),
    (26, bytes.fromhex("c0c1c8c9cacdd2d5dadbeef0f2f3ff")),
    (27, bytes.fromhex("cbccd3d4d6dddedff1f4f5f6f7f8fafbfcfdfe")),
    (28, bytes.fromhex("020304050607080b0c0e0f1011121314151718191a1b1c1d1e1f7fdcf9")),
    (30, bytes.fromhex("0a0d16")),
)
"""Symbols by the length of their code. The code is canonical, so that the lengths say it all
(RFC 7541, appendix B)."""


class HeaderError(ValueError):
    """The block can't be read; the text says why."""


def _codes() -> Iterator[tuple[tuple[int, int], int]]:
    code = before = 0
    for length, symbols in _BY_LENGTH:
        code <<= length - before
        before = length
        for symbol in symbols:
            yield (length, code), symbol
            code += 1


_SYMBOLS = dict(_codes())
_LONGEST = 30


def encode(headers: Iterable[tuple[str, str]]) -> bytes:
    """A block of literals that nobody keeps; values of at most 126 bytes."""
    block = bytearray()
    for name, value in headers:
        block.append(0)
        for text in (name.encode(), value.encode()):
            if len(text) > 126:
                raise HeaderError(f"{text!r} is too long")
            block.append(len(text))
            block += text
    return bytes(block)


@lru_cache(maxsize=64)
def decode(block: bytes) -> dict[str, bytes]:
    """Names and values; of a name that comes twice, the last value. Raises HeaderError.

    Entries of the static table are left out, `:status` apart.
    """
    headers: dict[str, bytes] = {}
    at = 0
    try:
        while at < len(block):
            first = block[at]
            if first & 0x80:
                index, at = _number(block, at, 7)
                if not 0 < index <= _STATIC:
                    raise HeaderError(f"there is no entry {index}")
                if index in _STATUS:
                    headers[":status"] = _STATUS[index]
            elif first & 0xE0 == 0x20:
                _, at = _number(block, at, 5)
            else:
                index, at = _number(block, at, 6 if first & 0x40 else 4)
                name = b":status" if index in _STATUS else b""
                if not index:
                    name, at = _string(block, at)
                elif index > _STATIC:
                    raise HeaderError(f"there is no entry {index}")
                value, at = _string(block, at)
                if name:
                    headers[name.decode("ascii", "replace")] = value
    except IndexError:
        raise HeaderError("it is cut off") from None
    return headers


def _number(block: bytes, at: int, bits: int) -> tuple[int, int]:
    """An integer with a prefix of so many bits, and where it ends (RFC 7541, 5.1)."""
    most = (1 << bits) - 1
    value = block[at] & most
    at += 1
    if value < most:
        return value, at
    for shift in range(0, 28, 7):
        byte = block[at]
        at += 1
        value += (byte & 0x7F) << shift
        if not byte & 0x80:
            return value, at
    raise HeaderError("a number is too long")


def _string(block: bytes, at: int) -> tuple[bytes, int]:
    coded = block[at] & 0x80
    length, at = _number(block, at, 7)
    end = at + length
    if end > len(block):
        raise HeaderError("it is cut off")
    text = block[at:end]
    return _plain(text) if coded else text, end


def _plain(coded: bytes) -> bytes:
    """Huffman-coded text as it was."""
    out = bytearray()
    code = length = 0
    for byte in coded:
        for bit in range(7, -1, -1):
            code = code << 1 | byte >> bit & 1
            length += 1
            symbol = _SYMBOLS.get((length, code))
            if symbol is not None:
                out.append(symbol)
                code = length = 0
            elif length > _LONGEST:
                raise HeaderError("there is no such Huffman code")
    if length > 7 or code != (1 << length) - 1:
        raise HeaderError("Huffman-coded text ends within a symbol")
    return bytes(out)
