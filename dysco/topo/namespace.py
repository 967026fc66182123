"""Network namespaces without names: each lives as long as somebody holds its descriptor.

Linux lets every thread be in a network namespace of its own. `entered()` moves the calling thread
for the length of a `with`; sockets made and processes started meanwhile stay in the namespace.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pyroute2 import IPRoute

from dysco.topo import cage, system
from dysco.topo.process import Process, ProcessError

_SELF = "/proc/thread-self/ns/net"


class Namespace:
    """A network namespace with its loopback up, and the processes started in it."""

    def __init__(self, name: str, logs: Path) -> None:
        """Make the namespace. Logs of its processes go to `logs`. Raises cage.CageError."""
        if not cage.inside():
            raise cage.CageError(
                "not in a cage: start this program with `python -m dysco.topo.cage -- ...`"
            )
        self.name = name
        self._logs = logs
        self._processes: list[Process] = []
        before = os.open(_SELF, os.O_RDONLY | os.O_CLOEXEC)
        try:
            system.unshare(system.CLONE_NEWNET)
            self.fd = os.open(_SELF, os.O_RDONLY | os.O_CLOEXEC)
            # Sockets opened here stay here: this one configures the namespace from anywhere.
            self.ip: Any = IPRoute()
        finally:
            system.setns(before, system.CLONE_NEWNET)
            os.close(before)
        self.ip.link("set", index=1, state="up")

    @contextmanager
    def entered(self) -> Iterator[None]:
        """The calling thread is in this namespace for the length of the `with`."""
        before = os.open(_SELF, os.O_RDONLY | os.O_CLOEXEC)
        system.setns(self.fd, system.CLONE_NEWNET)
        try:
            yield
        finally:
            system.setns(before, system.CLONE_NEWNET)
            os.close(before)

    def start(
        self, name: str, argv: Sequence[str], environment: Mapping[str, str] | None = None
    ) -> Process:
        """Start a long-running process here; it is ended with the namespace at the latest."""
        with self.entered():
            process = Process(name, list(argv), self._logs / f"{name}.log", environment)
        self._processes.append(process)
        return process

    def run(
        self, argv: Sequence[str], *, seconds: float = 20.0, stdin: str = "", check: bool = True
    ) -> str:
        """Run a command here to its end; its standard output. Raises ProcessError.

        With `check` unset a status other than 0 is no error.
        """
        try:
            with self.entered():
                child = subprocess.Popen(
                    list(argv),
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.PIPE,
                    text=True,
                )
        except OSError as error:
            raise ProcessError(f"{self.name}: can't start {argv[0]}: {error.strerror}") from error
        with child:
            try:
                out, err = child.communicate(stdin, seconds)
            except subprocess.TimeoutExpired as error:
                raise ProcessError(
                    f"{self.name}: {' '.join(argv)} still ran after {seconds:g} s"
                ) from error
            finally:
                child.kill()
        if check and child.returncode:
            raise ProcessError(
                f"{self.name}: {' '.join(argv)} ended with status {child.returncode}: {err.strip()}"
            )
        return out

    def sysctl(self, settings: Mapping[str, str | int]) -> None:
        """Write kernel settings, named by their paths below /proc/sys/net."""
        with self.entered():
            for path, value in settings.items():
                Path("/proc/sys/net", path).write_text(str(value))

    def link_index(self, ifname: str) -> int:
        """The kernel's number of an interface. Raises KeyError."""
        found = self.ip.link_lookup(ifname=ifname)
        if not found:
            raise KeyError(f"no interface {ifname} in {self.name}")
        return int(found[0])

    def close(self) -> None:
        """End the processes, last started first, and let go of the namespace."""
        for process in reversed(self._processes):
            process.terminate()  # all at once: each takes a moment to end
        while self._processes:
            self._processes.pop().stop()
        self.ip.close()
        os.close(self.fd)
