"""The plots: one panel for each unit, baseline beside measured, every single value as a dot.

What has a course over time (`detail["over_time"]`) gets a panel for it in a plot of its own.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from dysco.bench.result import Point

mpl.use("Agg")

_BASELINE, _MEASURED = "#9aa5b1", "#1b6ca8"
_BAR = 0.38


def draw(points: Sequence[Point], file: Path) -> None:
    """Draw the points of one benchmark into a PNG file."""
    units = list(dict.fromkeys(point.unit for point in points))
    rows = max(sum(point.unit == unit for point in points) for unit in units)
    figure = Figure(figsize=(6.4 * len(units), 1.4 + 0.7 * rows), layout="constrained")
    panels = figure.subplots(1, len(units), squeeze=False)[0]
    for panel, unit in zip(panels, units, strict=True):
        _panel(panel, [point for point in points if point.unit == unit], unit)
    figure.suptitle(points[0].name)
    figure.savefig(file, dpi=110)


def draw_over_time(points: Sequence[Point], file: Path) -> bool:
    """Draw what has a course over time into a PNG file; False if nothing has."""
    shown = [point for point in points if "over_time" in point.detail]
    if not shown:
        return False
    size = (10.0, 0.6 + 2.4 * len(shown))
    figure = Figure(figsize=size, layout="constrained")
    panels = figure.subplots(len(shown), 1, squeeze=False)[:, 0]
    for panel, point in zip(panels, shown, strict=True):
        _course(panel, point)
    panels[-1].set_xlabel("seconds")
    figure.suptitle(f"{points[0].name}, over time")
    figure.savefig(file, dpi=110)
    return True


def _course(panel: Axes, point: Point) -> None:
    course = point.detail["over_time"]
    for line in course["lines"]:
        panel.plot(course["seconds"][: len(line)], line, color=_MEASURED, linewidth=0.8, alpha=0.7)
    for name, at in course["marks"].items():
        panel.axvline(at, color=_BASELINE, linewidth=0.8)
        panel.annotate(
            name,
            (at, 1.0),
            xycoords=("data", "axes fraction"),
            rotation=90,
            fontsize=7,
            va="top",
            ha="right",
        )
    panel.set_title(point.point, fontsize=9, loc="left")
    panel.set_ylabel(course["unit"])
    panel.set_ylim(bottom=0)


def _panel(panel: Axes, points: Sequence[Point], unit: str) -> None:
    for row, point in enumerate(points):
        sides = ((point.baseline, _BASELINE, -1), (point.measured, _MEASURED, 1))
        for values, colour, side in sides:
            if values:
                at = row + side * _BAR / 2
                panel.barh(at, statistics.median(values), _BAR, color=colour)
                panel.plot(values, [at] * len(values), ".", color="black", markersize=4)
        if point.ratio is not None:
            tail = f"  x {point.ratio.median:.3g}"
            panel.annotate(tail, (max(point.measured), row + _BAR / 2), va="center", fontsize=8)
    panel.set_yticks(range(len(points)), [point.point for point in points], fontsize=8)
    panel.invert_yaxis()
    panel.set_xlabel(unit)
    panel.margins(x=0.15)
    if any(point.baseline for point in points):
        for colour, label in ((_BASELINE, "baseline"), (_MEASURED, "measured")):
            panel.barh([0], [0], color=colour, label=label)
        panel.legend(fontsize=8)
