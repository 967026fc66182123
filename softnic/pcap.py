"""Capture of a device's ports to pcap files, as bmv2's `--pcap`: INTERFACE_in and _out.
And the frames of such files (https://datatracker.ietf.org/doc/draft-ietf-opsawg-pcap/).

Packets never pass through Python on their way through the pipeline; this listens beside it, on
packet sockets of its own, and may miss frames under load (the kernel's count is logged).
"""

from __future__ import annotations

import logging
import os
import selectors
import socket
import struct
import threading
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

_log = logging.getLogger(__name__)

_ETH_P_ALL = 0x0003
_SOL_PACKET = 263
_PACKET_STATISTICS = 6
_SNAPLEN = 262144
_LINKTYPE_ETHERNET = 1
_RECEIVE_BUFFER = 4 << 20
_FILE_HEADER = struct.pack("<IHHiIII", 0xA1B23C4D, 2, 4, 0, 0, _SNAPLEN, _LINKTYPE_ETHERNET)
"""The magic for nanosecond times."""
_RECORD = struct.Struct("<IIII")
_MAGIC = {bytes.fromhex(m): o for m, o in (("a1b2c3d4", ">"), ("a1b23c4d", ">"))}
_MAGIC |= {m[::-1]: "<" for m in _MAGIC}
"""The first bytes of a file, of micro- or nanoseconds, and the order of its numbers."""
_JOIN_S = 2.0


class _Port:
    """One interface: its socket and its two files."""

    def __init__(self, directory: Path, interface: str) -> None:
        self.interface = interface
        self.socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(_ETH_P_ALL))
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _RECEIVE_BUFFER)
        self.socket.bind((interface, _ETH_P_ALL))
        self.socket.setblocking(False)
        self._files = {name: _create(directory, interface, name) for name in ("in", "out")}

    def take(self) -> None:
        """Write the frames that wait."""
        while True:
            try:
                frame, address = self.socket.recvfrom(_SNAPLEN)
            except BlockingIOError:
                break
            except OSError as error:
                _log.warning("capture on %s: %s", self.interface, error)
                break
            now_ns = time.time_ns()
            outgoing = address[2] == socket.PACKET_OUTGOING
            record = _RECORD.pack(
                now_ns // 1_000_000_000, now_ns % 1_000_000_000, len(frame), len(frame)
            )
            self._files["out" if outgoing else "in"].write(record + frame)
        for file in self._files.values():
            file.flush()

    def close(self) -> None:
        """Close all, and say what was missed."""
        statistics = self.socket.getsockopt(_SOL_PACKET, _PACKET_STATISTICS, 8)
        missed = struct.unpack("II", statistics)[1]
        if missed:
            _log.warning("capture on %s missed %d frames", self.interface, missed)
        self.socket.close()
        for file in self._files.values():
            file.close()


class Capture:
    """Captures interfaces until closed."""

    def __init__(self, directory: Path, interfaces: Iterable[str]) -> None:
        """Begin at once; OSError if an interface or file can't be opened."""
        directory.mkdir(parents=True, exist_ok=True)
        self._selector = selectors.DefaultSelector()
        self._wake, self._woken = os.pipe()
        self._selector.register(self._wake, selectors.EVENT_READ)
        self._ports = [_Port(directory, interface) for interface in interfaces]
        for port in self._ports:
            self._selector.register(port.socket, selectors.EVENT_READ, port)
        self._thread = threading.Thread(target=self._run, name="pcap", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Write what has arrived, and stop."""
        os.write(self._woken, b"\0")
        self._thread.join(timeout=_JOIN_S)
        for port in self._ports:
            port.take()
            port.close()
        self._selector.close()
        os.close(self._wake)
        os.close(self._woken)

    def _run(self) -> None:
        while True:
            for key, _ in self._selector.select():
                if not isinstance(key.data, _Port):
                    return
                key.data.take()


def _create(directory: Path, interface: str, name: str) -> BinaryIO:
    file = (directory / f"{interface}_{name}.pcap").open("wb")
    file.write(_FILE_HEADER)
    return file


def read_frames(path: Path) -> Iterator[bytes]:
    """The frames of a pcap file of Ethernet. ValueError where it isn't one."""
    data = path.read_bytes()
    order = _MAGIC.get(data[:4])
    if order is None or len(data) < len(_FILE_HEADER):
        raise ValueError(f"{path}: not a pcap file (of pcapng: editcap -F pcap makes one)")
    (link,) = struct.unpack_from(order + "20xI", data)
    if link & 0xFFFF != _LINKTYPE_ETHERNET:
        raise ValueError(f"{path}: its link type is {link & 0xFFFF}, not Ethernet")
    at, record = len(_FILE_HEADER), struct.Struct(order + "IIII")
    while at < len(data):
        kept = record.unpack_from(data, at)[2] if at + record.size <= len(data) else len(data)
        at += record.size
        if at + kept > len(data):
            raise ValueError(f"{path}: it ends within a packet")
        yield data[at : at + kept]
        at += kept
