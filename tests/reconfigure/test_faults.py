"""The simulation can fail: each of these faults, put into the protocol, is found by some seed."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import pytest

from dysco.agent.reconfigure import arrival, departure, handover, left, locking, right
from tests.reconfigure.simulation.boxes import ComplaintError
from tests.reconfigure.simulation.scenarios import scenario
from tests.reconfigure.simulation.world import World

SEEDS = 150
_PACKAGES = ("dysco.agent.reconfigure.", "tests.reconfigure.simulation.")


@dataclass(frozen=True)
class Fault:
    """A piece of a module's source, and what replaces it."""

    name: str
    module: ModuleType
    right: str
    wrong: str
    kind: str


FAULTS = (
    Fault(
        "cutoff one too high",
        handover,
        "registers.cutoff_out = registers.snd_max",
        "registers.cutoff_out = add(registers.snd_max, 1)",
        "delete",
    ),
    Fault(
        "drain declared early",
        arrival,
        "diff(registers.rcv_ack, registers.cutoff_in) >= 0\n        and",
        "True\n        and",
        "proxy",
    ),
    Fault(
        "new data taken before its announcement",
        arrival,
        "if new is None or registers.known != new.epoch:",
        "if new is None:",
        "delete",
    ),
    Fault(
        "a stale ACK passed on as it is",
        arrival,
        "add(cutoff, acked) if acked > 0 else registers.snd_una",
        "add(cutoff, max(0, acked))",
        "delete",
    ),
    Fault(
        "an ACK of new data on the old path",
        departure,
        "        segment,\n        ack=cutoff,",
        "        segment,\n        ack=segment.ack,",
        "chain",
    ),
    Fault(
        "a pure ACK of the old path left at the cutoff",
        arrival,
        "            seq = registers.rcv_ack\n",
        "            pass\n",
        "proxy",
    ),
    Fault(
        "timestamps that go backwards",
        arrival,
        "        if known and new.ts_shift is None:\n            tsval = registers.ts_given\n",
        "",
        "proxy",
    ),
    Fault(
        "the proxy's window believed",
        arrival,
        "room = diff(latest(registers.edge_out, registers.cutoff_out), ack)",
        "room = 0",
        "proxy",
    ),
    Fault("a FIN below the cutoff", handover, "if registers.fin_sent:", "if False:", "insert"),
    Fault(
        "the left anchor goes back by itself",
        left,
        "if self.state not in possible and",
        "if self.state is not LeftState.SWITCHING and self.state not in possible and",
        "cancel",
    ),
    Fault(
        "the right anchor revokes what it has latched",
        right,
        "if self.state is RightState.PREPARED and not _latched(leg):\n"
        "            return [Revoke()]",
        "if self.state is RightState.PREPARED:\n"
        "            return [Tell(Toward.ANCHOR, Revoked(self.id))]",
        "insert",
    ),
    Fault(
        "a late request locks again",
        locking,
        "return request.number <= self.finished.get(request.left, 0)",
        "return False",
        "contend",
    ),
    Fault(
        "a lock is not released",
        locking,
        "return self._free() if self.holder == over else []",
        "return []",
        "delete",
    ),
    Fault(
        "a restart forgets what it was about to do",
        right,
        "        elif self.state is RightState.FINISHED and ours:",
        "        elif False:",
        "crash",
    ),
    Fault(
        "SACK blocks of new data on the old path",
        departure,
        "sack_blocks=sack.below(bare.sack, registers.cutoff_in)",
        "sack_blocks=bare.sack",
        "proxy",
    ),
    Fault(
        "late old data on the new path",
        departure,
        "if floor is None or",
        "if True or",
        "insert",
    ),
    Fault(
        "early data answered as a handshake",
        right,
        "if self.state is not RightState.PREPARED or new is None or segment.has_content:",
        "if self.state is not RightState.PREPARED or new is None:",
        "delete",
    ),
)


@contextmanager
def _installed(fault: Fault) -> Iterator[None]:
    """The module with the fault, wherever its names are used."""
    source = Path(fault.module.__file__ or "").read_text(encoding="utf-8")
    assert source.count(fault.right) == 1, f"{fault.name}: its text is not there any more"
    wrong = ModuleType(fault.module.__name__)
    undo: list[tuple[ModuleType, str, object]] = []
    sys_modules = [m for n, m in sys.modules.items() if n.startswith(_PACKAGES)]
    saved = sys.modules[fault.module.__name__]
    sys.modules[fault.module.__name__] = wrong
    try:
        exec(compile(source.replace(fault.right, fault.wrong), fault.name, "exec"), wrong.__dict__)
        for name, value in list(vars(fault.module).items()):
            if getattr(value, "__module__", None) != fault.module.__name__:
                continue
            for module in sys_modules:
                for used, known in list(vars(module).items()):
                    if known is value:
                        undo.append((module, used, known))
                        setattr(module, used, getattr(wrong, name))
        yield
    finally:
        sys.modules[fault.module.__name__] = saved
        for module, used, known in undo:
            setattr(module, used, known)


def _found_at(fault: Fault) -> int | None:
    for seed in range(SEEDS):
        try:
            World(seed, scenario(seed, fault.kind)).run()
        except ComplaintError:
            return seed
    return None


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_fault_is_found(fault: Fault) -> None:
    with _installed(fault):
        assert _found_at(fault) is not None
