"""Data planes without interfaces, loaded with the programs of tests/softnic/programs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from softnic.native import NativeDataPlane, compile_program

PROGRAMS = Path(__file__).parent.parent / "programs"
CPU = 510

Loader = Callable[[str], NativeDataPlane]


def program_json(name: str) -> bytes:
    return (PROGRAMS / f"{name}.json").read_bytes()


@pytest.fixture
def load() -> Iterator[Loader]:
    made: list[NativeDataPlane] = []

    def loader(name: str) -> NativeDataPlane:
        plane = NativeDataPlane({}, cpu_port=CPU)
        made.append(plane)
        plane.load(compile_program(program_json(name)))
        return plane

    yield loader
    for plane in made:
        plane.close()
