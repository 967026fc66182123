"""Messages towards the client of one StreamChannel.

    arbitration, digests, errors ... --put--> native queue --> client (packet-ins: server/hot.c)

A client that reads too slowly loses packet-ins and notifications, counted by kind, never its
arbitration messages: if even those pile up its stream is ended.
"""

from __future__ import annotations

from finsy.proto import p4r

from softnic.p4runtime.drops import Drops
from softnic.p4runtime.errors import Code, P4RuntimeError
from softnic.p4runtime.front import Front, Sent

_LIMIT = 2048
"""Messages waiting for one client, as for packet-ins (server/hot.c)."""
_HARD_LIMIT = 2 * _LIMIT


class Outbox:
    """The way to one client; any thread."""

    def __init__(self, front: Front, call: int, drops: Drops) -> None:
        self.call = call
        """The stream's number."""
        self._front = front
        self._drops = drops

    def put(self, message: p4r.StreamMessageResponse) -> None:
        """Queue a message, or drop it if the client lags."""
        sent = self._front.send(self.call, message.SerializeToString(), _LIMIT)
        if sent is Sent.DROPPED:
            self._drops.count(f"slow client: {message.WhichOneof('update')}")

    def put_always(self, message: p4r.StreamMessageResponse) -> None:
        """Queue a message that must not be lost, or end the stream."""
        sent = self._front.send(self.call, message.SerializeToString(), _HARD_LIMIT, must=True)
        if sent is Sent.BROKEN:
            self._drops.count("stream ended: the client doesn't read")

    def close(self, error: P4RuntimeError | None = None) -> None:
        """End the stream after what is queued, with an error if one is given; the first counts."""
        if error is None:
            self._front.end(self.call, Code.OK)
        else:
            self._front.end(self.call, error.code, error.message)
