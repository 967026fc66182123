"""What docs/design.md says of the P4 program and of the header is so."""

from __future__ import annotations

import re

import pytest
from conftest import ROOT, Define

from dysco.agent import header, ports
from dysco.agent.settings import Settings
from dysco.controller.pipeline import Pipeline

_TABLE_ROW = re.compile(r"^\| (`\w+`(?:, `\w+`)*) \| [^|]+ \| (`[^|]+`) \|", re.MULTILINE)
_NUMBERED = re.compile(r"^\| (\d+) (?:\| )?`([A-Z_]+)` \|", re.MULTILINE)
_ACTION = re.compile(r"`(\w+)(/v6)?\(([^)]*)\)`")


@pytest.fixture(scope="module")
def text() -> str:
    return (ROOT / "docs" / "design.md").read_text()


def test_tables_and_their_actions(text: str, pipeline: Pipeline) -> None:
    described = set()
    for names, actions in _TABLE_ROW.findall(text):
        for table in re.findall(r"\w+", names):
            described.add(table)
            for action, both, params in _ACTION.findall(actions):
                name = action.replace("_v4", table[-3:]) if both else action
                found = pipeline.tables[table].actions[name].param_names
                assert found[: params.count(",") + 1 if params else 0] == tuple(
                    re.findall(r"\w+", params)
                )
    steady = {"port", "bridge", "outbound_v4", "inbound_v6", "policy_v4", "route_v6"}
    assert steady <= described
    assert described <= pipeline.tables.keys()


def test_numbers_of_reasons_submits_and_drops(text: str, define: Define) -> None:
    told = {(int(number), name) for number, name in _NUMBERED.findall(text)}
    known = {
        (value, name)
        for enum in ("Reason", "Submit", "Drop")
        for name, value in define.enums[enum].items()
    }
    assert len(told) >= 11
    assert told <= known


def test_header_sizes(text: str) -> None:
    assert f"has {header.MIN_SIZE} bytes" in text
    assert " ".join(f"{byte:02x}" for byte in header.MAGIC) in text


def test_ports_and_limits(text: str) -> None:
    settings = Settings()
    half = (settings.last_port - settings.first_port + 1) // 2
    assert ports.__doc__ is not None
    for span in (
        f"{settings.first_port}..{settings.first_port + half - 1}",
        f"{settings.first_port + half}..{settings.last_port}",
    ):
        assert span in text
        assert span in ports.__doc__
    for limit in (
        f"{settings.first_port} to {settings.last_port}",
        f"{half} x {half}",
        f"{settings.port_quarantine:g} s",
        f"{settings.pending_timeout:g} s",
        f"{settings.setup_timeout:g} s",
        f"{settings.idle_timeout:g} s",
        f"{settings.max_sessions:,} sessions",
        f"{settings.max_pending} of them",
        f"{settings.max_hops} hosts in a chain",
        f"the {settings.replay_window} below",
    ):
        assert limit in text, limit
