"""What benchmarks write: figures in pairs, in the file's format, and a plot that can be opened."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from dysco.bench import plot, result
from dysco.bench.machine import Machine
from dysco.bench.repeat import alternate
from dysco.bench.result import Point, ResultError
from dysco.bench.sample import Sample, point_of

MACHINE = Machine(2, "some processor", "6.1", (0.1, 0.2, 0.3))


def test_turns_swap_their_order() -> None:
    order: list[str] = []
    alternate(3, lambda i: order.append(f"a{i}"), lambda i: order.append(f"b{i}"))
    assert order == ["a0", "b0", "b1", "a1", "a2", "b2"]


def test_ratio_is_of_pairs() -> None:
    turns = [Sample(1.0), Sample(2.0), Sample(4.0)], [Sample(2.0), Sample(2.0), Sample(2.0)]
    point = point_of("forward", "one", "us", turns)
    assert point.ratio is not None
    assert (point.ratio.median, point.ratio.min, point.ratio.max) == (1.0, 0.5, 2.0)


@pytest.mark.parametrize(
    ("measured", "baseline"), [((), ()), ((1.0,), (1.0, 2.0)), ((1.0,), (0.0,))]
)
def test_what_makes_no_result(measured: tuple[float, ...], baseline: tuple[float, ...]) -> None:
    with pytest.raises(ResultError):
        Point("forward", "one", "us", measured, baseline)


def test_files(tmp_path: Path) -> None:
    points = [
        Point("memory", "alone", "bytes", (300.0,)),
        Point("memory", "beside", "us", (3.0, 4.0), (2.0, 2.0), {"why": "so"}),
    ]
    file = result.write(tmp_path, points, MACHINE, "abc")
    alone, beside = json.loads(file.read_text())
    assert alone["baseline"] == []
    assert "ratio" not in alone
    assert beside["ratio"] == {"median": 1.75, "min": 1.5, "max": 2.0}
    assert beside["machine"]["cores"] == 2
    plot.draw(points, tmp_path / "memory.png")
    assert (tmp_path / "memory.png").read_bytes().startswith(b"\x89PNG")


def test_one_file_is_of_one_benchmark(tmp_path: Path) -> None:
    points = [Point(name, "one", "us", (1.0,)) for name in ("connect", "goodput")]
    with pytest.raises(ResultError, match="connect"):
        result.write(tmp_path, points, MACHINE, "abc")
