"""The server's end of one StreamChannel: a bounded queue towards the client.

    arbitration, packet-in, digests ... --put--> Outbox --iterate--> gRPC (waits for the client)

A client that reads too slowly loses packet-ins and notifications, counted by kind, never its
arbitration messages: if even those pile up its stream is ended.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from queue import SimpleQueue

from finsy.proto import p4r

from softnic.p4runtime.drops import Drops
from softnic.p4runtime.errors import P4RuntimeError

_LIMIT = 2048
"""Messages waiting for one client."""
_HARD_LIMIT = 2 * _LIMIT


class Outbox:
    """Messages on their way to one client; `put` from any thread, one iteration."""

    def __init__(self, drops: Drops, break_off: Callable[[], object]) -> None:
        """`break_off` ends the stream at once, without what is queued."""
        self._queue: SimpleQueue[p4r.StreamMessageResponse | None] = SimpleQueue()
        self._drops = drops
        self._break_off = break_off
        self._error: P4RuntimeError | None = None
        self._closed = False

    def put(self, message: p4r.StreamMessageResponse) -> None:
        """Queue a message, or drop it if the client lags."""
        if self._queue.qsize() >= _LIMIT:
            self._drops.count(f"slow client: {message.WhichOneof('update')}")
            return
        self._queue.put(message)

    def put_always(self, message: p4r.StreamMessageResponse) -> None:
        """Queue a message that must not be lost."""
        if self._queue.qsize() >= _HARD_LIMIT:
            self._drops.count("stream ended: the client doesn't read")
            self._break_off()
            return
        self._queue.put(message)

    def close(self, error: P4RuntimeError | None = None) -> None:
        """End the stream after what is queued, with an error if one is given; the first counts."""
        if not self._closed:
            self._closed = True
            self._error = error
            self._queue.put(None)

    def __iter__(self) -> Iterator[p4r.StreamMessageResponse]:
        """The messages until `close`; raises the error that it was closed with."""
        while (message := self._queue.get()) is not None:
            yield message
        if self._error is not None:
            raise self._error
