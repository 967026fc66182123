"""A live TCP socket out of one process and into another one, by Linux's TCP_REPAIR (tcp(7)).

    freeze --> save --> close          the old socket: nobody is told that it is gone
               |
               v bytes
               restore --> thaw        the new one, with other addresses if need be

Moved: sequence numbers, what was received and not yet read, what was sent and not yet acknowledged,
what was written and not yet sent, MSS, window scales, SACK, timestamps with their clock, windows.
Not moved: congestion window, round-trip times, what came out of order (TCP sends it again), and the
socket's other options, which its application sets. Needs CAP_NET_ADMIN.

Nothing may come to a socket between `freeze` and `close`: what it acknowledges then is lost.
"""

from __future__ import annotations

import errno
import fcntl
import json
import socket
import struct
import termios
from dataclasses import dataclass
from typing import Any

from dysco.state.request import StateError

# linux/tcp.h, linux/socket.h
_TCP_REPAIR = 19
_TCP_REPAIR_QUEUE = 20
_TCP_QUEUE_SEQ = 21
_TCP_REPAIR_OPTIONS = 22
_TCP_TIMESTAMP = 24
_TCP_REPAIR_WINDOW = 29
_RECV_QUEUE, _SEND_QUEUE = 1, 2
_SIOCOUTQNSD = 0x894B
_SO_BUF_LOCK = 72
_SO_SNDBUFFORCE, _SO_RCVBUFFORCE = 32, 33
_ESTABLISHED = 1
_TIMESTAMPS, _SACK, _SCALES, _ECN = 1, 2, 4, 8
"""Bits of tcp_info's options."""
_OPTION_MSS, _OPTION_SCALES, _OPTION_SACK, _OPTION_TIMESTAMPS = 2, 3, 4, 8
"""TCP's own numbers of its options."""

_WINDOW = struct.Struct("=5I")
_OPTION = struct.Struct("=II")
_FORMAT = "dysco-tcp 1"
_TRIES = 3
_SPARE = 1 << 17
"""Buffer for what a packet takes in the kernel beside its bytes."""

_STATES = {
    2: "it is not open yet",
    3: "it is not open yet",
    4: "it has sent its FIN",
    5: "it has sent its FIN",
    6: "it is closed",
    7: "it is closed",
    8: "its peer has sent its FIN",
    9: "both sides have sent their FIN",
    10: "it listens",
    11: "both sides have sent their FIN",
}


@dataclass(frozen=True, slots=True)
class Saved:
    """All that is moved of a socket."""

    send_seq: int
    """Of the first byte that is not acknowledged."""
    receive_seq: int
    """Of the first byte that is not read."""
    mss: int
    scales: tuple[int, int] | None
    """Window scales of what it gets and of what it sends; None: not negotiated."""
    sack: bool
    timestamp: int | None
    """Its clock; None: no timestamps."""
    window: tuple[int, int, int, int, int]
    """struct tcp_repair_window."""
    received: bytes
    sent: bytes
    unsent: bytes

    def dump(self) -> bytes:
        """A line of JSON, then the bytes."""
        head = {
            "format": _FORMAT,
            "send_seq": self.send_seq,
            "receive_seq": self.receive_seq,
            "mss": self.mss,
            "scales": self.scales,
            "sack": self.sack,
            "timestamp": self.timestamp,
            "window": self.window,
            "sizes": [len(self.received), len(self.sent), len(self.unsent)],
        }
        return json.dumps(head).encode() + b"\n" + self.received + self.sent + self.unsent

    @staticmethod
    def load(blob: bytes) -> Saved:
        """From `dump`. Raises StateError."""
        line, newline, rest = blob.partition(b"\n")
        try:
            if not newline:
                raise ValueError("it is cut off")
            head = json.loads(line)
            if head["format"] != _FORMAT:
                raise ValueError("another format")
            received, sent, unsent = (_count(size) for size in head["sizes"])
            if received + sent + unsent != len(rest):
                raise ValueError("it is cut off")
            first, second, third, fourth, fifth = (_u32(value) for value in head["window"])
            scales, clock = head["scales"], head["timestamp"]
            return Saved(
                _u32(head["send_seq"]),
                _u32(head["receive_seq"]),
                _u32(head["mss"]),
                None if scales is None else (_u32(scales[0]) & 15, _u32(scales[1]) & 15),
                bool(head["sack"]),
                None if clock is None else _u32(clock),
                (first, second, third, fourth, fifth),
                rest[:received],
                rest[received : received + sent],
                rest[received + sent :],
            )
        except (ValueError, KeyError, TypeError, IndexError) as error:
            raise StateError(f"that is no saved TCP socket: {error!r}") from error


