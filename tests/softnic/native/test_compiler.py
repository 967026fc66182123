"""Translation: what is refused and how, what is cached, bad input."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import PROGRAMS, program_json

from softnic import build
from softnic.compiler.jsonread import BadProgramError
from softnic.dataplane import MatchKind, UnsupportedConstructError
from softnic.native import compile_program


def test_refuses_a_meter_of_three_rates_by_name() -> None:
    program = json.loads(program_json("meter"))
    program["meter_arrays"][0]["rate_count"] = 3
    with pytest.raises(UnsupportedConstructError, match=r"meter 'I\.rate' of 3 rates"):
        compile_program(json.dumps(program).encode())


def test_refuses_a_hash_by_name_and_place() -> None:
    program = json.loads(program_json("features"))
    calculation = next(c for c in program["calculations"] if c["algo"] == "crc32")
    calculation["algo"] = "toeplitz"
    words = r"hash algorithm 'toeplitz', in action 'features\d+' \(features\.p4:\d+\)"
    with pytest.raises(UnsupportedConstructError, match=words):
        compile_program(json.dumps(program).encode())


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"extern_instances": [{"name": "I.x", "type": "Weird"}]}, "extern 'I.x'"),
        ({"parsers": []}, "v1model"),
    ],
)
def test_refuses_other_architectures(change: dict[str, object], words: str) -> None:
    program = json.loads(program_json("tables")) | change
    with pytest.raises(UnsupportedConstructError, match=words):
        compile_program(json.dumps(program).encode())


def test_refuses_an_unknown_primitive() -> None:
    program = json.loads(program_json("switch"))
    action = next(a for a in program["actions"] if a["name"] == "I.drop")
    action["primitives"][0]["op"] = "fly"
    with pytest.raises(UnsupportedConstructError, match=r"'fly' in action 'I\.drop' \(switch\.p4"):
        compile_program(json.dumps(program).encode())


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b"\xff\xfe", b'{"header_types": 3}'])
def test_bad_json_is_told(data: bytes) -> None:
    with pytest.raises((BadProgramError, UnsupportedConstructError)):
        compile_program(data)


def test_description_of_a_program() -> None:
    p = compile_program(program_json("switch"))
    l2, acl = p.tables["I.l2"], p.tables["I.acl"]
    assert (l2.size, l2.has_counter, l2.has_timeout, l2.is_const) == (200000, True, True, False)
    assert [(k.name, k.bits, k.match) for k in l2.key] == [("h.eth.dst", 48, MatchKind.EXACT)]
    assert acl.needs_priority
    assert p.tables["I.kind"].is_const
    assert p.actions["I.forward"].params[0].bits == 9
    assert [(f.bits) for f in p.digests["learn_t"]] == [48, 9]
    assert p.counters == {"I.kinds": 4}
    assert p.registers == {"I.seen": (8, 32)}


def test_same_content_is_compiled_once(tmp_path: Path) -> None:
    first = compile_program(program_json("tables"), cache_dir=tmp_path)
    stamp = first.path.stat().st_mtime_ns
    reordered = json.dumps(json.loads(program_json("tables")), indent=7).encode()
    again = compile_program(reordered, cache_dir=tmp_path)
    assert again.path == first.path
    assert again.path.stat().st_mtime_ns == stamp
    assert [f.name for f in tmp_path.iterdir()] == [first.path.name]


def test_parallel_starts_share_the_cache(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from softnic.native import compile_program;"
        "print(compile_program(Path(sys.argv[1]).read_bytes()).path)"
    )
    env = os.environ | {"XDG_CACHE_HOME": str(tmp_path)}
    running = [
        subprocess.Popen(
            [sys.executable, "-c", code, str(PROGRAMS / "meter.json")],
            env=env,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    ]
    paths = {p.communicate(timeout=60)[0].strip() for p in running}
    assert [p.returncode for p in running] == [0] * 2
    assert len(paths) == 1
    names = {f.name.partition("-")[0] for f in (tmp_path / "softnic").iterdir()}
    assert names == {"program", "runtime"}


def test_missing_compiler_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    monkeypatch.delenv("CC", raising=False)
    build.compiler.cache_clear()
    try:
        with pytest.raises(build.ToolchainError, match="apt install gcc"):
            build.compiler()
    finally:
        build.compiler.cache_clear()


def test_broken_compiler_is_reported(tmp_path: Path) -> None:
    with pytest.raises(build.ToolchainError, match=r"failed on bad0\.c"):
        build.shared_object("bad", ["int x = ;"], tmp_path)
    assert list(tmp_path.iterdir()) == []
