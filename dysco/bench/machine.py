"""Where and of what a figure was taken: the machine without its name, and the commit."""

from __future__ import annotations

import os
import platform
import subprocess
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

_ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True, slots=True)
class Machine:
    """A machine and how busy it was (load averages of 1, 5 and 15 minutes) at the start."""

    cores: int
    model: str
    kernel: str
    load_average: tuple[float, float, float]

    def as_json(self) -> dict[str, Any]:
        """The object of the JSON file."""
        return {**asdict(self), "load_average": [round(value, 2) for value in self.load_average]}


def this_machine() -> Machine:
    """The machine as it is now."""
    return Machine(len(os.sched_getaffinity(0)), _model(), platform.release(), os.getloadavg())


def this_commit() -> str:
    """The short hash of the checkout, with "+" if tracked files differ; "unknown" without git."""
    head = _git("rev-parse", "--short=12", "HEAD")
    if not head:
        return "unknown"
    return head + ("+" if _git("status", "--porcelain", "--untracked-files=no") else "")


def _git(*arguments: str) -> str:
    # In a cage without root the checkout seems to belong to somebody else.
    argv = ["git", "-c", "safe.directory=*", "-C", str(_ROOT), *arguments]
    try:
        done = subprocess.run(argv, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def _model() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        key, _, value = line.partition(":")
        if key.strip() == "model name":
            return value.strip()
    return platform.machine()
