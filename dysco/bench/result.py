"""What a benchmark found: points of paired values, as they are written to out/bench/NAME.json."""

from __future__ import annotations

import json
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dysco.bench.machine import Machine

Detail = dict[str, Any]


class ResultError(ValueError):
    """Values that make no result."""


@dataclass(frozen=True, slots=True)
class Ratio:
    """Of measured to baseline, pair by pair: a slow moment of the machine hits both of a pair."""

    median: float
    min: float
    max: float

    @classmethod
    def of(cls, baseline: Sequence[float], measured: Sequence[float]) -> Ratio:
        """Of two lists of equal length. Raises ResultError where they make no ratio."""
        if not measured or len(baseline) != len(measured):
            raise ResultError(f"{len(measured)} values beside {len(baseline)} of the baseline")
        if not all(value > 0 for value in baseline):
            raise ResultError(f"a baseline without a positive value: {list(baseline)}")
        ratios = [ours / theirs for theirs, ours in zip(baseline, measured, strict=True)]
        return cls(statistics.median(ratios), min(ratios), max(ratios))


@dataclass(frozen=True, slots=True)
class Point:
    """One figure of a benchmark: what was measured, beside its baseline if it has one."""

    name: str
    point: str
    unit: str
    measured: tuple[float, ...]
    baseline: tuple[float, ...] = ()
    detail: Detail = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Check that the values make a result. Raises ResultError."""
        if not self.measured:
            raise ResultError(f"{self.name}, {self.point}: nothing was measured")
        if self.baseline:
            _ = self.ratio

    @property
    def ratio(self) -> Ratio | None:
        """None without a baseline."""
        return Ratio.of(self.baseline, self.measured) if self.baseline else None

    def as_json(self, machine: Machine, commit: str) -> dict[str, Any]:
        """The object of the JSON file."""
        ratio = self.ratio
        return {
            "name": self.name,
            "point": self.point,
            "unit": self.unit,
            "baseline": [_rounded(value) for value in self.baseline],
            "measured": [_rounded(value) for value in self.measured],
            **({} if ratio is None else {"ratio": _ratio_json(ratio)}),
            "detail": self.detail,
            "machine": machine.as_json(),
            "commit": commit,
        }


def write(directory: Path, points: Sequence[Point], machine: Machine, commit: str) -> Path:
    """Write the points of one benchmark to NAME.json; the file. Raises ResultError, OSError."""
    names = {point.name for point in points}
    if len(names) != 1:
        raise ResultError(f"one file is of one benchmark, not of {sorted(names)}")
    directory.mkdir(parents=True, exist_ok=True)
    file = directory / f"{names.pop()}.json"
    objects = [point.as_json(machine, commit) for point in points]
    text = json.dumps(objects if len(objects) > 1 else objects[0], indent=2, ensure_ascii=False)
    file.write_text(text + "\n")
    return file


def _ratio_json(ratio: Ratio) -> dict[str, float]:
    return {
        "median": round(ratio.median, 4),
        "min": round(ratio.min, 4),
        "max": round(ratio.max, 4),
    }


def _rounded(value: float) -> float:
    return float(f"{value:.6g}")
