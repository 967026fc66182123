"""Processes in namespaces: started with a log, watched while they get ready, ended for sure."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path

from dysco.topo.waiting import DeadlineError, wait_until


class ProcessError(Exception):
    """A process failed, or ended before it was ready; the text ends with its log's last lines."""


class Process:
    """A long-running process, leader of a process group of its own."""

    def __init__(
        self, name: str, argv: list[str], log: Path, environment: Mapping[str, str] | None = None
    ) -> None:
        """Start it. Standard output and error are appended to `log`. Raises ProcessError."""
        self.name = name
        self.log = log
        log.parent.mkdir(parents=True, exist_ok=True)
        try:
            with log.open("ab") as out:
                self._child = subprocess.Popen(
                    argv,
                    stdin=subprocess.DEVNULL,
                    stdout=out,
                    stderr=subprocess.STDOUT,
                    env={**os.environ, **(environment or {})},
                    start_new_session=True,
                )
        except OSError as error:
            raise ProcessError(f"{name}: can't start {argv[0]}: {error.strerror}") from error

    @property
    def pid(self) -> int:
        """Its process id, inside the cage."""
        return self._child.pid

    @property
    def running(self) -> bool:
        """True until it ended."""
        return self._child.poll() is None

    def wait_ready(self, ready: Callable[[], bool], what: str, seconds: float = 15.0) -> None:
        """Wait until `ready()`. Raises ProcessError if the process ends first or time is up."""
        try:
            wait_until(lambda: not self.running or ready(), what, seconds)
        except DeadlineError as error:
            raise ProcessError(f"{self.name}: {error}\n{self.log_tail()}") from error
        if not self.running:
            raise ProcessError(
                f"{self.name} ended with status {self._child.returncode} before {what}\n"
                f"{self.log_tail()}"
            )

    def wait_end(self, seconds: float) -> int:
        """Wait for its end; the exit status (-N: signal N). Raises ProcessError when time is up."""
        try:
            return self._child.wait(seconds)
        except subprocess.TimeoutExpired as error:
            raise ProcessError(f"{self.name} still runs after {seconds:g} s") from error

    def kill(self) -> None:
        """`kill -9` the process itself, as a test of those that must survive it."""
        self._child.kill()
        self._child.wait()

    def terminate(self) -> None:
        """Ask it and its process group to end (SIGTERM), without waiting for it."""
        self._signal_group(signal.SIGTERM)

    def stop(self, seconds: float = 5.0) -> None:
        """End it and its process group: SIGTERM, and SIGKILL after `seconds`."""
        self.terminate()
        try:
            self._child.wait(seconds)
        except subprocess.TimeoutExpired:
            self._signal_group(signal.SIGKILL)
            self._child.wait()
        # Workers may outlive their leader; the group's number stays theirs until the last has gone.
        self._signal_group(signal.SIGKILL)

    def log_tail(self, lines: int = 15) -> str:
        """The last lines of its log."""
        text = self.log.read_text(errors="replace").splitlines()
        return "\n".join(f"  {self.log.name}: {line}" for line in text[-lines:])

    def _signal_group(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._child.pid, number)
