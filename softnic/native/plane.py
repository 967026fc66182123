"""One device: its life, the packets in and out of it, its events and statistics."""

from __future__ import annotations

import ctypes
import logging
import os
import struct
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest

from softnic.clib import buffer
from softnic.dataplane import (
    DigestEvent,
    Event,
    IdleTimeoutEvent,
    Match,
    PacketInEvent,
    PortStats,
    Program,
)
from softnic.native.cells import Cells
from softnic.native.choices import Choices
from softnic.native.handle import DataPlaneError, numbers_of
from softnic.native.program import NativeProgram
from softnic.native.tables import Tables, trim
from softnic.native.traces import Traces

_log = logging.getLogger("softnic.program")


DROP_REASONS = (
    "no-pipeline",
    "program",
    "no-port",
    "port-down",
    "tx-full",
    "too-big",
    "tx-error",
    "no-clone-session",
    "no-multicast-group",
    "clone-limit",
    "loop-limit",
    "burst-full",
    "event-queue-full",
    "packet-out-queue-full",
    "offload-lost",
    "rx-overrun",
    "rx-truncated",
)
"""In the order of `enum sn_drop` (runtime/internal.h)."""

PROGRAM_EVENTS = ("log-msg", "assertion-failed", "index-out-of-bounds", "loop-limit")

_OUT = struct.Struct("=IIII10s6x")
_EVENT = struct.Struct("=IIII")
_EVENT_BUFFER = 1 << 20
_INJECT_BUFFER = 1 << 22
_BURST = 64
_VNET_SIZE = 10
_MAX_FRAME = 65535


@dataclass(frozen=True, slots=True)
class Sent:
    """A frame that came out of `NativeDataPlane.inject`, with its virtio header."""

    port: int
    frame: bytes
    vnet: bytes


