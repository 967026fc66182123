"""Programs with a part taken out or replaced: each loads, or is refused with a clear error."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from softnic.compiler.generate import generate
from softnic.compiler.jsonread import BadProgramError
from softnic.compiler.load import load
from softnic.dataplane import UnsupportedConstructError

PROGRAMS = Path(__file__).parent.parent / "programs"
DELETED = object()
ODD = [DELETED, None, "", "x", -1, 0, 1 << 40, True, {}, [], [1], {"a": 1}, "0xzz"]
Place = tuple[Any, ...]


def places(value: object, at: Place = ()) -> Iterator[Place]:
    if at:
        yield at
    if isinstance(value, dict | list):
        for key in value if isinstance(value, dict) else range(len(value)):
            if key != "source_info":
                yield from places(value[key], (*at, key))


@pytest.mark.parametrize("name", ["tables", "features", "groups", "shapes", "sums", "wide"])
def test_every_broken_program_is_refused_clearly(name: str) -> None:
    text = (PROGRAMS / f"{name}.json").read_text()
    everywhere = list(places(json.loads(text)))
    rng = random.Random(name)
    refused = 0
    for _ in range(150):
        program, place, odd = json.loads(text), rng.choice(everywhere), rng.choice(ODD)
        parent = program
        for key in place[:-1]:
            parent = parent[key]
        if odd is DELETED:
            del parent[place[-1]]
        else:
            parent[place[-1]] = odd
        try:
            generate(load(json.dumps(program).encode()))
        except (BadProgramError, UnsupportedConstructError):
            refused += 1
    assert refused > 50


@pytest.mark.parametrize(
    ("place", "odd", "words"),
    [
        (("header_types", 1, "fields", 0, 1), 0, "width of .*: 0 is not between 1 and"),
        (("headers", 1, "header_type"), "gone", "of type 'gone', which isn't declared"),
        (("parsers", 0, "parse_states", 0, "transitions", 0, "next_state"), "x", "KeyError: 'x'"),
        (("register_arrays", 0, "size"), 1 << 40, "size of I.wide: 1099511627776 is not between"),
    ],
)
def test_what_is_wrong_is_named(place: Place, odd: object, words: str) -> None:
    program = json.loads((PROGRAMS / "features.json").read_text())
    parent = program
    for key in place[:-1]:
        parent = parent[key]
    parent[place[-1]] = odd
    with pytest.raises(BadProgramError, match=words):
        generate(load(json.dumps(program).encode()))


def test_any_name_is_a_name() -> None:
    program = json.loads((PROGRAMS / "tables.json").read_text())
    name = 'é"\\??/\n{}%s'
    program["pipelines"][0]["tables"][0]["name"] = name
    program["pipelines"][0]["init_table"] = name
    assert name in generate(load(json.dumps(program).encode())).tables
