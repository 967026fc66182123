"""Tries seeds of the simulations: `python -m tests.reconfigure.explore --help`.

Without `--seeds` until it is stopped. A seed that fails is printed with what happened, and replays
with `--from SEED --seeds 1` and the same other options.
"""

from __future__ import annotations

import argparse
import itertools
import sys
import time
from collections import Counter

from tests.reconfigure.agents.stories import KINDS as AGENT_KINDS
from tests.reconfigure.agents.stories import story
from tests.reconfigure.agents.world import World as AgentWorld
from tests.reconfigure.simulation.boxes import ComplaintError, Firewall
from tests.reconfigure.simulation.scenarios import KINDS, scenario
from tests.reconfigure.simulation.world import World


def main() -> int:
    """Explores; the exit status says whether a seed failed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, help="how many; without it, until it is stopped")
    parser.add_argument("--from", type=int, default=0, dest="first", help="the first seed")
    parser.add_argument("--kind", choices=sorted({*KINDS, *AGENT_KINDS}))
    parser.add_argument("--agents", action="store_true", help="with real agents and frames")
    parser.add_argument(
        "--calm", action="store_true", help="nothing is lost, repeated or reordered"
    )
    parser.add_argument("--failures", type=int, default=3, help="stop after so many")
    wanted = parser.parse_args()
    seeds = itertools.islice(itertools.count(wanted.first), wanted.seeds)
    began, failed = time.monotonic(), 0
    counts: Counter[str] = Counter()
    for seed in seeds:
        try:
            if wanted.agents:
                _count_agents(counts, AgentWorld(seed, story(seed, wanted.kind)).run())
                continue
            world = World(seed, scenario(seed, wanted.kind, calm=wanted.calm or None)).run()
        except ComplaintError as complaint:
            print(complaint, flush=True)
            failed += 1
            if failed >= wanted.failures:
                break
            continue
        except KeyboardInterrupt:
            break
        _count(counts, world)
        if counts["seeds"] % 1000 == 0:
            _tell(counts, began)
    _tell(counts, began)
    return 1 if failed else 0


def _count(counts: Counter[str], world: World) -> None:
    counts["seeds"] += 1
    for outcome in world.outcomes:
        counts[outcome.value] += 1
    for app in world.apps:
        counts["retransmitted"] += app.endpoint.retransmitted
        counts["paws"] += app.endpoint.paws_drops
    for node in world.everyone:
        if isinstance(node.box, Firewall):
            counts["invalid"] += node.box.invalid


def _count_agents(counts: Counter[str], world: AgentWorld) -> None:
    counts["seeds"] += 1
    counts.update(state for state, _ in world.outcomes)
    if counts["seeds"] % 1000 == 0:
        print(dict(counts), flush=True)


def _tell(counts: Counter[str], began: float) -> None:
    rate = counts["seeds"] / max(1e-9, time.monotonic() - began)
    print(f"{rate:.0f} seeds/s", dict(counts), flush=True)


if __name__ == "__main__":
    sys.exit(main())
