"""A visit at a movable server: bytes both ways all the time, each of them checked."""

from __future__ import annotations

import os
import socket
import threading
import time

from dysco.topo import movable
from dysco.topo.namespace import Namespace
from dysco.topo.waiting import wait_until

_PIECE = 8_000
_PAUSE = 0.002
_SECONDS = 20.0


class VisitError(Exception):
    """Bytes are missing, or not those that were sent."""


class Visit:
    """A connection to a movable server."""

    def __init__(self, namespace: Namespace, address: str, port: int) -> None:
        """Connect, and begin to send and to receive. Raises OSError."""
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        with namespace.entered():
            self._sock = socket.socket(family)
        self._sock.settimeout(_SECONDS)
        self._sock.connect((address, port))
        self.port = int(self._sock.getsockname()[1])
        self.got = 0
        """Bytes that came."""
        self._digest = movable.Digest()
        self._seed = b""
        self._tail = b""
        self._wrong = ""
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=t, daemon=True) for t in (self._send, self._read)]
        for thread in self._threads:
            thread.start()

    def _send(self) -> None:
        try:
            while not self._stop.wait(_PAUSE):
                piece = os.urandom(_PIECE)
                self._sock.sendall(piece)
                self._digest.update(piece)
            self._sock.shutdown(socket.SHUT_WR)
        except OSError as error:
            self._wrong = self._wrong or f"sending: {error}"

    def _read(self) -> None:
        """The last bytes may be the trailer: they are checked when more have come."""
        checked = 0
        try:
            while piece := self._sock.recv(1 << 16):
                self.got += len(piece)
                self._tail += piece
                if len(self._seed) < movable.SEED:
                    self._seed = self._tail[: movable.SEED]
                ready = len(self._tail) - movable.TRAILER.size
                if len(self._seed) == movable.SEED and ready > 0:
                    self._check(self._tail[:ready], checked)
                    checked += ready
                    self._tail = self._tail[ready:]
        except OSError as error:
            self._wrong = self._wrong or f"receiving: {error}"

    def _check(self, content: bytes, place: int) -> None:
        if content != movable.stream(self._seed, place, len(content)) and not self._wrong:
            self._wrong = f"bytes {place} to {place + len(content)} are not the server's"

    def wait_more(self, size: int = 100_000, seconds: float = 10.0) -> None:
        """Until so many bytes more have come. Raises DeadlineError and VisitError."""
        goal = self.got + size
        wait_until(lambda: self.got >= goal or bool(self._wrong), f"{size} bytes more", seconds)
        if self._wrong:
            raise VisitError(self._wrong)

    def finish(self) -> int:
        """End it and check what the server says; how many bytes it got. Raises VisitError."""
        self._stop.set()
        until = time.monotonic() + _SECONDS
        for thread in self._threads:
            thread.join(max(0.0, until - time.monotonic()))
        if any(thread.is_alive() for thread in self._threads):
            self._wrong = self._wrong or "the server does not end it"
        self.close()
        if self._wrong:
            raise VisitError(self._wrong)
        if len(self._tail) != movable.TRAILER.size:
            raise VisitError(f"it ended after {self.got} bytes, without a trailer")
        size, sent, digest = movable.TRAILER.unpack(self._tail)
        wanted = (self._digest.size, self.got - movable.TRAILER.size, self._digest.final())
        if (size, sent, digest) != wanted:
            raise VisitError(f"the server got {size} bytes and sent {sent}, not {wanted[:2]}")
        return int(size)

    def close(self) -> None:
        """Let go of it."""
        self._stop.set()
        self._sock.close()
