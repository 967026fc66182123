"""Meters: colours by rate and burst."""

from __future__ import annotations

import pytest
from conftest import Loader

from softnic.dataplane import CounterValue, MeterConfig


def test_an_unset_meter_is_green(load: Loader) -> None:
    plane = load("meter")
    assert plane.meter("I.rate", 1) is None
    assert [plane.inject(1, b"x")[0][0] for _ in range(5)] == [0] * 5


def test_bursts_are_green_then_yellow_then_red(load: Loader) -> None:
    plane = load("meter")
    # A rate of nothing, so that the bursts alone count.
    config = MeterConfig(cir=0, cburst=2, pir=0, pburst=5)
    plane.set_meter("I.rate", 1, config)
    assert plane.meter("I.rate", 1) == config
    assert [plane.inject(1, b"x")[0][0] for _ in range(7)] == [0, 0, 1, 1, 1, 2, 2]
    assert plane.inject(2, b"x")[0][0] == 0  # another cell
    plane.set_meter("I.rate", 1, None)
    assert plane.inject(1, b"x")[0][0] == 0


def test_tokens_come_back_at_the_rate(load: Loader) -> None:
    plane = load("meter")
    plane.set_meter("I.rate", 1, MeterConfig(cir=10**9, cburst=1, pir=10**9, pburst=1))
    assert [plane.inject(1, b"x")[0][0] for _ in range(20)] == [0] * 20


def test_bad_cells_and_rates(load: Loader) -> None:
    plane = load("meter")
    with pytest.raises(IndexError, match="no cell 16"):
        plane.meter("I.rate", 16)
    with pytest.raises(ValueError, match="below committed"):
        plane.set_meter("I.rate", 0, MeterConfig(2, 1, 1, 1))
    # A packet on a port without a cell keeps the colour that it has.
    assert plane.inject(20, b"x")[0][0] == 0


def test_what_each_colour_counted(load: Loader) -> None:
    plane = load("meter")
    plane.set_meter("I.rate", 1, MeterConfig(cir=0, cburst=2, pir=0, pburst=5))
    for frame in (b"x", b"xy", b"x", b"x", b"xyz", b"x", b"x"):
        plane.inject(1, frame)
    counted = CounterValue(2, 3), CounterValue(3, 5), CounterValue(2, 2)
    assert plane.meter_colors("I.rate", 1) == counted
    plane.set_meter("I.rate", 1, None)
    assert plane.meter_colors("I.rate", 1) == counted  # other rates, the same counts
    plane.clear_meter_colors("I.rate", 1)
    plane.inject(1, b"x")
    nothing = CounterValue(0, 0)
    assert plane.meter_colors("I.rate", 1) == (CounterValue(1, 1), nothing, nothing)
