"""Numbers of more than 128 bits against Python's."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass

import pytest
from conftest import Loader, program_json
from hypothesis import given, settings
from hypothesis import strategies as st

from softnic.native import NativeDataPlane, compile_program

A, S, BIG, CELL = 256, 200, 1000, 300


@dataclass
class Numbers:
    """The header of wide.p4."""

    op: int
    n: int
    a: int
    b: int
    s: int
    t: int
    big: int
    flags: int = 0

    def bytes(self) -> bytes:
        parts = [(self.op, 8), (self.n, 8), (self.a, A), (self.b, A), (self.s, S), (self.t, S)]
        parts += [(self.big, BIG), (self.flags, 8)]
        return b"".join((v % (1 << w)).to_bytes(w // 8, "big") for v, w in parts)


def signed(value: int) -> int:
    value %= 1 << S
    return value - (1 << S) if value >> (S - 1) else value


def clamp(value: int, low: int, high: int) -> int:
    return max(low, min(value, high))


MAX_A, MIN_S, MAX_S = (1 << A) - 1, -(1 << S - 1), (1 << S - 1) - 1


def both(
    a: Callable[[int, int, int], int], s: Callable[[int, int, int], int]
) -> Callable[[Numbers], None]:
    def step(x: Numbers) -> None:
        x.a, x.s = a(x.a, x.b, x.n) & MAX_A, signed(s(x.s, x.t, x.n))

    return step


def compare(x: Numbers) -> None:
    bits = [x.a < x.b, x.a == x.b, x.a >= x.b, x.s < x.t, x.s != x.t, x.s > x.t]
    x.flags = int("".join(str(int(b)) for b in bits), 2)


def slices(x: Numbers) -> None:
    x.a = (x.b >> 72 & (1 << 128) - 1) << 128 | x.a & (1 << 128) - 1
    x.b = x.big >> 800 << 56 | x.a >> 44 & (1 << 56) - 1
    x.big += x.a << 700


def look(x: Numbers) -> None:
    x.b = int.from_bytes(x.bytes()[:32], "big")


STEPS: list[Callable[[Numbers], None]] = [
    both(lambda a, b, n: a + b, lambda s, t, n: s + t),
    both(lambda a, b, n: a - b, lambda s, t, n: s - t),
    both(lambda a, b, n: a * b, lambda s, t, n: s * t),
    both(lambda a, b, n: min(a + b, MAX_A), lambda s, t, n: clamp(s + t, MIN_S, MAX_S)),
    both(lambda a, b, n: max(a - b, 0), lambda s, t, n: clamp(s - t, MIN_S, MAX_S)),
    both(lambda a, b, n: a << n, lambda s, t, n: s << n),
    both(lambda a, b, n: a >> n, lambda s, t, n: s >> n),
    both(lambda a, b, n: (a & b) ^ ~(a | b), lambda s, t, n: -s),
    compare,
    slices,
]


def numbers(bits: int, low: int = 0) -> st.SearchStrategy[int]:
    high = low + (1 << bits) - 1
    edges = [low, high, *(v for v in (0, 1, -1, 1 << 64, (1 << 128) - 1) if low <= v <= high)]
    return st.one_of(st.integers(low, high), st.sampled_from(edges))


@st.composite
def headers(draw: st.DrawFn) -> Numbers:
    return Numbers(
        op=draw(st.integers(0, len(STEPS) - 1)),
        n=draw(st.one_of(st.integers(0, 255), st.sampled_from([63, 64, 65, 128, 200]))),
        a=draw(numbers(A)),
        b=draw(numbers(A)),
        s=draw(numbers(S, MIN_S)),
        t=draw(numbers(S, MIN_S)),
        big=draw(numbers(BIG)),
    )


def test_against_python(load: Loader) -> None:
    plane = load("wide")

    @settings(max_examples=400, deadline=None)
    @given(headers())
    def check(x: Numbers) -> None:
        ((port, out),) = plane.inject(1, x.bytes())
        STEPS[x.op](x)
        assert (port, out) == (1, x.bytes())

    check()


def test_lookahead(load: Loader) -> None:
    x = Numbers(11, 0, MAX_A - 1, 5, 1, -1, 1 << 999)
    ((_, out),) = load("wide").inject(1, x.bytes())
    look(x)
    assert out == x.bytes()


def test_a_wide_register(load: Loader) -> None:
    plane = load("wide")
    plane.set_register("I.store", 2, (1 << CELL) - 3)
    x = Numbers(10, 2, a=MAX_A - 7, b=0xABC, s=0, t=0, big=0)
    ((_, out),) = plane.inject(1, x.bytes())
    x.b = (1 << CELL) - 3 >> 44
    assert out == x.bytes()
    assert plane.register("I.store", 2) == 0xABC << 256 | MAX_A - 7


@pytest.mark.parametrize("op", ["/", "%"])
def test_division(op: str) -> None:
    """p4c divides constants only: in what it wrote for a sum, the operator is changed."""
    root = json.loads(program_json("wide"))
    (add,) = (a for a in root["actions"] if a["name"] == "I.add")
    add["primitives"] = add["primitives"][:1]
    text = json.dumps(add["primitives"])
    assert text.count('"op": "+"') == 1
    add["primitives"] = json.loads(text.replace('"op": "+"', f'"op": "{op}"'))
    plane = NativeDataPlane({}, cpu_port=None)
    plane.load(compile_program(json.dumps(root).encode()))
    cases = [(7, 2), (MAX_A, 3), (MAX_A, MAX_A), (1, MAX_A), (1 << 255, (1 << 130) + 1), (5, 0)]
    for a, b in cases:
        ((_, out),) = plane.inject(1, Numbers(0, 0, a, b, 0, 0, 0).bytes())
        by_zero = 0  # as in the narrow ones
        wanted = (a // b if op == "/" else a % b) if b else by_zero
        assert int.from_bytes(out[2:34], "big") == wanted
    plane.close()
