"""What `dysco-ctl` prints: tables for people, JSON for programs."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Sequence
from typing import Any

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

WIDE = 1000
"""Columns where no terminal says how many: nothing is cut off in a file."""

_STATE_STYLES = {
    "established": "green",
    "ready": "green",
    "received": "yellow",
    "sent": "yellow",
    "connecting": "red",
    "backup": "yellow",
    "reset": "red",
}


def show_json(value: Any) -> None:
    """Print it as JSON."""
    click.echo(json.dumps(value, indent=2))


def show_table(columns: Sequence[str], rows: Iterable[Sequence[object]], empty: str) -> None:
    """Print a table, or the line `empty` where there are no rows."""
    found = list(rows)
    if not found:
        click.echo(empty)
        return
    table = Table(box=None, header_style="bold", pad_edge=False)
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in found:
        table.add_row(*(_cell(value) for value in row))
    console = Console(highlight=False)
    if console.is_terminal:
        console.print(table)
        return
    console = Console(highlight=False, width=WIDE)
    with console.capture() as captured:
        console.print(table)
    for line in captured.get().splitlines():
        click.echo(line.rstrip())


def _cell(value: object) -> Text:
    text = "-" if value is None or value == "" else str(value)
    return Text(text, style=_STATE_STYLES.get(text, ""))


def ends(value: dict[str, Any] | None) -> str:
    """A five-tuple."""
    if value is None:
        return "-"
    return f"{_end(value['src'], value['sport'])} > {_end(value['dst'], value['dport'])}"


def _end(address: str, port: int) -> str:
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


def age(created: float) -> str:
    """How long ago, in at most two units."""
    seconds = max(0, int(time.time() - created))
    for size, unit, smaller, small_unit in (
        (86400, "d", 3600, "h"),
        (3600, "h", 60, "m"),
        (60, "m", 1, "s"),
    ):
        if seconds >= size:
            return f"{seconds // size}{unit}{seconds % size // smaller}{small_unit}"
    return f"{seconds}s"


def traffic(leg: dict[str, Any] | None, way: str) -> str:
    """Packets and bytes of one direction of a leg."""
    counted = leg.get(way) if leg else None
    return f"{counted['packets']} / {counted['bytes']}" if counted else "-"