class NativeDataPlane(Tables, Cells, Choices, Traces):
    """One P4 device in native code (see `dataplane.DataPlane`). One worker thread moves frames.

    `ports`: numbers (below 512) to interface names, which must exist in the caller's network
    namespace. Raises `DataPlaneError` where they can't be opened (needs CAP_NET_RAW).
    """

    def __init__(
        self,
        ports: Mapping[int, str],
        *,
        cpu_port: int | None,
        drop_port: int = 511,
        name: str = "softnic",
    ) -> None:
        super().__init__(name, cpu_port, drop_port)
        self._cpu_port = cpu_port
        self._ports = dict(ports)
        self._table_names: list[str] = []
        self._event_lock = threading.Lock()
        self._event_buffer = buffer(_EVENT_BUFFER)
        self._closed = False
        for number, interface in self._ports.items():
            if self._lib.sn_device_add_port(self._dev, number, interface.encode()) != 0:
                self._free()
                raise DataPlaneError(f"{name}: port {number}@{interface}: numbers are 0 to 511")
        rc = self._lib.sn_device_start(self._dev)
        if rc != 0:
            self._free()
            raise DataPlaneError(
                f"{name}: cannot open the interfaces "
                f"{', '.join(self._ports.values()) or '(none)'}: {os.strerror(-rc)}"
            )

    # ---- program

    @property
    def program(self) -> Program | None:
        """The program that is running, if any."""
        return self._program

    def load(self, program: Program) -> None:
        """Start `program` with empty tables (const entries and defaults in place)."""
        if not isinstance(program, NativeProgram):
            raise DataPlaneError(f"{self.name}: not a program of compile_program")
        if self._lib.sn_device_load(self._d, program.descriptor()) != 0:
            raise DataPlaneError(f"{self.name}: the program can't be loaded: out of memory")
        self._program = program
        self._table_names = list(program.tables)
        self._numbers = numbers_of(program)
        self._lib.sn_device_listen(self._d, int(_log.isEnabledFor(logging.INFO)))

    # ---- packets

    def packet_out(self, frame: bytes) -> None:
        """Put a frame, with the program's packet-out header in front, in at the CPU port.

        The queue is bounded; what doesn't fit is counted as a drop of the CPU port. ValueError for
        a frame that is longer than any can be.
        """
        if len(frame) > _MAX_FRAME:
            raise ValueError(f"{len(frame)} bytes are no frame, {_MAX_FRAME} are the most")
        self._lib.sn_packet_out(self._d, frame, len(frame))

    def events(self, timeout: float) -> list[Event]:
        """Wait up to `timeout` seconds for events; the queue is bounded, its drops are counted."""
        with self._event_lock:
            n = self._lib.sn_events(
                self._d, self._event_buffer, _EVENT_BUFFER, max(int(timeout * 1e9), 0)
            )
            data = memoryview(self._event_buffer).cast("B")[:n].tobytes()
        out: list[Event] = []
        at = 0
        while at < n:
            kind, number, length, priority = _EVENT.unpack_from(data, at)
            start = at + _EVENT.size
            event = self._event(kind, number, priority, data[start : start + length])
            if event is not None:
                out.append(event)
            at += (_EVENT.size + length + 7) & ~7
        return out

    def wake(self) -> None:
        """Make a waiting `events` return now, with what there is."""
        self._lib.sn_wake(self._d)

    def _event(self, kind: int, number: int, priority: int, data: bytes) -> Event | None:
        if kind == 1:
            return PacketInEvent(data)
        program = self._program
        if program is None:
            return None
        if kind == 2 and number < len(program.digests):
            return DigestEvent(list(program.digests)[number], data)
        if kind == 3 and number < len(self._table_names):
            name = self._table_names[number]
            half = len(data) // 2
            mask = trim(program.tables[name], data[half:])
            return IdleTimeoutEvent(name, Match(data[:half], mask, priority))
        if kind == 4 and number < len(program.messages):
            _log.info("%s: %s", self.name, _filled(program.messages[number], data))
        return None  # of a program that was replaced meanwhile

    def inject(self, port: int, frame: bytes, vnet: bytes | None = None) -> list[tuple[int, bytes]]:
        """Run one frame through at once, without interfaces: what comes out, where, in order.

        Frames to the CPU port are among the results and don't become events.
        """
        return [(s.port, s.frame) for s in self.inject_vnet(port, frame, vnet)]

    def inject_vnet(self, port: int, frame: bytes, vnet: bytes | None = None) -> list[Sent]:
        """As `inject`; with the virtio header (10 bytes, host order) of each frame."""
        if vnet is not None and len(vnet) != _VNET_SIZE:
            raise ValueError(f"a virtio header has {_VNET_SIZE} bytes")
        room = buffer(_INJECT_BUFFER)
        n = self._lib.sn_inject(self._d, port, frame, len(frame), vnet, room, _INJECT_BUFFER)
        return self._sent(room, n)

    def inject_burst(self, frames: Sequence[tuple[int, bytes]]) -> list[tuple[int, bytes]]:
        """As `inject`, of up to 64 frames, each with its port, that come at once."""
        room, count = buffer(_INJECT_BUFFER), len(frames)
        if count > _BURST:
            raise ValueError(f"{count} frames are no burst, {_BURST} are the most")
        ports = (ctypes.c_uint32 * count)(*(port for port, _ in frames))
        lengths = (ctypes.c_uint32 * count)(*(len(frame) for _, frame in frames))
        data = b"".join(frame for _, frame in frames)
        n = self._lib.sn_inject_burst(self._d, ports, data, lengths, count, room, _INJECT_BUFFER)
        return [(s.port, s.frame) for s in self._sent(room, n)]

    def _sent(self, room: ctypes.Array[ctypes.c_uint8], n: int) -> list[Sent]:
        if n < 0:
            raise DataPlaneError(f"{self.name}: more than {_INJECT_BUFFER} bytes came out")
        data, at = memoryview(room).cast("B")[:n].tobytes(), 0
        out = []
        while at < n:
            size, to, length, _, header = _OUT.unpack_from(data, at)
            start = at + _OUT.size
            out.append(Sent(to, data[start : start + length], header))
            at += size
        return out

    def loop(self, port: int, frames: Sequence[bytes], rounds: int) -> tuple[float, int]:
        """Run frames of one length through, memory to memory: seconds taken, frames out."""
        out = ctypes.c_uint64(0)
        ns = self._lib.sn_loop(
            self._d,
            port,
            b"".join(frames),
            len(frames[0]),
            len(frames),
            rounds,
            ctypes.byref(out),
        )
        return ns / 1e9, out.value

    # ---- statistics

    def program_events(self) -> dict[str, int]:
        """What programs did since the start that may be a mistake, by name: `PROGRAM_EVENTS`."""
        values = (ctypes.c_uint64 * len(PROGRAM_EVENTS))()
        self._lib.sn_event_counts(self._d, values)
        return dict(zip(PROGRAM_EVENTS, values, strict=True))

    def ports(self) -> list[PortStats]:
        """Statistics of every port, the CPU port included.

        Last comes a port without interface, -1: what was sent to ports that don't exist.
        """
        out = []
        names = list(self._ports.values())
        for i in range(len(names) + 2):
            v = (ctypes.c_uint64 * (6 + len(DROP_REASONS)))()
            self._lib.sn_port_stats(self._d, i, v)
            real, cpu = i < len(names), i == len(names)
            if cpu and self._cpu_port is None:
                continue
            drops = {r: n for r, n in zip(DROP_REASONS, v[6:], strict=True) if n}
            out.append(
                PortStats(
                    port=int(v[0]) if real or cpu else -1,
                    interface=names[i] if real else "cpu" if cpu else "",
                    up=bool(v[1]) or cpu,
                    rx_frames=v[2],
                    rx_bytes=v[3],
                    tx_frames=v[4],
                    tx_bytes=v[5],
                    drops=drops,
                )
            )
        return out

    def close(self) -> None:
        """Stop the threads, release the ports. No other call may be under way or follow."""
        if not self._closed:
            self._closed = True
            if self._dev is not None:
                self._lib.sn_device_stop(self._dev)
                with self._event_lock:  # a reader that was waiting has come back
                    self._free()


def _filled(text: str, data: bytes) -> str:
    """A message of the program with its arguments (16 bytes each) where `{}` stands."""
    out, *rest = text.split("{}")
    args = [str(int.from_bytes(data[i : i + 16], "big")) for i in range(0, len(data), 16)]
    for value, part in zip_longest(args[: len(rest)], rest, fillvalue="{}"):
        out += value + part
    return out
