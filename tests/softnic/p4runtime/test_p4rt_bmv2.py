"""Random entries of every kind and random packets: softnic does what bmv2 does.

The recorded runs are checked everywhere, fresh ones where simple_switch_grpc is installed.
"""

from __future__ import annotations

import random
import shutil
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from differential import PORT, Round, bmv2, recorded, rounds, run
from p4rt import Client
from target import serve

RUNS = list(recorded())


@contextmanager
def softnic() -> Iterator[Client]:
    target = serve(cpu_port=PORT)
    try:
        yield target.client()
    finally:
        target.close()


def compare(ours: list[Round], theirs: list[Round]) -> None:
    for number, (a, b) in enumerate(zip(ours, theirs, strict=True)):
        for update, x, y in zip(a.updates, a.accepted, b.accepted, strict=True):
            assert x == y, f"round {number}: accepted {x}, by bmv2 {y}:\n{update}"
        assert len(a.answers) == len(b.answers)
        for got, wanted in zip(a.answers, b.answers, strict=True):
            assert got.hex() == wanted.hex(), f"round {number}"


@pytest.mark.parametrize("number", range(len(RUNS)))
def test_what_bmv2_did(number: int) -> None:
    program, theirs = RUNS[number]
    with softnic() as client:
        ours = run(client, program, [Round(r.updates, r.packets) for r in theirs])
    compare(ours, theirs)
    told = [a for r in theirs for a in r.answers]
    assert len(set(told)) > 20  # the packets tell entries apart
    assert {a for r in theirs for a in r.accepted} == {True, False}


@pytest.mark.skipif(not shutil.which("simple_switch_grpc"), reason="bmv2 isn't installed")
@pytest.mark.parametrize("program", ["tables", "groups"])
def test_what_bmv2_does(program: str) -> None:
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    wanted = rounds(program, seed)
    with bmv2() as client:
        theirs = run(client, program, wanted)
    with softnic() as client:
        compare(run(client, program, wanted), theirs)
