"""What is tried with real agents: one random story for each seed."""

from __future__ import annotations

import random
from dataclasses import replace

from tests.reconfigure.agents.story import Calls, Change, Story
from tests.reconfigure.simulation.network import Weather
from tests.reconfigure.simulation.tcp import Options

BOXES = ("pass", "firewall", "shift", "nat")
KINDS = ("delete", "insert", "replace", "contend", "row", "crash", "reset", "dead", "cancel")
MOVES = ("box", "end", "back", "after", "beside", "crash", "reset", "refused", "cancel", "late")
"""What else happens while state moves from one host to another."""


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


def move(seed: int, kind: str | None = None) -> Story:
    """The story of a seed, in which state moves; `kind` fixes what else it chooses itself."""
    source = random.Random(f"move {seed}")
    chosen = source.choice(MOVES)
    kind = kind or chosen
    calm = source.random() < 0.3
    boxes = {name: source.choice(BOXES) for name in "abd"}
    chain = tuple("ab"[: source.randint(kind != "end", 2)])
    at = 0.005 + source.random() * 0.02
    old = source.choice(chain) if chain else "a"
    boxes["c"] = boxes[old]
    whole = ("client", *chain, "server")
    place = whole.index(old) if chain else 0
    moves_end = kind == "end" or not chain or source.random() < 0.3
    hop = Change(at, whole[place - 1], whole[place + 1], ("c",), with_state=True) if chain else None
    if moves_end or hop is None:
        hop = Change(at, whole[-2], "server", moves_to="server2")
    everyone = (*whole, "c", "server2")
    return Story(
        boxes=boxes,
        chain=chain,
        changes=_around(source, kind, hop, whole, old),
        sizes=(source.randrange(0, 12000), source.randrange(1500, 12000)),
        data=_data(source, kind, calm=calm),
        control=Weather() if calm else _weather(source, 0.2),
        punt_loss=0.0 if calm else source.choice((0.0, 0.05)),
        options=_options(source),
        pause=source.choice((0.001, 0.003, 0.01)),
        linger=source.choice((0.0, 0.1, 0.3)),
        crashes=tuple(
            (source.choice(everyone), source.randrange(1, 50), source.choice((0.01, 0.1, 1.0, 4.0)))
            for _ in range(source.randint(1, 2) if kind == "crash" else 0)
        ),
        reset_at=source.random() * 0.08 if kind == "reset" else None,
        calls=_calls(source, kind, old if hop.moves_to is None else "server", hop),
        ends=("server2",),
    )


def _data(source: random.Random, kind: str, *, calm: bool) -> Weather:
    if kind == "late":
        # What was on its way finds the old host's gate shut.
        return Weather(late=0.05)
    return Weather() if calm else _weather(source, 0.04 * (kind != "reset"))


def _calls(source: random.Random, kind: str, old: str, hop: Change) -> Calls:
    new = hop.moves_to or "c"
    # An end that does not thaw is the session's end.
    other = f"{new} resume" if hop.moves_to is None else f"{old} drop"
    refused = source.choice((f"{old} export", f"{new} import", f"{old} drop", other))
    names = frozenset({refused} if kind == "refused" else ())
    silent = source.random() < 0.5
    delay = source.choice((0.0, 0.002, 0.02, 0.3))
    size = source.choice((0, 0, 3000, 60_000))
    return Calls(delay, frozenset() if silent else names, names if silent else frozenset(), size)


def _around(
    source: random.Random, kind: str, hop: Change, whole: tuple[str, ...], old: str
) -> tuple[Change, ...]:
    """A move, and what else is wanted of the session."""
    later = hop.at + 0.15
    before = max(0.001, hop.at - 0.004)
    new = hop.through[0] if hop.through else ""
    match kind:
        case "back" if new:
            return (hop, replace(hop, at=hop.at + 3.0, through=(old,)))
        case "after" if new:
            # Numbers that an earlier one translates move along.
            inside = Change(hop.at, hop.left, old, ("d",))
            return (inside, replace(hop, at=later, left="d"))
        case "after":
            return (replace(hop, moves_to=None, through=("d",)), replace(hop, at=later, left="d"))
        case "beside":
            left, right = whole[0], source.choice(whole[1:])
            other = Change(source.choice((before, hop.at, later)), left, right, ("d",))
            return (hop, other)
        case "cancel":
            return (replace(hop, cancel_after=source.random() * 0.06),)
        case _:
            return (hop,)


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
