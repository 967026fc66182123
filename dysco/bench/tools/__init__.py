"""The load generators: C programs, compiled for each run, and what they print."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dysco.topo.namespace import Namespace
from dysco.topo.process import Process, ProcessError

_SOURCES = Path(__file__).parent
_FLAGS = ("-O2", "-Wall", "-Wextra", "-Werror")


class Tools:
    """The programs, in a directory."""

    def __init__(self, directory: Path) -> None:
        """Compile them into `directory`. Raises ProcessError with what the compiler said."""
        self._directory = directory
        directory.mkdir(parents=True, exist_ok=True)
        compiler = os.environ.get("CC", "cc")
        for source in sorted(_SOURCES.glob("*.c")):
            argv = [compiler, *_FLAGS, "-o", str(directory / source.stem), str(source)]
            try:
                done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
            except OSError as error:
                raise ProcessError(f"no C compiler ({compiler}): {error.strerror}") from error
            if done.returncode:
                raise ProcessError(f"{source.name} doesn't compile:\n{done.stderr}")

    def argv(self, name: str, *arguments: object) -> list[str]:
        """The command line of a program."""
        return [str(self._directory / name), *map(str, arguments)]

    def run(self, namespace: Namespace, name: str, *arguments: object, seconds: float) -> Any:
        """Run a program to its end, `seconds` at most; what it printed. Raises ProcessError."""
        return json.loads(namespace.run(self.argv(name, *arguments), seconds=seconds))

    def serve(self, namespace: Namespace, kind: str, port: int) -> Process:
        """Start a server of `kind` echo or discard; returns when it listens."""
        process = namespace.start(f"{kind}-{port}", self.argv("server", kind, port))
        process.wait_ready(lambda: "ready" in process.log.read_text(), "it listened")
        return process

    def hold(self, namespace: Namespace, address: str, port: int, count: int) -> Process:
        """Open `count` sessions, held until the process is stopped; returns when they are open."""
        seconds = 60 + count // 50
        argv = self.argv("hold", address, port, count, 32, seconds)
        process = namespace.start(f"hold-{port}-{count}", argv)
        process.wait_ready(
            lambda: f"open {count}" in process.log.read_text(),
            "its sessions were open",
            seconds + 5,
        )
        return process


def microseconds(times: dict[str, Any]) -> list[float]:
    """The times that `connect` and `ping` print. Raises ProcessError if there are failures."""
    ns: Sequence[int] = times["ns"]
    if times["failed"] or not ns:
        raise ProcessError(f"{times['failed']} of {times['failed'] + len(ns)} attempts failed")
    return [value / 1000 for value in ns]
