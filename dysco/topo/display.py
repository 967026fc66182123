"""What the demo shows: its steps while they run, the session's way, and what held."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from rich.console import Console
from rich.markup import escape
from rich.progress import Progress, ProgressColumn, SpinnerColumn, Task, TextColumn
from rich.table import Table
from rich.text import Text

from dysco.topo.path import Seen, Where
from dysco.topo.proof import Claim
from dysco.topo.second_act import SHOWN_SECONDS, Change

_STEP_WIDTH = 66
_SHOWN_RATES = 8
"""Of the last moments, beside a download's rate of now."""


class _Seconds(ProgressColumn):
    """How long a step has taken."""

    def render(self, task: Task) -> Text:
        seconds = task.finished_time if task.finished else task.elapsed
        return Text(f"{seconds or 0.0:5.1f} s", style="dim")


class Steps:
    """Steps, each shown with a spinner while it runs and with a mark when it is done."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._started = time.monotonic()

    @property
    def seconds(self) -> float:
        """Since the first step."""
        return time.monotonic() - self._started

    @contextmanager
    def step(self, what: str) -> Iterator[Callable[[str], None]]:
        """Show that this runs for the length of the `with`, and meanwhile what it is told."""
        columns = (
            SpinnerColumn(style="cyan", finished_text="[green]✓[/]"),
            TextColumn("{task.description}"),
            _Seconds(),
        )
        with Progress(*columns, console=self._console) as progress:
            task = progress.add_task(_padded(what), total=1)
            yield lambda now: progress.update(task, description=_padded(now))
            progress.update(task, description=_padded(what), completed=1)


class Throughput:
    """What a download does now: one line that is redrawn, or on what is no terminal a line a step.

    156 Mbit/s ▇▇▇▇▆▇▇▇  reconfigure --delete proxy
    """

    def __init__(self, console: Console, say: Callable[[str], None], top: float) -> None:
        """`say` redraws; `top`: the rate of a full bar, Mbit/s."""
        self._console, self._say, self._top = console, say, top
        self._began = time.monotonic()
        self._rates: deque[float] = deque(maxlen=_SHOWN_RATES)
        self._what = ""

    def step(self, what: str) -> None:
        """What happens now."""
        self._what = what
        if self._console.is_terminal:
            self._draw()
        else:
            seconds = time.monotonic() - self._began
            self._console.print(escape(f"  {seconds:4.1f} s  {self._now():4.0f} Mbit/s  {what}"))

    def rate(self, mbit: float) -> None:
        """Its throughput, Mbit/s."""
        self._rates.append(mbit)
        if self._console.is_terminal:
            self._draw()

    def _now(self) -> float:
        return self._rates[-1] if self._rates else 0.0

    def _draw(self) -> None:
        drawn = bars(list(self._rates), self._top)
        self._say(f"{self._now():4.0f} Mbit/s {drawn:<{_SHOWN_RATES}}  {self._what}")


def _padded(text: str) -> str:
    return escape(f"{text:<{_STEP_WIDTH}}")


_HOW = {
    Where.SENT: "sends",
    Where.LEFT: "network",
    Where.GOT: "gets",
}


def way_table(way: Sequence[Seen]) -> Table:
    """A session's SYN at every place, and how many packets passed there, both ways."""
    table = Table(
        title="The chain as each hop saw it: the SYN on every link, as captured",
        title_justify="left",
        title_style="bold",
        box=None,
        header_style="dim",
        padding=(0, 2, 0, 0),
    )
    for column in ("host", "", "five-tuple", "with"):
        table.add_column(column, no_wrap=True)
    for column in ("packets", "back"):
        table.add_column(column, justify="right")
    named = ""
    for seen in way:
        if seen.where in _HOW:  # what came is what left the host before
            _add_row(table, seen, "" if seen.host == named else seen.host)
            named = seen.host
    return table


def _add_row(table: Table, seen: Seen, host: str) -> None:
    carried = []
    if seen.syn is not None and seen.syn.has_dysco_header:
        carried.append("header")
    if seen.syn is not None and seen.syn.has_tag:
        carried.append("tag")
    table.add_row(
        host,
        _HOW[seen.where],
        str(seen.tuple or "nothing"),
        ", ".join(carried),
        str(seen.to_server),
        str(seen.to_client),
        style="cyan" if seen.in_network else "",
    )


_BARS = "▁▂▃▄▅▆▇█"


def bars(rates: Sequence[float], top: float) -> str:
    """One sign for each rate, as high as it is to `top`."""
    last = len(_BARS) - 1
    return "".join(_BARS[min(last, max(0, round(rate / top * last)))] for rate in rates)


def change_table(change: Change) -> Table:
    """A download's throughput while its chain changed."""
    table = Table(
        title=f"One download while its chain changes: a sign is {SHOWN_SECONDS:g} s",
        title_justify="left",
        title_style="bold",
        box=None,
        header_style="dim",
        padding=(0, 2, 0, 0),
    )
    for column in ("from", "chain", "Mbit/s", "throughput"):
        table.add_column(column, no_wrap=True, justify="right" if column == "Mbit/s" else "left")
    top = max((rate for _, _, rates in change.stretches for rate in rates), default=1.0) or 1.0
    for begin, hosts, rates in change.stretches:
        mean = sum(rates) / len(rates) if rates else 0.0
        chain = " > ".join(hosts)
        table.add_row(f"{begin:.1f} s", chain, f"{mean:.0f}", bars(rates, top), style="cyan")
    return table


def claims_table(claims: Sequence[Claim]) -> Table:
    """What held and what didn't, with what shows it."""
    table = Table(
        title="What held",
        title_justify="left",
        title_style="bold",
        box=None,
        show_header=False,
        padding=(0, 1, 0, 0),
    )
    table.add_column(no_wrap=True)
    table.add_column()
    table.add_column(style="dim")
    for claim in claims:
        table.add_row("[green]✓[/]" if claim.held else "[red]✗[/]", claim.what, claim.shown_by)
    return table


def problems_text(claims: Sequence[Claim]) -> str:
    """What speaks against the claims that didn't hold, as lines."""
    lines = []
    for claim in claims:
        if not claim.held:
            lines.append(claim.what)
            lines += [f"    {problem}" for problem in claim.problems]
    return "\n".join(lines)
