"""Captures on links: one thread reads packet sockets in as many namespaces as there are taps."""

from __future__ import annotations

import ctypes
import functools
import selectors
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from types import TracebackType
from typing import TypeVar

from dysco.topo.namespace import Namespace
from dysco.topo.packets import IcmpError, Packet, Segment, parse

SNAP = 512
"""Bytes of each frame that are kept."""

_ETH_P_ALL = 3
_SO_ATTACH_FILTER = 26
_SOL_PACKET, _PACKET_STATISTICS = 263, 6
_BUFFER = 16 << 20
_MAX_FRAMES = 200_000
_POLL_SECONDS = 0.05

_Transport = TypeVar("_Transport", Segment, IcmpError)


class Kind(Enum):
    """What a capture keeps, as classic BPF: code, jump if true, jump if false, operand."""

    ALL = (
        (0x28, 0, 0, 12),  # ethertype
        (0x15, 1, 0, 0x0800),
        (0x15, 0, 1, 0x86DD),
        (0x06, 0, 0, SNAP),
        (0x06, 0, 0, 0),
    )
    """All IP packets."""

    CONTROL = (
        (0x28, 0, 0, 12),  # ethertype
        (0x15, 0, 5, 0x0800),
        (0x30, 0, 0, 23),  # IPv4: protocol
        (0x15, 0, 9, 6),
        (0xB1, 0, 0, 14),  # x: length of the IPv4 header
        (0x50, 0, 0, 14 + 13),  # TCP flags, x further on
        (0x45, 5, 6, 0x07),  # FIN, SYN or RST
        (0x15, 0, 5, 0x86DD),
        (0x30, 0, 0, 20),  # IPv6: next header
        (0x15, 0, 3, 6),
        (0x30, 0, 0, 14 + 40 + 13),
        (0x45, 0, 1, 0x07),
        (0x06, 0, 0, SNAP),
        (0x06, 0, 0, 0),
    )
    """TCP segments that open or end a connection."""


@dataclass(frozen=True, slots=True)
class Tap:
    """Where to capture."""

    label: str
    namespace: Namespace
    ifname: str


@dataclass(frozen=True)
class Frame:
    """A captured frame, its first SNAP bytes."""

    tap: str
    outgoing: bool
    """True if the tap's namespace sent it."""
    time: float
    data: bytes

    @functools.cached_property
    def packet(self) -> Packet:
        """What it says."""
        return parse(self.data)


class Capture:
    """A running capture, for a `with`; afterwards `frames` holds what it saw, in order."""

    def __init__(self, taps: Sequence[Tap], kind: Kind = Kind.ALL) -> None:
        """Open the taps: what passes from now on is seen."""
        self.frames: list[Frame] = []
        self.missed = 0
        """Frames that passed and weren't kept, for want of room or time."""
        self._sockets = {_open(tap, kind): tap.label for tap in taps}
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._read, name="capture", daemon=True)

    def __enter__(self) -> Capture:
        """Start to read."""
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Read what is still there, then close the taps."""
        self._end.set()
        self._thread.join()
        for tap in self._sockets:
            statistics = tap.getsockopt(_SOL_PACKET, _PACKET_STATISTICS, 8)
            self.missed += int(struct.unpack("II", statistics)[1])
            tap.close()

    def count(self, condition: Callable[[Frame], bool]) -> int:
        """How many of the frames so far fulfil a condition; also while it runs."""
        return sum(map(condition, self.frames[:]))

    def _read(self) -> None:
        with selectors.DefaultSelector() as selector:
            for tap in self._sockets:
                selector.register(tap, selectors.EVENT_READ, data=tap)
            while True:
                # The event is asked for first: what came before it was set is still read.
                ending = self._end.is_set()
                ready = selector.select(0 if ending else _POLL_SECONDS)
                for key, _ in ready:
                    self._read_tap(key.data)
                if ending and not ready:
                    return

    def _read_tap(self, tap: socket.socket) -> None:
        label = self._sockets[tap]
        while True:
            try:
                data, address = tap.recvfrom(SNAP)
            except BlockingIOError:
                return
            except OSError:  # its interface went down or away: nothing more will come
                return
            if len(self.frames) >= _MAX_FRAMES:
                self.missed += 1
                continue
            outgoing = address[2] == socket.PACKET_OUTGOING
            self.frames.append(Frame(label, outgoing, time.time(), data))


def _open(tap: Tap, kind: Kind) -> socket.socket:
    program = b"".join(struct.pack("HBBI", *step) for step in kind.value)
    steps = ctypes.create_string_buffer(program, len(program))
    with tap.namespace.entered():
        # Protocol 0 until it is bound: else it would hear every interface for a moment.
        opened = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
    filter_program = struct.pack("HL", len(kind.value), ctypes.addressof(steps))
    opened.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, filter_program)
    opened.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER)
    opened.bind((tap.ifname, _ETH_P_ALL))
    opened.setblocking(False)
    return opened


def segments(frames: Iterable[Frame], tap: str | None = None) -> Iterator[tuple[Frame, Segment]]:
    """The TCP segments among the frames, of one tap or of all."""
    return _transports(frames, tap, Segment)


def icmp_errors(
    frames: Iterable[Frame], tap: str | None = None
) -> Iterator[tuple[Frame, IcmpError]]:
    """The ICMP errors about TCP segments among the frames, of one tap or of all."""
    return _transports(frames, tap, IcmpError)


def _transports(
    frames: Iterable[Frame], tap: str | None, kind: type[_Transport]
) -> Iterator[tuple[Frame, _Transport]]:
    for frame in frames:
        if tap is None or frame.tap == tap:
            transport = frame.packet.transport
            if isinstance(transport, kind):
                yield frame, transport


def all_from(came_out: Iterable[Frame], went_in: Iterable[Frame]) -> bool:
    """True if all packets that came out of something went in as they are, byte by byte.

    But for TCP's checksum: an offloaded one is finished wherever the packet leaves for real.
    """
    return Counter(map(_without_checksum, came_out)) <= Counter(map(_without_checksum, went_in))


def _without_checksum(frame: Frame) -> bytes:
    packet = frame.packet
    if packet.network is None or not isinstance(packet.transport, Segment):
        return frame.data
    at = len(frame.data) - len(packet.network.payload) + 16
    return frame.data[:at] + b"\0\0" + frame.data[at + 2 :]


def write_pcap(frames: Iterable[Frame], directory: Path) -> None:
    """Write a pcap file for each tap."""
    directory.mkdir(parents=True, exist_ok=True)
    by_tap: dict[str, list[bytes]] = {}
    for frame in frames:
        seconds = int(frame.time)
        micros = int((frame.time - seconds) * 1e6)
        size = len(frame.data)
        record = struct.pack("=IIII", seconds, micros, size, size) + frame.data
        by_tap.setdefault(frame.tap, []).append(record)
    header = struct.pack("=IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, SNAP, 1)
    for tap, records in by_tap.items():
        file = directory / f"{tap.replace('/', '-')}.pcap"
        file.write_bytes(header + b"".join(records))
