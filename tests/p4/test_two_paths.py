"""What docs/two-paths.md says of the P4 program is so."""

from __future__ import annotations

import re

import pytest
from conftest import ROOT, SHARED, Define

from dysco.controller import legs
from dysco.controller.pipeline import Pipeline

_NUMBERED = re.compile(r"^\| (\d+) (?:\| )?`([A-Z_]+)` \|", re.MULTILINE)
_STACK = re.compile(r"option_h\[(\d)\]")
_WORDS = {4: "four", 6: "six"}


@pytest.fixture(scope="module")
def text() -> str:
    return (ROOT / "docs" / "two-paths.md").read_text()


def test_numbers(text: str, define: Define) -> None:
    told = {(int(number), name) for number, name in _NUMBERED.findall(text)}
    enums = define.enums
    known = {(v, n) for e in ("Reason", "Submit", "Count") for n, v in enums[e].items()}
    assert told <= known
    assert {(v, n) for n, v in enums["Count"].items()} <= told
    assert {(v, n) for n, v in enums["Reason"].items() if v > enums["Reason"]["NEIGHBOUR"]} <= told
    assert {(v, n) for n, v in enums["Submit"].items() if v > enums["Submit"]["BRIDGE"]} <= told


def test_constants(text: str, define: Define) -> None:
    constants = define.constants
    assert f"1 to {constants['SLOTS'] - 1}:" in text
    assert f"{constants['SLOTS'] - 1:,} legs a device" in text
    assert f"port {constants['ANNOUNCEMENT_PORT']}" in text
    assert f"type {constants['ETHERTYPE_LEG']:#x}" in text
    for magic in ("ANNOUNCEMENT_MAGIC", "CONTROL_MAGIC"):
        assert f'"{constants[magic].to_bytes(4, "big").decode()}"' in text
    for event in legs.Event:
        assert f"{event.value}, " in text


def test_registers(text: str, pipeline: Pipeline) -> None:
    names = {r.preamble.alias for r in pipeline.p4info.registers}
    described = set(re.findall(r"`(\w+)`", text[: text.index("## Two paths")]))
    # The rest is for the program itself.
    assert names - described == {"isn", "own_address", "peer_address", "peer_port"}


def test_the_layout_of_a_report(text: str) -> None:
    layout = text[text.index("| Ethernet | slot 4") : text.index("Its events")]
    fields = re.findall(r"(\w+) (\d)\b", layout)
    sizes = {name: int(size) for name, size in fields}
    assert sum(sizes.values()) == len(legs.query(1)) - 14
    assert [name for name, _ in fields[4:]] == list(legs._REGISTERS)


def test_tables(text: str, pipeline: Pipeline) -> None:
    tables = {"leg", "second_path_v4", "second_path_v6", "token"}
    assert tables <= pipeline.tables.keys()
    assert all(f"`{name}`" in text for name in tables)
    params = ", ".join(pipeline.tables["leg"].actions["one_path"].param_names)
    assert f"one_path({params})" in text


def test_room_for_options(text: str) -> None:
    before, between, behind = map(int, _STACK.findall((SHARED / "header.p4").read_text()))
    plain = " ".join(text.split())
    assert f"there may be {_WORDS[before]} others" in plain
    assert between == behind
    assert f"between and behind them {_WORDS[between]};" in plain
