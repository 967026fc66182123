"""Control messages and announcements on their way through the network: lost, repeated, late.

agent or device --UDP 17529--> router: nft drops it --> next agent or device
                                 |  (Weather)  ^
                                 '--> copies --' later, twice, in another order, or never
"""

from __future__ import annotations

import heapq
import itertools
import random
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import IntEnum
from types import TracebackType

from chained import Network, nft

from dysco.agent.reconfigure.in_band import OPTION

PORT = 17529
_ETH_P_IP = 0x0800
_OUTGOING = 4
_ETHERNET, _UDP = 14, 8
_AGENTS, _DEVICES = b"DyCo", b"DySA"
_FORWARD = "udp dport 17529"


class Kind(IntEnum):
    """The messages between agents, by their number in a datagram."""

    REQUEST_LOCK = 1
    ACK_LOCK = 2
    NACK_LOCK = 3
    CANCEL_LOCK = 4
    ACK_CANCEL = 5
    RELEASE = 6
    ACK_RELEASE = 7
    DRAINED = 8
    ASK_REVOKE = 9
    REVOKED = 10
    CUTOFF = 11


def dropped(kind: Kind, sender: str = "") -> str:
    """The nft rules that lose all messages of a kind, as datagrams and in band; of one sender."""
    who = f"ip saddr {sender} " if sender else ""
    magic, option = (int.from_bytes(b, "big") for b in (_AGENTS, OPTION))
    datagram = f"{who}{_FORWARD} @th,64,32 {magic:#x} @th,104,8 {int(kind)} counter drop"
    in_band = f"{who}meta l4proto tcp @th,160,64 {option:#x} @th,264,8 {int(kind)} counter drop"
    return f"{datagram}\n {in_band}"


def announcements_dropped(sender: str) -> str:
    """The nft rules that lose the announcements of a host's device, and those of its agent."""
    magic = int.from_bytes(_DEVICES, "big")
    announcement = f"ip saddr {sender} {_FORWARD} @th,64,32 {magic:#x} counter drop"
    return f"{announcement}\n {dropped(Kind.CUTOFF, sender)}"


@contextmanager
def rule(network: Network, text: str) -> Iterator[None]:
    """A rule of the router for the length of a `with`."""
    with nft(network.topology.routers["router"], "forward", text):
        yield


Fate = Callable[[int | None, random.Random], list[float]]
"""What becomes of a datagram: seconds until each of its copies goes on. None: an announcement."""


class Weather:
    """Takes all datagrams between agents and between devices, and decides about each; IPv4."""

    def __init__(self, network: Network, fate: Fate, seed: int) -> None:
        """Begins with the `with`."""
        self.seen = 0
        self._fate, self._source = fate, random.Random(seed)
        self._router = network.topology.routers["router"]
        self._late: list[tuple[float, int, bytes]] = []
        self._done = threading.Event()
        self._number = itertools.count()
        self._thread = threading.Thread(target=self._work, daemon=True)
        self._rule = rule(network, f"ip version 4 {_FORWARD} counter drop")

    def __enter__(self) -> Weather:
        """From here on."""
        with self._router.entered():
            self._tap = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(_ETH_P_IP))
            self._way = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
        self._rule.__enter__()
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Calm again; what was late is lost."""
        self._rule.__exit__(kind, error, traceback)
        self._done.set()
        self._thread.join(10.0)
        self._tap.close()
        self._way.close()

    def _work(self) -> None:
        while not self._done.is_set():
            now = time.monotonic()
            while self._late and self._late[0][0] <= now:
                packet = heapq.heappop(self._late)[2]
                self._way.sendto(packet, (socket.inet_ntoa(packet[16:20]), 0))
            wait = self._late[0][0] - now if self._late else 0.05
            self._tap.settimeout(min(max(wait, 0.0005), 0.05))
            try:
                frame, (_, _, way, *_) = self._tap.recvfrom(65535)
            except TimeoutError:
                continue
            if way != _OUTGOING:
                self._take(frame[_ETHERNET:])

    def _take(self, packet: bytes) -> None:
        udp = packet[(packet[0] & 15) * 4 :]
        if packet[9] != socket.IPPROTO_UDP or udp[2:4] != struct.pack("!H", PORT):
            return
        self.seen += 1
        content = udp[_UDP:]
        kind = content[5] if content.startswith(_AGENTS) else None
        for delay in self._fate(kind, self._source):
            heapq.heappush(self._late, (time.monotonic() + delay, next(self._number), packet))
