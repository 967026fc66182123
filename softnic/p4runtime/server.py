"""The server around a device: native code at the front, threads for what it hands over."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from softnic.native import NativeDataPlane
from softnic.p4runtime.device import Device
from softnic.p4runtime.errors import Code
from softnic.p4runtime.front import Front, Handed, Kind, Queue, Tls
from softnic.p4runtime.notifier import Notifier
from softnic.p4runtime.service import MAX_READS, P4RuntimeService

_log = logging.getLogger(__name__)

_THREADS = {
    Queue.STREAMS: 1,  # in order; what it does is short
    Queue.WRITES: 2,  # one applies while another reads its request
    Queue.CALLS: MAX_READS + 4,  # a read takes as long as its client
    Queue.PUSHES: 2,  # one compiles while another is refused
}


class Server:
    """Serves a device on one address."""

    def __init__(self, device: Device, address: str, tls: Tls | None = None) -> None:
        """Bind at once: `address` is HOST:PORT (port 0: a free one) or unix:PATH. BindError."""
        if not isinstance(device.dp, NativeDataPlane):
            raise TypeError("the server works on a NativeDataPlane")
        self._device = device
        self._notifier = Notifier(device)
        self._front = Front(device.dp.address, address, tls)
        self._service = P4RuntimeService(device, self._front)
        self._threads: list[threading.Thread] = []
        self.address = _with_port(address, self._front.port)

    def start(self) -> None:
        """Begin to serve."""
        handlers: dict[Queue, Callable[[Handed], None]] = {
            Queue.STREAMS: self._service.stream,
            Queue.WRITES: self._service.call,
            Queue.CALLS: self._service.call,
            Queue.PUSHES: self._service.call,
        }
        for queue, count in _THREADS.items():
            for number in range(count):
                name = f"{queue.name.lower()}-{number}"
                thread = threading.Thread(
                    target=self._serve, args=(queue, handlers[queue]), name=name, daemon=True
                )
                thread.start()
                self._threads.append(thread)
        self._device.drops.include(self._front.losses)
        self._device.attach(self._front)
        self._notifier.start()
        self._front.start()

    def stop(self, grace_s: float = 1.0) -> None:
        """End streams and serving; the data plane stays the caller's."""
        self._device.clients.close()
        self._front.stop(grace_s)
        self._notifier.stop()
        for thread in self._threads:
            thread.join(timeout=grace_s + 1)
        if not any(thread.is_alive() for thread in self._threads):  # none compiles still
            self._front.free()

    def _serve(self, queue: Queue, handle: Callable[[Handed], None]) -> None:
        while (handed := self._front.take(queue)) is not None:
            try:
                handle(handed)
            except Exception:
                _log.exception("%s failed", handed.method.name)
                if handed.kind is not Kind.CLOSED:
                    self._front.end(handed.call, Code.INTERNAL, "the target failed, see its log")
            finally:
                self._front.done(handed)


def _with_port(address: str, port: int) -> str:
    """The address with the port that was picked in place of 0."""
    if address.startswith("unix:"):
        return address
    host, _, asked = address.rpartition(":")
    return f"{host}:{port}" if asked == "0" else address