def _u32(value: Any) -> int:
    if not isinstance(value, int) or not 0 <= value < 1 << 32:
        raise ValueError(f"{value!r} is no number of 32 bits")
    return value


def _count(value: Any) -> int:
    if not isinstance(value, int) or value < 0:
        raise ValueError(f"{value!r} is no size")
    return value


def freeze(sock: socket.socket) -> None:
    """From here on it sends nothing by itself. Raises StateError."""
    try:
        _set(sock, _TCP_REPAIR, 1)
    except OSError as error:
        raise _explained(error) from error


def thaw(sock: socket.socket) -> None:
    """It goes on; the kernel sends a window probe, by which its peer knows."""
    try:
        _set(sock, _TCP_REPAIR, 0)
    except OSError as error:
        raise _explained(error) from error


def save(sock: socket.socket) -> Saved:
    """Of a frozen socket, which stays as it is. Raises StateError."""
    timeout = sock.gettimeout()
    try:
        sock.setblocking(False)  # what is not there to be read is not waited for
        for _ in range(_TRIES):
            before = _progress(sock)
            saved = _save(sock)
            if _progress(sock) == before:
                return saved
    except OSError as error:
        raise _explained(error) from error
    finally:
        sock.settimeout(timeout)
    raise StateError("packets still come to the socket: stop them before it is saved")


def _progress(sock: socket.socket) -> tuple[int, int]:
    """What packets that come move."""
    _set(sock, _TCP_REPAIR_QUEUE, _RECV_QUEUE)
    return _get(sock, _TCP_QUEUE_SEQ), _queued(sock, termios.TIOCOUTQ)


def _save(sock: socket.socket) -> Saved:
    info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 8)
    state, options, scales = info[0], info[5], info[6]
    if state != _ESTABLISHED:
        raise StateError(f"the connection can't be moved: {_STATES.get(state, 'it is ending')}")
    if options & _ECN:
        raise StateError("the connection can't be moved: ECN is in use, which can't be restored")
    outstanding = _queued(sock, termios.TIOCOUTQ)
    unsent = _queued(sock, _SIOCOUTQNSD)
    written = _peek(sock, _SEND_QUEUE, outstanding)
    end_of_written = _get(sock, _TCP_QUEUE_SEQ)
    received = _peek(sock, _RECV_QUEUE, _queued(sock, termios.FIONREAD))
    end_of_received = _get(sock, _TCP_QUEUE_SEQ)
    window = sock.getsockopt(socket.IPPROTO_TCP, _TCP_REPAIR_WINDOW, _WINDOW.size)
    first, second, third, fourth, fifth = _WINDOW.unpack(window)
    cut = len(written) - unsent
    return Saved(
        (end_of_written - len(written)) & 0xFFFFFFFF,
        (end_of_received - len(received)) & 0xFFFFFFFF,
        _get(sock, socket.TCP_MAXSEG),
        (scales & 15, scales >> 4) if options & _SCALES else None,
        bool(options & _SACK),
        _get(sock, _TCP_TIMESTAMP) if options & _TIMESTAMPS else None,
        (first, second, third, fourth, fifth),
        received,
        written[:cut],
        written[cut:],
    )


def _peek(sock: socket.socket, queue: int, size: int) -> bytes:
    """The last `size` bytes of a queue: before them may be some that are acknowledged."""
    _set(sock, _TCP_REPAIR_QUEUE, queue)
    if size == 0:
        return b""
    found = b""
    room = size + _SPARE
    while len(found) < size:
        try:
            found = sock.recv(room, socket.MSG_PEEK)
        except BlockingIOError:
            found = b""
        if len(found) < size:
            raise StateError(f"{size} bytes are queued, and {len(found)} can be read")
        if len(found) == room:
            found, room = b"", 2 * room
    return found[-size:]


