"""What the demo shows of a download while it lasts."""

from __future__ import annotations

import io

from rich.console import Console

from dysco.topo.display import Throughput
from dysco.topo.second_act import Change


def test_on_a_terminal_one_line_is_redrawn_with_each_rate_and_step() -> None:
    drawn: list[str] = []
    console = Console(file=io.StringIO(), force_terminal=True)
    live = Throughput(console, drawn.append, 160.0)
    live.step("goes straight")
    for mbit in (0.0, 160.0, 80.0):
        live.rate(mbit)
    assert drawn == [
        "   0 Mbit/s           goes straight",
        "   0 Mbit/s ▁         goes straight",
        " 160 Mbit/s ▁█        goes straight",
        "  80 Mbit/s ▁█▅       goes straight",
    ]
    for _ in range(20):
        live.rate(160.0)
    assert drawn[-1] == " 160 Mbit/s ████████  goes straight"


def test_on_what_is_no_terminal_each_step_is_a_line_and_rates_are_none() -> None:
    drawn: list[str] = []
    out = io.StringIO()
    live = Throughput(Console(file=out), drawn.append, 160.0)
    live.rate(156.4)
    live.step("reconfigure --delete [proxy]")
    live.rate(10.0)
    assert not drawn
    assert out.getvalue() == "   0.0 s   156 Mbit/s  reconfigure --delete [proxy]\n"


def test_the_rate_is_that_of_the_last_moments() -> None:
    change = Change()
    change.samples = [(10.0, 0), (10.1, 9_000_000), (10.2, 10_000_000), (10.3, 11_000_000)]
    assert round(change.rate) == 80
    change.samples = [(10.0, 0)]
    assert change.rate == 0.0
