"""A TCP server whose live connections can be moved to another one, in another namespace.

    client --bytes--> counted, hashed    (the server's stream is made from a seed and the place
    client <--bytes-- its stream          in it)
    client --FIN-->
    client <--how many bytes came, and their hash--FIN--

    dyscod <--control socket--> export, import, resume, drop

What it knows of a connection moves with the socket: seed, places in both streams, hash so far. It
is an example of how an application does that, and what the end-to-end tests move.
"""

from __future__ import annotations

import argparse
import asyncio
import fcntl
import hashlib
import itertools
import json
import secrets
import signal
import socket
import struct
import sys
import termios
from collections.abc import Sequence
from dataclasses import dataclass, field
from ipaddress import ip_address
from pathlib import Path

from dysco.agent.events import Sides, StateVerb
from dysco.agent.model import FiveTuple
from dysco.state import tcp_repair
from dysco.state.command import answered
from dysco.state.request import Request, StateError
from dysco.topo.namespace import Namespace
from dysco.topo.process import Process

BLOCK = 4096
SEED = 16
"""Bytes of the seed, with which a server's stream begins."""
TRAILER = struct.Struct("!QQ32s")
"""After the stream: how many bytes the server got, how many it sent, the hash of what it got."""
_PIECE = 1 << 14
_UNDER_WAY = 20_000
"""Bytes in a socket that its client has not acknowledged: with those that came and were not read
they must be less than a state may be."""
_BUFFER = 10_000
_TICK = 0.002


def stream(seed: bytes, start: int, size: int) -> bytes:
    """So many bytes of a server's stream, from a place on."""
    first, skip = divmod(start, BLOCK)
    out = bytearray()
    while len(out) < skip + size:
        block = hashlib.shake_256(seed + first.to_bytes(8, "big")).digest(BLOCK)
        out += block if first else seed + block[SEED:]
        first += 1
    return bytes(out[skip : skip + size])


@dataclass
class Digest:
    """A hash that can be moved: of one block after the other, and of the hash before it."""

    size: int = 0
    value: bytes = bytes(32)
    rest: bytes = b""

    def update(self, content: bytes) -> None:
        """More bytes."""
        self.size += len(content)
        content = self.rest + content
        whole = len(content) - len(content) % BLOCK
        for start in range(0, whole, BLOCK):
            self.value = hashlib.sha256(self.value + content[start : start + BLOCK]).digest()
        self.rest = content[whole:]

    def final(self) -> bytes:
        """Of all bytes so far."""
        return hashlib.sha256(self.value + self.rest).digest()


@dataclass
class Connection:
    """A connection, and all that the server knows of it."""

    sock: socket.socket
    seed: bytes
    got: Digest = field(default_factory=Digest)
    sent: int = 0
    """Bytes of its stream that the socket took, or that are first in `rest`."""
    rest: bytes = b""
    """To be sent before anything else."""
    is_ending: bool = False
    is_frozen: bool = False

    def dump(self) -> bytes:
        """The application's part, then the socket's. The socket is frozen."""
        saved = tcp_repair.save(self.sock)
        head = {
            "seed": self.seed.hex(),
            "size": self.got.size,
            "hash": self.got.value.hex(),
            "rest": self.got.rest.hex(),
            "sent": self.sent - len(self.rest),
        }
        return json.dumps(head).encode() + b"\n" + saved.dump()

    @staticmethod
    def load(blob: bytes, ends: FiveTuple) -> Connection:
        """A frozen connection for what another server dumped. Raises StateError."""
        line, _, rest = blob.partition(b"\n")
        try:
            head = json.loads(line)
            seed, value, begun = (bytes.fromhex(head[key]) for key in ("seed", "hash", "rest"))
            got, sent = Digest(int(head["size"]), value, begun), int(head["sent"])
        except (ValueError, KeyError, TypeError) as error:
            raise StateError(f"that is no connection of a movable server: {error!r}") from error
        saved = tcp_repair.Saved.load(rest)
        local, remote = (str(ends.dst), ends.dport), (str(ends.src), ends.sport)
        sock = tcp_repair.restore(saved, local, remote)
        # What the kernel had not sent comes first.
        return Connection(sock, seed, got, sent, saved.unsent, is_frozen=True)


