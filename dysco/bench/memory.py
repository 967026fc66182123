"""`memory`: bytes that an open session takes in the daemon and in the devices.

There is no baseline: without Dysco neither is there.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from dysco.bench.chain import DYSCO_PORT, Chain, chain
from dysco.bench.result import Point
from dysco.bench.scale import Scale
from dysco.bench.tools import Tools
from dysco.bench.usage import memory_bytes
from dysco.topo.devices import Target
from dysco.topo.process import ProcessError

NAME = "memory"
BOXES = (("counter", "counter"),)

_ROLES = {"nic1": "the client's softnic", "nic2": "the middlebox's softnic"}
_ENTRIES = {"nic1": 2, "nic2": 4}
"""Of one session in that device's tables: two for each subsession of the host."""


def run(tools: Tools, scale: Scale, directory: Path) -> Iterator[Point]:
    """Measure all points. Raises ProcessError."""
    with chain(BOXES, Target.SOFTNIC, directory) as running:
        tools.serve(running.server, "discard", DYSCO_PORT)
        # Buffers and code that the first sessions bring in are not what a session takes.
        warm = tools.hold(running.client, running.address, DYSCO_PORT, 20)
        before = _memory(running)
        count = scale.open_sessions
        tools.hold(running.client, running.address, DYSCO_PORT, count)
        after = _memory(running)
        warm.stop()
        hosts = len(BOXES) + 2
        daemon = (after.pop("dyscod") - before["dyscod"]) / (count * hosts)
        detail = {"sessions": count, "hosts": hosts}
        yield Point(NAME, "dyscod, a session at a host", "bytes", (daemon,), detail=detail)
        for device, role in _ROLES.items():
            each = (after[device] - before[device]) / count
            detail = {"sessions": count, "entries_each": _ENTRIES[device]}
            yield Point(NAME, f"{role}, a session", "bytes", (each,), detail=detail)


def _memory(running: Chain) -> dict[str, int]:
    used = {"dyscod": memory_bytes(running.controller.process.pid)}
    for name in _ROLES:
        process = running.devices[name].process
        if process is None:
            raise ProcessError(f"{name} has no process of its own")
        used[name] = memory_bytes(process.pid)
    return used
