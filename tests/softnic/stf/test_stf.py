"""Scripts in the format of P4's own tests: ours pass, and what is wrong is told by its line."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from softnic import cli
from softnic.stf.command import run
from softnic.stf.script import ScriptError, parse

HERE = Path(__file__).parent
PROGRAMS = HERE.parent / "programs"
SCRIPTS = sorted(p.stem for p in HERE.glob("*.stf"))


@pytest.mark.parametrize("name", SCRIPTS)
def test_script_passes(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["stf", str(PROGRAMS / f"{name}.json"), str(HERE / f"{name}.stf")]) == 0
    assert capsys.readouterr().out.endswith("passed\n")


@pytest.mark.parametrize(
    ("script", "words"),
    [
        ("packet 1 20 00\nexpect 1 20 01", "line 2: port 1: expected 2001, got 2000"),
        ("packet 1 20 00\nexpect 1 20 $", r"line 2: port 1: expected 20\$, got 2000"),
        ("packet 1 20 00\nexpect 1 2000*", r"expected 2000\*, got 2000"),
        ("packet 1 20 00", "port 1: not expected: 2000"),
        ("expect 3 00", "line 1: port 3: expected 00, got nothing"),
        ("register_write wide 0 5\npacket 1 20 00\nexpect 3\nexpect 1 00", "line 4"),
    ],
)
def test_what_is_not_as_expected_is_told(tmp_path: Path, script: str, words: str) -> None:
    (tmp_path / "bad.stf").write_text(script)
    (failure,) = run(PROGRAMS / "features.json", tmp_path / "bad.stf")
    assert re.search(words, failure)


@pytest.mark.parametrize(
    ("script", "words"),
    [
        ("add t", "line 1: expected ACTION"),
        ("add t_none key.a:1 a()", "line 1: table t_none: there is none, only .*I.t_exact"),
        ("add t_lpm key.z:1 lpm_set(v:1)", "line 1: key key.z: there is none"),
        ("add t_lpm key.a:1 lpm_set()", "line 1: arguments of I.lpm_set: v"),
        ("add t_lpm key.a:1 lpm_set(v)", "argument 'v' is not NAME:VALUE"),
        ("add t_lpm key.a:0x100 lpm_set(v:1)", "0x100 is more than the 8 bits of"),
        ("add t_lpm key.a:1* lpm_set(v:1)", "only in hexadecimal or binary"),
        ("add t_lpm key.a:one lpm_set(v:1)", "'one' is not a number"),
        ("\npacket 1 123", "line 2: the packet isn't whole bytes"),
        ("expect 1 xyz", "line 1: bad pattern 'xyz'"),
        ("check_counter x[1]", "expected check_counter"),
        ("fly 1 2", "line 1: unknown statement 'fly'"),
        ("mirroring_add 1", "line 1: mirroring_add"),
        ("mc_node_associate 1 1", "line 1: mc_node_associate"),
        ("remove 3", "only 'remove all'"),
        ("counter_read nowhere 1", "counter nowhere: there is none, only nothing"),
    ],
)
def test_bad_scripts_are_told_by_line(tmp_path: Path, script: str, words: str) -> None:
    (tmp_path / "bad.stf").write_text(script)
    with pytest.raises(ScriptError, match=words):
        run(PROGRAMS / "tables.json", tmp_path / "bad.stf")


def test_exit_status(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    program, script = str(PROGRAMS / "features.json"), tmp_path / "a.stf"
    script.write_text("packet 1 20 00")
    assert cli.main(["stf", program, str(script)]) == 1
    assert "FAILED" in capsys.readouterr().out
    script.write_text("fly")
    assert cli.main(["stf", program, str(script)]) == 2
    assert cli.main(["stf", str(script), str(script)]) == 2
    assert "not JSON" in capsys.readouterr().err


def test_comments_and_blank_lines_are_nothing() -> None:
    assert list(parse("# a\n\n   # b\n")) == []
