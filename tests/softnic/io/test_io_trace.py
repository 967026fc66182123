"""The traces of a device that forwards."""

from __future__ import annotations

import json
from pathlib import Path

from rig import PROGRAMS, Wire, frame, until

from softnic.native import compile_program
from softnic.trace.live import TraceLog


def test_the_traces_of_a_running_device(wire: Wire, tmp_path: Path) -> None:
    path = tmp_path / "trace.json"
    log = TraceLog(wire.plane, path)
    wire.send(1, frame())
    assert wire.receive(2) == frame()  # the program that runs was compiled without probes
    program = compile_program((PROGRAMS / "entities.json").read_bytes(), traced=True)
    wire.plane.load(program)
    wire.forward(1, 2)

    def told() -> bool:
        wire.send(1, frame())
        return len(path.read_text().splitlines()) > 1

    until(told, "a packet was traced")
    log.close()
    first, *_ = map(json.loads, path.read_text().splitlines())
    assert (first["packet"], first["port"], first["length"]) == (1, 1, 60)
    assert first["events"][-1] | {"set": {}} == {
        "event": "out", "depth": 0, "port": 2, "frame": frame().hex(), "valid": {}, "set": {},
    }  # fmt: skip


def test_traces_as_text(wire: Wire, tmp_path: Path) -> None:
    wire.plane.load(compile_program((PROGRAMS / "entities.json").read_bytes(), traced=True))
    wire.forward(1, 2)
    log = TraceLog(wire.plane, tmp_path / "trace.txt")
    wire.send(1, frame())
    assert wire.receive(2) == frame()
    log.close()
    text = (tmp_path / "trace.txt").read_text()
    assert text.startswith("packet 1: port 1, 60 bytes\n  pass: normal, port 1, 60 bytes\n")
    assert "table IngressImpl.exact_table hdr.ethernet.dst=0x20000000001: hit entry 0" in text