class Server:
    """Serves connections, and answers calls about their state."""

    def __init__(self, ports: Sequence[int]) -> None:
        """Listen on these ports, IPv4 and IPv6. Raises OSError."""
        self._loop = asyncio.get_running_loop()
        self._connections: dict[FiveTuple, Connection] = {}
        families = ((socket.AF_INET, "0.0.0.0"), (socket.AF_INET6, "::"))
        for port, (family, everywhere) in itertools.product(ports, families):
            listener = socket.socket(family)
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER)
            listener.bind((everywhere, port))
            listener.listen(1024)
            listener.setblocking(False)
            self._loop.add_reader(listener, self._accept, listener)
        self._loop.call_later(_TICK, self._tick)

    # Connections.

    def _accept(self, listener: socket.socket) -> None:
        sock, _ = listener.accept()
        seed = secrets.token_bytes(SEED)
        self._add(_ends(sock), Connection(sock, seed))

    def _add(self, ends: FiveTuple, connection: Connection) -> None:
        connection.sock.setblocking(False)
        self._connections[ends] = connection
        if not connection.is_frozen:
            self._loop.add_reader(connection.sock, self._read, ends, connection)

    def _forget(self, ends: FiveTuple, connection: Connection) -> None:
        self._loop.remove_reader(connection.sock)
        connection.sock.close()
        if self._connections.get(ends) is connection:
            del self._connections[ends]

    def _read(self, ends: FiveTuple, connection: Connection) -> None:
        try:
            content = connection.sock.recv(_PIECE)
        except BlockingIOError:
            return
        except OSError:
            self._forget(ends, connection)
            return
        connection.got.update(content)
        if content or connection.is_ending:
            return
        connection.is_ending = True
        self._loop.remove_reader(connection.sock)
        got = connection.got
        connection.rest += TRAILER.pack(got.size, connection.sent, got.final())

    def _tick(self) -> None:
        for ends, connection in list(self._connections.items()):
            if not connection.is_frozen:
                self._write(ends, connection)
        self._loop.call_later(_TICK, self._tick)

    def _write(self, ends: FiveTuple, connection: Connection) -> None:
        try:
            while connection.rest:
                connection.rest = connection.rest[connection.sock.send(connection.rest) :]
            if not connection.is_ending:
                piece = stream(connection.seed, connection.sent, self._room(connection.sock))
                connection.sent += connection.sock.send(piece) if piece else 0
        except BlockingIOError:
            return
        except OSError:
            self._forget(ends, connection)
            return
        if connection.is_ending:
            connection.sock.shutdown(socket.SHUT_WR)
            self._forget(ends, connection)

    @staticmethod
    def _room(sock: socket.socket) -> int:
        """What the socket may be given now."""
        under_way: int = struct.unpack("=i", fcntl.ioctl(sock, termios.TIOCOUTQ, bytes(4)))[0]
        return max(0, _UNDER_WAY - under_way)

    # Calls.

    def handle(self, request: Request, state: bytes) -> bytes:
        """Do what is asked with one connection. Raises StateError."""
        ends = _own(request.sides)
        connection = self._connections.get(ends)
        if connection is None and request.verb in (StateVerb.EXPORT, StateVerb.RESUME):
            raise StateError(f"there is no connection {ends}")
        match request.verb:
            case StateVerb.EXPORT if connection is not None:
                self._freeze(connection)
                try:
                    return connection.dump()
                except StateError:
                    self._resume(ends, connection)
                    raise
            case StateVerb.IMPORT:
                if connection is not None:
                    self._drop(ends, connection)
                self._add(ends, Connection.load(state, ends))
            case StateVerb.RESUME if connection is not None:
                self._resume(ends, connection)
            case StateVerb.DROP if connection is not None:
                self._drop(ends, connection)
        return b""

    def _freeze(self, connection: Connection) -> None:
        tcp_repair.freeze(connection.sock)
        if not connection.is_frozen:
            self._loop.remove_reader(connection.sock)
            connection.is_frozen = True

    def _resume(self, ends: FiveTuple, connection: Connection) -> None:
        if connection.is_frozen:
            tcp_repair.thaw(connection.sock)
            connection.is_frozen = False
            if not connection.is_ending:
                self._loop.add_reader(connection.sock, self._read, ends, connection)

    def _drop(self, ends: FiveTuple, connection: Connection) -> None:
        self._freeze(connection)  # closed under repair, a socket says nothing
        self._forget(ends, connection)

    async def control(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer the calls that come by one control connection."""
        try:
            while (answer := await answered(self.handle, reader)) is not None:
                writer.write(answer)
                await writer.drain()
        finally:
            writer.close()


def _own(sides: Sides) -> FiveTuple:
    if sides.received is None or sides.emitted is not None:
        raise StateError("this host is not the session's right end")
    return sides.received


def _ends(sock: socket.socket) -> FiveTuple:
    """As packets that come have it."""
    (src, sport, *_), (dst, dport, *_) = sock.getpeername(), sock.getsockname()
    return FiveTuple(ip_address(src), sport, ip_address(dst), dport)


async def _main(ports: Sequence[int], control: Path) -> None:
    server = Server(ports)
    control.unlink(missing_ok=True)
    listening = await asyncio.start_unix_server(server.control, control)
    ended = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, ended.set)
    async with listening:
        await ended.wait()


def start(namespace: Namespace, name: str, ports: Sequence[int], control: Path) -> Process:
    """Start a server in a host's namespace and wait until it listens. Raises ProcessError."""
    argv = [sys.executable, "-m", "dysco.topo.movable", "--control", str(control)]
    process = namespace.start(name, [*argv, "--port", *map(str, ports)])
    process.wait_ready(control.is_socket, "it listened")
    return process


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description="A server whose live connections can be moved.")
    parser.add_argument("--port", type=int, nargs="+", required=True, help="TCP ports to serve")
    parser.add_argument("--control", type=Path, required=True, help="Unix socket for dyscod")
    arguments = parser.parse_args()
    asyncio.run(_main(arguments.port, arguments.control))


if __name__ == "__main__":
    main()
