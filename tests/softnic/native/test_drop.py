"""Dropping by a control that has standard metadata as a parameter: p4c gives it a copy."""

from __future__ import annotations

import json
from typing import Any

from conftest import CPU, program_json
from frames import MAC_B, ethernet

from softnic.dataplane import Entry, Match, Op, Update
from softnic.native import NativeDataPlane, compile_program

FIELDS = ("egress_spec", "mcast_grp")


def field(header: str, name: str) -> dict[str, Any]:
    return {"type": "field", "value": [header, name]}


def assign(to: str, source: str) -> list[dict[str, Any]]:
    return [
        {"op": "assign", "parameters": [field(to, name), field(source, name)]} for name in FIELDS
    ]


def test_a_dropped_copy_drops_once_it_is_written_back() -> None:
    program = json.loads(program_json("switch"))
    number = max(header["id"] for header in program["headers"]) + 1
    program["headers"].append(
        {"name": "copy", "id": number, "header_type": "standard_metadata", "metadata": True}
    )
    for action in program["actions"]:
        if action["name"] == "I.drop":
            (mark,) = action["primitives"]
            mark["parameters"][0]["value"] = "copy"
            before, after = assign("copy", "standard_metadata"), assign("standard_metadata", "copy")
            action["primitives"] = [*before, mark, *after]
    plane = NativeDataPlane({}, cpu_port=CPU)
    try:
        plane.load(compile_program(json.dumps(program).encode()))
        to_b = Entry(Match(MAC_B, b"\xff" * 6), "I.forward", (2).to_bytes(2, "big"))
        assert plane.write([Update(Op.INSERT, "I.l2", to_b)]) == [0]
        passes, dropped = ethernet(bytes(46)), ethernet(bytes(46), kind=0x88CC)
        assert plane.inject(1, passes) == [(2, passes)]
        assert plane.inject(1, dropped) == []
    finally:
        plane.close()
