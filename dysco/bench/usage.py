"""What a process uses: processor time and memory, from /proc."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(slots=True)
class Share:
    """How much of one core a process took over a time; filled when the time is over."""

    user: float = 0.0
    system: float = 0.0
    seconds: float = 0.0

    def as_json(self) -> dict[str, float]:
        """Shares of one core: 1.0 is all of it."""
        return {
            "user": round(self.user / self.seconds, 3),
            "system": round(self.system / self.seconds, 3),
        }


def cpu_seconds(pid: int) -> tuple[float, float]:
    """User and system time of a process so far, its threads included."""
    # The second field may hold spaces and brackets, so count from behind it.
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[11]) / _TICKS, int(fields[12]) / _TICKS


@contextmanager
def cpu_share(pid: int) -> Iterator[Share]:
    """The share that a process takes during the `with`."""
    share = Share()
    before, start = cpu_seconds(pid), time.monotonic()
    yield share
    after = cpu_seconds(pid)
    share.seconds = time.monotonic() - start
    share.user, share.system = after[0] - before[0], after[1] - before[1]


def memory_bytes(pid: int) -> int:
    """Memory of a process, with its part of what it shares (PSS)."""
    text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    found = re.search(r"^Pss:\s+(\d+) kB", text, re.MULTILINE)
    if found is None:
        raise OSError(f"no Pss in /proc/{pid}/smaps_rollup")
    return int(found[1]) * 1024
