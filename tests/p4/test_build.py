"""The compiled program is of its sources, and its two files belong together."""

from __future__ import annotations

import json
from pathlib import Path
from types import ModuleType

import pytest
from conftest import ROOT, module_at

from dysco.controller.pipeline import Pipeline


@pytest.fixture
def build() -> ModuleType:
    return module_at("p4src/build.py")


@pytest.fixture(scope="module")
def program() -> dict[str, object]:
    loaded = json.loads((ROOT / "p4src/v1model/build/dysco.json").read_text())
    assert isinstance(loaded, dict)
    return loaded


def test_compiled_from_these_sources(build: ModuleType) -> None:
    assert build.is_current(), "run `make p4` where p4c is, and commit p4src/v1model/build"


def test_a_changed_source_is_found(
    build: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    copy = tmp_path / "p4src"
    for source in build.HERE.rglob("*.p4"):
        target = copy / source.relative_to(build.HERE)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(source.read_text())
    monkeypatch.setattr(build, "HERE", copy)
    monkeypatch.setattr(build, "BUILD", tmp_path)
    assert not build.is_current()
    (tmp_path / "sources.sha256").write_text(build.sources_hash() + "\n")
    assert build.is_current()
    changed = copy / "shared" / "define.p4"
    before = changed.read_text()
    changed.write_text(before + "\n")
    assert not build.is_current()
    changed.write_text(before)
    assert build.is_current()
    (copy / "shared" / "more.p4").write_text("")
    assert not build.is_current()


def test_check_says_what_to_do(build: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build, "is_current", lambda: False)
    monkeypatch.setattr(build.sys, "argv", ["build.py", "--check"])
    with pytest.raises(SystemExit, match="make p4"):
        build.main()


def test_without_a_compiler_it_says_what_to_install(
    build: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("P4C", "/nonexistent/p4c-bm2-ss")
    monkeypatch.setattr(build.sys, "argv", ["build.py"])
    with pytest.raises(SystemExit, match="install p4c"):
        build.main()


def test_program_and_p4info_belong_together(
    program: dict[str, list[dict[str, object]]], pipeline: Pipeline
) -> None:
    tables = {table["name"]: table for part in program["pipelines"] for table in part["tables"]}
    actions = {action["name"] for action in program["actions"]}
    counters = {counter["name"] for counter in program["counter_arrays"]}
    info = pipeline.p4info
    for table in info.tables:
        found = tables[table.preamble.name]
        assert found["max_size"] == table.size
        assert [key["name"] for key in found["key"]] == [f.name for f in table.match_fields]
    assert {a.preamble.name for a in info.actions} <= actions | {"NoAction"}
    assert {c.preamble.name for c in info.counters} <= counters


def test_compiled_files_tell_no_paths() -> None:
    for name in ("dysco.json", "dysco.p4info.txtpb"):
        text = (ROOT / "p4src/v1model/build" / name).read_text()
        assert str(ROOT) not in text
        assert '"filename":"/' not in text.replace('"filename":"/usr/', "")
