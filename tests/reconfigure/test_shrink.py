"""A seed that fails becomes a short script: shown on the faults that are put into the protocol."""

from __future__ import annotations

import pytest

from tests.reconfigure.shrink import Shrunk, shrink
from tests.reconfigure.simulation.complaint import ComplaintError
from tests.reconfigure.simulation.network import Mishap, Weather
from tests.reconfigure.simulation.scenarios import scenario
from tests.reconfigure.simulation.tcp import Options
from tests.reconfigure.simulation.world import Scenario, Step, World
from tests.reconfigure.test_faults import FAULTS, found_at, installed

NAMES = {
    "Mishap": Mishap,
    "Options": Options,
    "Scenario": Scenario,
    "Step": Step,
    "Weather": Weather,
    "World": World,
}


def _shrunk(name: str) -> Shrunk:
    """Of the first seed that finds the fault of this name; its script fails in the same way."""
    fault = next(f for f in FAULTS if f.name == name)
    with installed(fault):
        seed = found_at(fault)
        assert seed is not None
        small = shrink(seed, scenario(seed, fault.kind))
        with pytest.raises(ComplaintError) as error:
            exec(small.script, dict(NAMES))
        assert small.complaint in str(error.value)
    # And it is the fault that does it.
    exec(small.script, dict(NAMES))
    return small


@pytest.mark.parametrize(
    ("name", "mishaps"),
    [
        ("cutoff one too low", 0),
        ("the left anchor goes back by itself", 0),
        ("a late request locks again", 3),
        ("the cutoff moves when it is latched again", 4),
    ],
)
def test_a_failure_shrinks_to_what_it_needs(name: str, mishaps: int) -> None:
    small = _shrunk(name)
    assert isinstance(small.tale, Scenario)
    assert small.tale.mishaps is not None
    assert len(small.tale.mishaps) <= mishaps, small.script
    assert len(small.tale.steps) <= 2, small.script
    assert len(small.tale.boxes) <= 2, small.script
    assert small.tale.data.loss == small.tale.control.loss == small.tale.punt_loss == 0


def test_written_down_a_run_is_the_same() -> None:
    for seed in range(20):
        tale = scenario(seed)
        chance = World(seed, tale, written=True).run()
        told = World(seed, Scenario(**_fields(tale, tuple(chance.fate.happened)))).run()
        assert told.clock.steps == chance.clock.steps
        assert told.outcomes == chance.outcomes
        assert World(seed, tale).run().clock.steps == chance.clock.steps


def _fields(tale: Scenario, mishaps: tuple[Mishap, ...]) -> dict[str, object]:
    return {name: getattr(tale, name) for name in tale.__dataclass_fields__} | {"mishaps": mishaps}


def test_a_seed_that_does_not_fail_has_nothing_to_shrink() -> None:
    with pytest.raises(ValueError, match="does not fail"):
        shrink(0, scenario(0))
