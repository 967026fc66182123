"""Makes what a failing seed does as small as it can be, and says it as lines for a test.

    seed -> everything that went wrong by chance, written down -> fewer mishaps (delta debugging,
    Zeller and Hildebrandt 2002), fewer steps and boxes, less data, plainer numbers -> a script

A smaller run counts if it fails with the same words, numbers aside.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any

from tests.reconfigure.agents.story import Story
from tests.reconfigure.agents.world import World as AgentWorld
from tests.reconfigure.simulation.complaint import ComplaintError
from tests.reconfigure.simulation.network import Mishap, Weather
from tests.reconfigure.simulation.tcp import Options
from tests.reconfigure.simulation.world import Scenario
from tests.reconfigure.simulation.world import World as ReferenceWorld

RUNS = 400
"""At most, for one shrinking."""
SOON = 8.0
"""Seconds after which what does not end may be called so."""
SEEDS = 8
"""Tried where a change draws other numbers for everything else."""
_FIXED = frozenset({"limit", "mishaps", "where", "nth"})

Tale = Scenario | Story


@dataclass(frozen=True)
class Shrunk:
    """The smallest failing run that was found."""

    seed: int
    tale: Tale
    complaint: str
    runs: int

    @property
    def script(self) -> str:
        """Python that replays it, for a test."""
        return f"# {self.complaint}\nWorld({self.seed}, {as_code(self.tale)}).run()"


def _run(seed: int, tale: Tale, *, written: bool = False) -> tuple[str, tuple[Mishap, ...]]:
    """What the run complains about (nothing: it is good), and what went wrong on its network."""
    world: ReferenceWorld | AgentWorld
    try:
        if isinstance(tale, Scenario):
            world = ReferenceWorld(seed, tale, written=written)
        else:
            world = AgentWorld(seed, tale, written=written)
    except (ComplaintError, ValueError, IndexError, KeyError):
        # Made smaller, it makes no sense any more.
        return "", ()
    try:
        world.run()
    except ComplaintError as complaint:
        return _words(complaint), tuple(world.fate.happened)
    except (ValueError, IndexError, KeyError):
        return "", ()
    return "", ()


def _words(complaint: ComplaintError) -> str:
    first = str(complaint).splitlines()[0]
    return first.split(": ", 1)[-1]


def _kind(words: str) -> str:
    """What a complaint says, without whom and what of."""
    return re.sub(r"[\d.]+", "", re.split(r"Segment\(|Lock\(", words)[0])


def shrink(seed: int, tale: Tale, runs: int = RUNS) -> Shrunk:
    """Raises ValueError if the seed does not fail."""
    return _Shrinking(seed, tale, runs).result()


class _Shrinking:
    """The best so far, and what was tried."""

    def __init__(self, seed: int, tale: Tale, runs: int) -> None:
        self.seed, self.tale, self.runs = seed, tale, runs
        self.words, _ = _run(seed, tale)
        if not self.words:
            raise ValueError(f"seed {seed} does not fail")
        self.kind = _kind(self.words)
        self.spent = 0
        self.tried: set[str] = set()

    def result(self) -> Shrunk:
        """Shrinks until nothing gets smaller, or all runs are spent."""
        if self.tale.mishaps is None:
            self._still(replace(self.tale, limit=SOON))
            self._fairer_weather()
            _, mishaps = _run(self.seed, self.tale, written=True)
            if not self._still(replace(self.tale, mishaps=mishaps)):
                raise ValueError(f"seed {self.seed}: written down it does not fail in this way")
        while True:
            before = self.tale
            self._fewer_mishaps()
            self._no_weather()
            self._plainer()
            self._plainer_mishaps()
            if self.tale == before or self.spent >= self.runs:
                return Shrunk(self.seed, self.tale, self.words, self.spent)

    def _still(self, candidate: Tale, seed: int | None = None) -> bool:
        """True if it fails in the same way; then it is the best so far."""
        seed = self.seed if seed is None else seed
        name = f"{seed} {as_code(candidate)}"
        if self.spent >= self.runs or name in self.tried:
            return False
        self.tried.add(name)
        self.spent += 1
        said, _ = _run(seed, candidate)
        if _kind(said) != self.kind:
            return False
        self.seed, self.tale, self.words = seed, candidate, said
        return True

    def _fairer_weather(self) -> None:
        """Still by chance: with less of it."""
        calm: dict[str, Any] = {"data": Weather(), "control": Weather(), "punt_loss": 0.0}
        for names in (("data", "control", "punt_loss"), ("data",), ("control",), ("punt_loss",)):
            self._with_some_seed(replace(self.tale, **{name: calm[name] for name in names}))

    def _no_weather(self) -> None:
        """The script says what goes wrong. Without chance other numbers are drawn for the rest."""
        tale = self.tale
        delays = {"data": Weather(tale.data.delay), "control": Weather(tale.control.delay)}
        for weathers in ({"data": Weather(), "control": Weather()}, delays):
            if self._with_some_seed(replace(tale, punt_loss=0.0, **weathers)):
                return

    def _with_some_seed(self, candidate: Tale) -> bool:
        return candidate != self.tale and any(
            self._still(candidate, seed) for seed in (self.seed, *range(SEEDS))
        )

    def _fewer_mishaps(self) -> None:
        """Leaves out half of them, a quarter, ... and at last each one."""
        size = len(self.tale.mishaps or ())
        while size >= 1:
            at = 0
            while at < len(mishaps := self.tale.mishaps or ()):
                if not self._still(replace(self.tale, mishaps=mishaps[:at] + mishaps[at + size :])):
                    at += size
            size //= 2

    def _plainer(self) -> None:
        """Every field on its own, for as long as one of them can be made plainer."""
        usual = type(self.tale)(**_needed(self.tale))
        while any(self._still(easier) for easier in _candidates(self.tale, usual)):
            pass

    def _plainer_mishaps(self) -> None:
        at = 0
        while at < len(mishaps := self.tale.mishaps or ()):
            one = mishaps[at]
            if not any(
                self._still(replace(self.tale, mishaps=(*mishaps[:at], easier, *mishaps[at + 1 :])))
                for easier in _candidates(one, Mishap(one.where, one.nth))
            ):
                at += 1


def _needed(tale: Tale) -> dict[str, Any]:
    """What a tale can't be made without."""
    return {
        f.name: getattr(tale, f.name)
        for f in fields(tale)
        if f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING
    }


