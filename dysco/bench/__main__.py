"""The command line: `python -m dysco.bench [NAME...|all] [--quick] [--repeats N]`."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import click
from rich.console import Console
from rich.table import Table

from dysco.bench import (
    connect,
    dent,
    fairness,
    forward,
    goodput,
    memory,
    plot,
    proxy_removal,
    result,
    target,
)
from dysco.bench.machine import Machine, this_commit, this_machine
from dysco.bench.result import Point
from dysco.bench.scale import Scale
from dysco.bench.tools import Tools
from dysco.topo import cage
from dysco.topo.devices import Target
from dysco.topo.needs import missing
from dysco.topo.process import ProcessError

Run = Callable[[Tools, Scale, Path], Iterator[Point]]

BENCHMARKS: dict[str, Run] = {
    module.NAME: module.run
    for module in (forward, target, fairness, connect, goodput, memory, dent, proxy_removal)
}

_PROGRAMS = ("nft", "conntrack", "iperf3", "haproxy")


@click.command()
@click.argument("names", nargs=-1, type=click.Choice([*BENCHMARKS, "all"]))
@click.option("--quick", is_flag=True, help="See that it works; the figures mean little.")
@click.option("--repeats", type=click.IntRange(1, 100), help="Pairs of measurements a point.")
@click.option(
    "--out", type=click.Path(path_type=Path), default=Path("out/bench"), show_default=True
)
def main(names: tuple[str, ...], quick: bool, repeats: int | None, out: Path) -> None:
    """Measure NAMES (all by default), each beside its baseline, into OUT/NAME.json and .png."""
    cage.enter()
    lacking = missing(Target.SOFTNIC, _PROGRAMS)
    if lacking:
        raise click.ClickException("; ".join(map(str, lacking)))
    chosen = list(BENCHMARKS) if not names or "all" in names else list(dict.fromkeys(names))
    scale = Scale.quick(repeats) if quick else Scale.full(repeats)
    machine, commit = this_machine(), this_commit()
    console = Console()
    console.print(_heading(machine, commit))
    with tempfile.TemporaryDirectory(prefix="dysco-bench-") as scratch:
        directory = Path(scratch)
        tools = Tools(directory / "tools")
        for name in chosen:
            try:
                points = _measure(console, name, tools, scale, directory / name)
            except ProcessError as error:
                raise click.ClickException(f"{name}: {error}") from error
            file = result.write(out, points, machine, commit)
            plot.draw(points, file.with_suffix(".png"))
            written = [file, file.with_suffix(".png")]
            course = file.with_name(f"{name}-time.png")
            if plot.draw_over_time(points, course):
                written.append(course)
            console.print(_table(points), f"[dim]{', '.join(map(str, written))}[/]")


def _heading(machine: Machine, commit: str) -> str:
    load = ", ".join(f"{value:.2f}" for value in machine.load_average)
    return f"{machine.model}, {machine.cores} cores, load {load}; commit {commit}"


def _measure(
    console: Console, name: str, tools: Tools, scale: Scale, directory: Path
) -> list[Point]:
    points: list[Point] = []
    with console.status(f"{name} ..."):
        for point in BENCHMARKS[name](tools, scale, directory):
            points.append(point)
            console.print(f"  {name}: {point.point}: {_figure(point.measured)} {point.unit}")
    return points


def _figure(values: tuple[float, ...]) -> str:
    ordered = sorted(values)
    return f"{ordered[len(ordered) // 2]:,.4g}"


def _table(points: list[Point]) -> Table:
    table = Table(title=points[0].name, title_justify="left")
    for heading in ("point", "unit", "baseline", "measured", "ratio", "from", "to"):
        table.add_column(heading, justify="left" if heading in ("point", "unit") else "right")
    for point in points:
        ratio = point.ratio
        spread = ("", "", "") if ratio is None else (ratio.median, ratio.min, ratio.max)
        table.add_row(
            point.point,
            point.unit,
            _figure(point.baseline) if point.baseline else "",
            _figure(point.measured),
            *(f"{value:.3f}" if isinstance(value, float) else value for value in spread),
        )
    return table


if __name__ == "__main__":
    sys.exit(main())
