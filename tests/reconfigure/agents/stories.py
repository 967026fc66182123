"""What is tried with real agents: one random story for each seed."""

from __future__ import annotations

import random

from tests.reconfigure.agents.world import Change, Story
from tests.reconfigure.simulation.network import Weather
from tests.reconfigure.simulation.tcp import Options

BOXES = ("pass", "firewall", "shift", "nat")
KINDS = ("delete", "insert", "replace", "contend", "row", "crash", "reset", "dead", "cancel")


def story(seed: int, kind: str | None = None) -> Story:
    """The story of a seed; `kind` fixes what else it chooses itself."""
    source = random.Random(f"story {seed}")
    chosen = source.choice(KINDS)
    kind = kind or chosen
    calm = source.random() < 0.3
    boxes = {name: source.choice(BOXES) for name in "abcd"}
    chain = tuple("ab"[: source.randint(kind not in ("insert",), 2)])
    hosts = ("client", *chain, "server")
    at = 0.005 + source.random() * 0.02
    if kind == "dead":
        boxes["c"] = "dead"
    changes = _changes(source, kind, hosts, at)
    everyone = ("client", "server", *chain, "c")
    return Story(
        boxes=boxes,
        chain=chain,
        changes=changes,
        sizes=(source.randrange(0, 4000), source.randrange(1500, 4000)),
        # A lost RST is never sent again: who misses it waits for ever, with Dysco or without.
        data=Weather() if calm else _weather(source, 0.04 * (kind != "reset")),
        control=Weather() if calm else _weather(source, 0.2),
        punt_loss=0.0 if calm else source.choice((0.0, 0.05)),
        options=_options(source),
        pause=source.choice((0.002, 0.006, 0.015)),
        linger=source.choice((0.0, 0.1, 0.3)),
        crashes=tuple(
            (source.choice(everyone), source.randrange(1, 40), source.choice((0.01, 0.1, 1.0)))
            for _ in range(source.randint(1, 2) if kind == "crash" else 0)
        ),
        reset_at=source.random() * 0.08 if kind == "reset" else None,
    )


def _changes(
    source: random.Random, kind: str, hosts: tuple[str, ...], at: float
) -> tuple[Change, ...]:
    def change(at: float, through: tuple[str, ...], least: int = 1) -> Change:
        left = source.randrange(0, len(hosts) - least)
        right = source.randint(left + least, len(hosts) - 1)
        return Change(at, hosts[left], hosts[right], through)

    match kind:
        case "delete":
            return (change(at, (), 2),)
        case "insert":
            return (change(at, ("c", "d")[: source.randint(1, 2)]),)
        case "contend":
            later = at + source.random() * 0.008
            return (change(at, ("c",)), change(later, ("d",)))
        case "row":
            return (change(at, ("c",)), change(at + 0.1, ("d",)), Change(at + 0.2, *hosts[:2]))
        case "cancel":
            one = change(at, ("c",))
            return (Change(one.at, one.left, one.right, one.through, source.random() * 0.03),)
        case _:
            return (change(at, ("c",)),)


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
    own, other = (
        Options(source.randrange(0, 6), sack, stamps, mss, source.choice((1000, 4000)))
        for _ in range(2)
    )
    return own, other
