"""Small configurations of the model hold, some seeded bugs are found; `make verify` has all."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from model import verify
from model.table import MODEL, MOVES
from model.verify import (
    BUGS,
    CONFIGURATIONS,
    MEMORY,
    Run,
    bugs_table,
    configurations_table,
    search,
    wanted,
)

DOCUMENT = Path(__file__).parents[2] / "docs" / "verification.md"

needs_spin = pytest.mark.skipif(shutil.which("spin") is None, reason="spin is not installed")


@needs_spin
@pytest.mark.parametrize("run", wanted((), quick=True), ids=lambda run: run.name)
def test_quick(run: Run) -> None:
    result = search(run)
    assert not result.broken, result.broken
    assert result.is_good, "\n".join([result.problem, *result.trail[-60:]])
    if run.bug is None:
        assert result.steps <= MODEL | MOVES, result.steps - MODEL - MOVES
        assert result.memory < MEMORY


@needs_spin
def test_a_search_that_is_not_complete_says_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verify, "DEPTH", 5)
    assert search(CONFIGURATIONS[0]).broken


def test_at_least_ten_bugs_with_names_of_their_own() -> None:
    assert len(BUGS) >= 10
    names = [run.name for run in (*CONFIGURATIONS, *BUGS)]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("run", BUGS, ids=lambda run: run.name)
def test_a_bug_is_in_the_model(run: Run) -> None:
    source = (DOCUMENT.parents[1] / "model" / f"{run.model}.pml").read_text(encoding="utf-8")
    assert f"BUG_{run.bug}\n" in source


def test_every_bug_of_the_model_is_tried() -> None:
    tried = {f"BUG_{run.bug}" for run in BUGS}
    for model in ("locking", "paths", "moving"):
        source = (DOCUMENT.parents[1] / "model" / f"{model}.pml").read_text(encoding="utf-8")
        assert {word for word in source.split() if word.startswith("BUG_")} <= tried


def test_the_document_has_the_runner_s_tables() -> None:
    text = DOCUMENT.read_text(encoding="utf-8")
    assert configurations_table() in text
    assert bugs_table() in text
