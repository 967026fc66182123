"""Five thousand seeds of the simulation; `python -m tests.reconfigure.explore` does more."""

from __future__ import annotations

import pytest

from dysco.agent.reconfigure.left import LeftState
from tests.reconfigure.explore import try_all
from tests.reconfigure.simulation.boxes import Firewall
from tests.reconfigure.simulation.scenarios import scenario
from tests.reconfigure.simulation.tcp import Options
from tests.reconfigure.simulation.world import Scenario, Step, World

SEEDS = 5000
AT_ONCE = 100
ROOMY = (Options(buffer=20000), Options(buffer=20000))


@pytest.mark.parametrize("first", range(0, SEEDS, AT_ONCE))
def test_bad_weather(first: int) -> None:
    """Every kind of reconfiguration, and whatever goes wrong on the way."""
    counts = try_all((seed, scenario(seed)) for seed in range(first, first + AT_ONCE))
    assert counts["seeds"] == AT_ONCE
    assert counts["finished"] > AT_ONCE / 3


@pytest.mark.parametrize(
    ("boxes", "step"),
    [
        (("pass",), Step(0.01, 0, 2)),
        (("firewall", "shift"), Step(0.01, 0, 3)),
        (("firewall", "shift", "firewall"), Step(0.01, 1, 3)),
        (("firewall",), Step(0.01, 0, 1, ("firewall",))),
        (("firewall",), Step(0.01, 1, 2, ("shift", "firewall"))),
        (("firewall",), Step(0.01, 0, 2, ("firewall",))),
        (("proxy",), Step(0.01, 0, 2)),
        (("proxy",), Step(0.01, 0, 2, ("firewall",))),
        (("firewall", "proxy", "firewall"), Step(0.01, 1, 3, ("firewall",))),
    ],
)
def test_calm_without_a_single_retransmission(boxes: tuple[str, ...], step: Step) -> None:
    """Nothing is lost: nothing is sent again, refused by PAWS, or invalid to a firewall."""
    for seed in range(10):
        calm = Scenario(
            boxes,
            (step,),
            sizes=(12000, 12000),
            options=ROOMY,
            pause=0.006,
            near_wrap=seed % 2 == 0,
        )
        world = World(seed, calm).run()
        assert world.outcomes == [LeftState.FINISHED], world.story()
        for app in world.apps:
            assert app.endpoint.retransmitted == app.endpoint.paws_drops == 0, world.story()
        for node in world.everyone:
            assert not isinstance(node.box, Firewall) or not node.box.invalid, world.story()


def test_same_seed_same_run() -> None:
    one, other = (World(7, scenario(7, "chain")).run() for _ in range(2))
    assert one.story() == other.story()
    assert one.clock.steps == other.clock.steps


def test_a_proxy_delivers_what_it_held_long_after_the_other_direction_went_on() -> None:
    """Its ACKs are then from before the window of a host that has sent much since."""
    small = Options(buffer=1000)
    for seed in range(10):
        deaf = Scenario(
            ("proxy",),
            (Step(0.05, 0, 2),),
            sizes=(30000, 30000),
            options=(small, small),
            pause=0.002,
            near_wrap=seed % 2 == 0,
            stalled=(0.4, 0.0) if seed % 4 < 2 else (0.0, 0.4),
        )
        assert World(seed, deaf).run().outcomes == [LeftState.FINISHED]
