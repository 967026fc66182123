"""The simulation can fail: each of these faults, put into the protocol, is found by some seed."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import pytest

from dysco.agent.reconfigure import (
    arrival,
    departure,
    facts,
    gate,
    handover,
    holds,
    left,
    locking,
    move_left,
    move_right,
    right,
    source,
    target,
)
from tests.reconfigure.agents.stories import move
from tests.reconfigure.agents.world import World as AgentWorld
from tests.reconfigure.simulation.complaint import ComplaintError
from tests.reconfigure.simulation.scenarios import scenario
from tests.reconfigure.simulation.world import World

SEEDS = 100
_PACKAGES = (
    "dysco.agent.reconfigure.",
    "tests.reconfigure.simulation.",
    "tests.reconfigure.agents.",
)


@dataclass(frozen=True)
class Fault:
    """A piece of a module's source, and what replaces it."""

    name: str
    module: ModuleType
    right: str
    wrong: str
    kind: str
    first: int = 0
    """The seed to begin with."""
    moves: bool = False
    """State moves: `kind` is one of `stories.MOVES`, and agents are real."""


FAULTS = (
    Fault(
        "cutoff one too low",
        handover,
        "registers.cutoff_out = registers.snd_max",
        "registers.cutoff_out = add(registers.snd_max, -1)",
        "insert",
    ),
    Fault(
        "drain declared early",
        arrival,
        "diff(registers.rcv_ack, registers.cutoff_in) >= 0\n        and",
        "True\n        and",
        "proxy",
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
        "entry, registers, segment, ack=cutoff,",
        "entry, registers, segment, ack=segment.ack,",
        "chain",
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
        "a late request locks again",
        locking,
        "return request.number <= self.finished.get(request.left, 0)",
        "return False",
        "storm",
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
        first=180,
    ),
    Fault(
        "a hop's own deltas forgotten",
        locking,
        "summed = message.deltas + own",
        "summed = message.deltas",
        "delete",
    ),
    Fault(
        "settled before the other side is drained",
        left,
        "not (self._drained_here and self._drained_there)",
        "not self._drained_here",
        "delete",
        first=150,
    ),
    Fault(
        "the cutoff moves when it is latched again",
        handover,
        "if registers.latched != new.epoch:",
        "if True:",
        "insert",
    ),
    Fault(
        "the end of a lock not remembered",
        locking,
        "self.finished[message.id.left] = number",
        "pass",
        "storm",
    ),
)
MOVE_FAULTS = (
    Fault(
        "the gate stays open while the state is copied",
        gate,
        "if entry.gate is not Gate.SHUT:",
        "if True:",
        "late",
        moves=True,
    ),
    Fault(
        "what is held is forgotten",
        holds,
        "for held in hold.queue]",
        "for held in ()]",
        "reset",
        moves=True,
    ),
    Fault(
        "decided before the new host has the state",
        move_left,
        "            case MoveDone(step=MoveStep.HOLD), MoveState.HOLDING:\n"
        "                return self._go(MoveState.MOVING)",
        "            case MoveDone(step=MoveStep.HOLD), MoveState.HOLDING:\n"
        "                self.state = MoveState.MOVING\n"
        "                return self._imported(leg)",
        "box",
        moves=True,
    ),
    Fault(
        "the right anchor forgets the new path",
        move_right,
        "return [SetEntry(replace(leg.entry, path=self._path))]",
        "return [SetEntry(leg.entry)]",
        "box",
        moves=True,
    ),
    Fault(
        "an end is not thawed",
        target,
        "return [*settled, *self._settled(), CallState(StateVerb.RESUME)]",
        "return [*settled, *self._settled()]",
        "end",
        moves=True,
    ),
    Fault(
        "an old host that keeps the session is not thawed",
        source,
        "*([CallState(StateVerb.RESUME)] if was_shut else [])",
        "*[]",
        "refused",
        moves=True,
    ),
    Fault(
        "numbers of an earlier reconfiguration do not move along",
        facts,
        "way = OldWay(seq_out, seq_in, ts_in, scale_in, floor if has_floor else None)",
        "way = OldWay(0, 0, 0, scale_in, floor if has_floor else None)",
        "after",
        moves=True,
    ),
)


@contextmanager
def installed(fault: Fault) -> Iterator[None]:
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


def found_at(fault: Fault) -> int | None:
    for seed in range(fault.first, fault.first + SEEDS):
        try:
            if fault.moves:
                AgentWorld(seed, move(seed, fault.kind)).run()
            else:
                World(seed, scenario(seed, fault.kind)).run()
        except ComplaintError:
            return seed
    return None


@pytest.mark.parametrize("fault", [*FAULTS, *MOVE_FAULTS], ids=lambda fault: fault.name)
def test_fault_is_found(fault: Fault) -> None:
    with installed(fault):
        assert found_at(fault) is not None