def _candidates(value: Any, default: Any) -> Iterator[Any]:
    """Values that are plainer than this one, the plainest first."""
    if isinstance(value, Options | Weather):
        if value != default and type(default) is type(value):
            yield default
        return
    if is_dataclass(value) and not isinstance(value, type):
        for field in fields(value):
            if field.name not in _FIXED:
                own = getattr(value, field.name)
                usual = getattr(default, field.name, own)
                yield from (replace(value, **{field.name: v}) for v in _candidates(own, usual))
        return
    grows = isinstance(value, int | float) and default is not None and default > value
    if value != default and not grows and (default is None or type(value) is type(default)):
        yield default
    match value:
        case tuple():
            yield from (value[:at] + value[at + 1 :] for at in range(len(value)))
            for at, one in enumerate(value):
                usual = default[at] if isinstance(default, tuple) and at < len(default) else one
                yield from ((*value[:at], v, *value[at + 1 :]) for v in _candidates(one, usual))
        case dict():
            yield from ({n: v for n, v in value.items() if n != name} for name in value)
            yield from (value | {name: "pass"} for name, one in value.items() if one != "pass")
        case "firewall" | "shift" | "proxy" | "nat":
            yield "pass"
        case float():
            yield from (v for v in (round(value, n) for n in range(4)) if v != value)
        case int() if value > 1:
            yield from (0, value // 2, value - value % 100 or 1)


def as_code(value: Any) -> str:
    """The value as Python, without what is the default."""
    if is_dataclass(value) and not isinstance(value, type):
        parts = []
        for field in fields(value):
            own = getattr(value, field.name)
            usual = field.default
            if field.default_factory is not dataclasses.MISSING:
                usual = field.default_factory()
            if usual is dataclasses.MISSING or own != usual:
                parts.append(f"{field.name}={as_code(own)}")
        return f"{type(value).__name__}({', '.join(parts)})"
    if isinstance(value, tuple):
        inside = ", ".join(as_code(one) for one in value)
        return f"({inside},)" if len(value) == 1 else f"({inside})"
    return repr(value)
