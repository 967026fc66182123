"""Run by test_bursts.py in a process of its own, with a runtime for which every table is large:
the packets of a script as one burst, and one by one, on two devices.
"""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path

from softnic import clib
from softnic.build import runtime_object
from softnic.compiler import ahead
from softnic.native import NativeDataPlane, compile_program
from softnic.stf.runner import Runner
from softnic.stf.script import CheckCounter, Command, Expect, Packet, Statement, parse

_BURST = 64
_READS = ("counter_read", "register_read", "meter_get_rates")


def writes(s: Statement) -> bool:
    if isinstance(s, Command):
        return s.name not in _READS
    return not isinstance(s, Packet | Expect | CheckCounter)


def state(plane: NativeDataPlane) -> list[object]:
    """All that packets leave behind."""
    program = plane.program
    assert program is not None
    cells: list[object] = [sorted(map(str, plane.entries(t))) for t in program.tables]
    cells += [[plane.counter(n, i) for i in range(s)] for n, s in program.counters.items()]
    cells += [[plane.register(n, i) for i in range(s)] for n, (s, _) in program.registers.items()]
    return [*cells, [(p.port, dict(p.drops)) for p in plane.ports()], plane.program_events()]


def main(program_file: Path, script: Path) -> None:
    clib.runtime_object = partial(runtime_object, flags=("-O2", "-DSN_LARGE=0"))
    ahead._LARGE = 0
    program = compile_program(program_file.read_bytes())
    statements = list(parse(script.read_text()))
    packets = [(s.port, s.data) for s in statements if isinstance(s, Packet)]
    packets = (packets * _BURST)[: max(2 * _BURST, len(packets))]
    planes = [NativeDataPlane({}, cpu_port=None) for _ in range(2)]
    for plane in planes:
        plane.load(program)
        assert Runner(plane, program).run(s for s in statements if writes(s)) == []
    single, burst = planes
    one_by_one = [out for port, frame in packets for out in single.inject(port, frame)]
    at_once: list[tuple[int, bytes]] = []
    for at in range(0, len(packets), _BURST):
        at_once += burst.inject_burst(packets[at : at + _BURST])
    assert at_once == one_by_one, "other frames came out"
    assert state(burst) == state(single), "something else was left behind"
    print(f"{len(packets)} packets, {len(at_once)} out, ahead: {'void ahead(' in program.source}")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