def restore(saved: Saved, local: tuple[str, int], remote: tuple[str, int]) -> socket.socket:
    """A new socket, frozen, without what was not sent: that is written after `thaw`.

    Raises StateError.
    """
    family = socket.AF_INET6 if ":" in local[0] else socket.AF_INET
    sock = socket.socket(family)
    try:
        _restore(sock, saved, local, remote)
    except OSError as error:
        sock.close()
        raise _explained(error, f"{local} to {remote}: ") from error
    except BaseException:
        sock.close()
        raise
    return sock


def _restore(
    sock: socket.socket, saved: Saved, local: tuple[str, int], remote: tuple[str, int]
) -> None:
    _set(sock, _TCP_REPAIR, 1)
    locks = sock.getsockopt(socket.SOL_SOCKET, _SO_BUF_LOCK)
    sizes = [sock.getsockopt(socket.SOL_SOCKET, o) for o in (socket.SO_SNDBUF, socket.SO_RCVBUF)]
    room = 2 * max(len(saved.received), len(saved.sent)) + _SPARE
    for option in (_SO_SNDBUFFORCE, _SO_RCVBUFFORCE):
        sock.setsockopt(socket.SOL_SOCKET, option, room)
    sock.bind(local)
    for queue, seq in ((_SEND_QUEUE, saved.send_seq), (_RECV_QUEUE, saved.receive_seq)):
        _set(sock, _TCP_REPAIR_QUEUE, queue)
        _set_u32(sock, _TCP_QUEUE_SEQ, seq)
    sock.connect(remote)  # no packet: under repair it is open at once
    options = [(_OPTION_MSS, saved.mss)]
    if saved.scales is not None:
        options.append((_OPTION_SCALES, saved.scales[0] | saved.scales[1] << 16))
    if saved.sack:
        options.append((_OPTION_SACK, 0))
    if saved.timestamp is not None:
        options.append((_OPTION_TIMESTAMPS, 0))
    packed = b"".join(_OPTION.pack(*option) for option in options)
    sock.setsockopt(socket.IPPROTO_TCP, _TCP_REPAIR_OPTIONS, packed)
    if saved.timestamp is not None:
        _set_u32(sock, _TCP_TIMESTAMP, saved.timestamp)
    for queue, content in ((_RECV_QUEUE, saved.received), (_SEND_QUEUE, saved.sent)):
        _set(sock, _TCP_REPAIR_QUEUE, queue)
        _put(sock, content)
    sock.setsockopt(socket.IPPROTO_TCP, _TCP_REPAIR_WINDOW, _WINDOW.pack(*saved.window))
    # The sizes that sockets have by default, and the kernel's leave to change them.
    for option, size in zip((_SO_SNDBUFFORCE, _SO_RCVBUFFORCE), sizes, strict=True):
        sock.setsockopt(socket.SOL_SOCKET, option, size // 2)
    sock.setsockopt(socket.SOL_SOCKET, _SO_BUF_LOCK, locks)


def _put(sock: socket.socket, content: bytes) -> None:
    view = memoryview(content)
    while view:
        try:
            view = view[sock.send(view, socket.MSG_DONTWAIT) :]
        except BlockingIOError as error:
            raise StateError(f"no room for {len(content)} bytes in the socket") from error


def _queued(sock: socket.socket, request: int) -> int:
    size: int = struct.unpack("=i", fcntl.ioctl(sock, request, b"\0\0\0\0"))[0]
    return size


def _get(sock: socket.socket, option: int) -> int:
    return sock.getsockopt(socket.IPPROTO_TCP, option) & 0xFFFFFFFF


def _set(sock: socket.socket, option: int, value: int) -> None:
    sock.setsockopt(socket.IPPROTO_TCP, option, value)


def _set_u32(sock: socket.socket, option: int, value: int) -> None:
    sock.setsockopt(socket.IPPROTO_TCP, option, struct.pack("=I", value))


def _explained(error: OSError, where: str = "") -> StateError:
    if error.errno == errno.EPERM:
        return StateError(f"{where}TCP_REPAIR needs CAP_NET_ADMIN in the socket's namespace")
    return StateError(f"{where}{error.strerror or error}")
