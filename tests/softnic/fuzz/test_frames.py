"""Mutated frames through generated code and the runtime, built with sanitizers."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from softnic.build import RUNTIME, compiler, runtime_object, shared_object
from softnic.compiler.generate import generate
from softnic.compiler.load import load

HERE = Path(__file__).parent
PROGRAMS = HERE.parent / "programs"
DYSCO = HERE.parents[2] / "p4src" / "v1model" / "build" / "dysco.json"
EVERY_TABLE_IS_LARGE = "-DSN_LARGE=0"
CHECKS = ("-O0", "-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all")


@pytest.fixture(scope="module")
def harness(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("fuzz") / "fuzz"
    command = [compiler()[0], *CHECKS, "-D_GNU_SOURCE", "-DSTANDALONE", f"-I{RUNTIME}"]
    command += [str(HERE / "harness.c"), "-rdynamic", "-ldl", "-o", str(out)]
    subprocess.run(command, check=True, timeout=60)
    return out


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    folder = tmp_path_factory.mktemp("corpus")
    for row in (HERE / "corpus.txt").read_text().splitlines()[1:]:
        name, *data = row.split()
        (folder / name).write_bytes(bytes.fromhex("".join(data)))
    return [str(f) for f in sorted(folder.iterdir())]


@pytest.mark.parametrize(
    ("program", "count"),
    [
        (DYSCO, 10_000),
        (PROGRAMS / "features.json", 1_000),
        (PROGRAMS / "shapes.json", 20_000),
        (PROGRAMS / "wide.json", 10_000),
    ],
    ids=lambda p: p.stem if isinstance(p, Path) else "",
)
def test_mutated_frames_do_no_harm(
    harness: Path, corpus: list[str], program: Path, count: int
) -> None:
    source = generate(load(program.read_bytes())).source
    env = os.environ | {
        "SN_RUNTIME": str(runtime_object(flags=(*CHECKS, EVERY_TABLE_IS_LARGE))),
        "SN_PROGRAM": str(shared_object("checked", [source], None, flags=CHECKS)),
        "ASAN_OPTIONS": "detect_leaks=0",
    }
    done = subprocess.run(
        [str(harness), str(count), *corpus],
        env=env,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
