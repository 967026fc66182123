"""What is tried: one random scenario for each seed, so that a seed says all."""

from __future__ import annotations

import random

from tests.reconfigure.simulation.network import Weather
from tests.reconfigure.simulation.tcp import Options
from tests.reconfigure.simulation.world import Scenario, Step

BOXES = ("pass", "firewall", "shift", "proxy")
NEW_BOXES = ("pass", "firewall", "shift")
KINDS = (
    "delete",
    "insert",
    "replace",
    "proxy",
    "chain",
    "row",
    "contend",
    "cancel",
    "dead",
    "reset",
    "crash",
    "storm",
)


def scenario(seed: int, kind: str | None = None, *, calm: bool | None = None) -> Scenario:
    """The scenario of a seed; `kind` and `calm` fix what else it chooses itself."""
    source = random.Random(f"scenario {seed}")
    chosen = source.choice(KINDS)
    kind = kind or chosen
    fair = source.random() < 0.3
    calm = fair if calm is None else calm
    boxes, steps = _shape(source, kind)
    options = _options(source)
    stalls = (source.choice((0.0, 0.0, 0.1)), source.choice((0.0, 0.0, 0.15)))
    return Scenario(
        boxes=boxes,
        steps=steps,
        sizes=(source.randrange(0, 5000), source.randrange(1500, 5000)),
        data=Weather() if calm else _weather(source, 0.04),
        control=_control(source, kind, calm=calm),
        punt_loss=0.0 if calm else source.choice((0.0, 0.1)),
        options=options,
        near_wrap=source.random() < 0.5,
        stalled=stalls,
        pause=source.choice((0.002, 0.006, 0.015)),
        linger=source.choice((0.0, 0.1, 0.2)),
        piece=source.choice((50, 700, 1500)),
        crashes=_crashes(source, len(boxes) + 2) if kind == "crash" else (),
        reset_at=source.random() * 0.08 if kind == "reset" else None,
    )


def _crashes(source: random.Random, hosts: int) -> tuple[tuple[int, int, float], ...]:
    return tuple(
        (source.randrange(hosts), source.randrange(1, 25), source.choice((0.01, 0.1, 1.0)))
        for _ in range(source.randint(1, 2))
    )


def _control(source: random.Random, kind: str, *, calm: bool) -> Weather:
    """For what the agents tell each other; in a storm hardly anything arrives, or much too late."""
    if kind == "storm":
        loss, late = source.random() * 0.45, source.random() * 0.3
        return Weather(delay=0.001, loss=loss, repeat=0.3, late=late)
    return Weather() if calm else _weather(source, 0.2)


def _weather(source: random.Random, worst: float) -> Weather:
    return Weather(
        delay=source.choice((0.0003, 0.001, 0.003)),
        jitter=source.choice((0.0, 0.0005, 0.003)),
        loss=source.random() * worst,
        repeat=source.random() * worst,
        reorder=source.random() * worst * 2,
    )


def _options(source: random.Random) -> tuple[Options, Options]:
    sack, stamps = source.random() < 0.75, source.random() < 0.75
    mss = source.choice((60, 100, 137))
    scaled = source.random() < 0.7
    return (
        Options(source.randrange(0, 6) * scaled, sack, stamps, mss, source.choice((1000, 4000))),
        Options(source.randrange(0, 6) * scaled, sack, stamps, mss, source.choice((1000, 4000))),
    )


def _some(source: random.Random, kinds: tuple[str, ...], least: int, most: int) -> tuple[str, ...]:
    return tuple(source.choice(kinds) for _ in range(source.randint(least, most)))


def _shape(source: random.Random, kind: str) -> tuple[tuple[str, ...], tuple[Step, ...]]:
    at = 0.005 + source.random() * 0.03
    calm_boxes = ("pass", "firewall", "shift")
    match kind:
        case "delete":
            boxes = _some(source, calm_boxes, 1, 3)
            left = source.randrange(0, len(boxes))
            return boxes, (Step(at, left, source.randint(left + 2, len(boxes) + 1)),)
        case "insert":
            boxes = _some(source, calm_boxes, 0, 2)
            left = source.randint(0, len(boxes))
            return boxes, (Step(at, left, left + 1, _some(source, NEW_BOXES, 1, 2)),)
        case "replace" | "cancel" | "dead" | "reset" | "crash":
            boxes = _some(source, BOXES if kind == "reset" else calm_boxes, 1, 2)
            left = source.randrange(0, len(boxes))
            right = source.randint(left + 2, len(boxes) + 1)
            cancel = source.random() * 0.03 if kind == "cancel" else None
            new = _some(source, NEW_BOXES, 1, 2)
            return boxes, (Step(at, left, right, new, cancel, dead=kind == "dead"),)
        case "proxy":
            boxes = (*_some(source, calm_boxes, 0, 1), "proxy", *_some(source, calm_boxes, 0, 1))
            where = boxes.index("proxy") + 1
            return boxes, (Step(at, where - 1, where + 1, _some(source, NEW_BOXES, 0, 1)),)
        case "chain":
            boxes = _some(source, BOXES, 2, 3)
            left = source.randrange(0, len(boxes))
            right = source.randint(left + 1, len(boxes) + 1)
            new = _some(source, NEW_BOXES, 0 if right > left + 1 else 1, 2)
            return boxes, (Step(at, left, right, new),)
        case "row":
            boxes = _some(source, calm_boxes, 1, 2)
            steps, length = [], len(boxes) + 2
            for turn in range(3):
                left = source.randrange(0, length - 1)
                right = source.randint(left + 1, length - 1)
                least = 1 if right == left + 1 else 0
                new = _some(source, NEW_BOXES, least, 1)
                steps.append(Step(at + turn * 0.03, left, right, new))
                length += len(new) - (right - left - 1)
            return boxes, tuple(steps)
        case "storm":
            return _shape(source, source.choice(("row", "contend", "insert", "proxy")))
        case "contend":
            boxes = _some(source, calm_boxes, 2, 3)
            steps = []
            for _ in range(2):
                left = source.randrange(0, len(boxes))
                right = source.randint(left + 1, len(boxes) + 1)
                least = 1 if right == left + 1 else 0
                new = _some(source, NEW_BOXES, least, 1)
                steps.append(Step(at + source.random() * 0.008, left, right, new))
            return boxes, tuple(steps)
        case _:
            raise ValueError(f"no kind of scenario is called {kind!r}")
