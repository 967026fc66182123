"""Tries seeds of the simulations: `python -m tests.reconfigure.explore --help`.

Without `--seeds` until it is stopped. A seed that fails is made as small as it can be and printed
as a script for a test; it replays exactly with `--from SEED --seeds 1` and the same other options.
"""

from __future__ import annotations

import argparse
import gc
import itertools
import sys
import time
from collections import Counter
from collections.abc import Iterable

from tests.reconfigure.agents.stories import KINDS as AGENT_KINDS
from tests.reconfigure.agents.stories import MOVES, move, story
from tests.reconfigure.agents.world import World as AgentWorld
from tests.reconfigure.compiled import run_compiled
from tests.reconfigure.shrink import Tale, shrink
from tests.reconfigure.simulation.boxes import Firewall
from tests.reconfigure.simulation.complaint import ComplaintError
from tests.reconfigure.simulation.scenarios import KINDS, scenario
from tests.reconfigure.simulation.world import Scenario, World

TELL = 1000
"""Seeds between two lines of progress."""


def main() -> int:
    """Explores; the exit status says whether a seed failed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, help="how many; without it, until it is stopped")
    parser.add_argument("--from", type=int, default=0, dest="first", help="the first seed")
    parser.add_argument("--kind", choices=sorted({*KINDS, *AGENT_KINDS, *MOVES}))
    parser.add_argument("--agents", action="store_true", help="with real agents and frames")
    parser.add_argument("--moves", action="store_true", help="likewise, and state moves")
    parser.add_argument(
        "--calm", action="store_true", help="nothing is lost, repeated or reordered"
    )
    parser.add_argument("--failures", type=int, default=3, help="stop after so many")
    parser.add_argument(
        "--compiled", action="store_true", help="with native code, twice as fast (needs gcc)"
    )
    wanted = parser.parse_args()
    if wanted.compiled:
        return run_compiled(__spec__.name, [a for a in sys.argv[1:] if a != "--compiled"])
    failed = 0
    counts: Counter[str] = Counter()
    seeds = itertools.islice(itertools.count(wanted.first), wanted.seeds)
    began = time.monotonic(), time.process_time()
    gc.set_threshold(50_000)
    try:
        for seed in seeds:
            tale: Tale
            if wanted.moves:
                tale = move(seed, wanted.kind)
            elif wanted.agents:
                tale = story(seed, wanted.kind)
            else:
                tale = scenario(seed, wanted.kind, calm=wanted.calm or None)
            try:
                run(seed, tale, counts)
            except ComplaintError as complaint:
                print(complaint, explained(seed, tale), sep="\n", flush=True)
                failed += 1
                if failed >= wanted.failures:
                    break
            if counts["seeds"] % TELL == 0:
                _tell(counts, began)
    except KeyboardInterrupt:
        pass
    _tell(counts, began)
    return 1 if failed else 0


def run(seed: int, tale: Tale, counts: Counter[str]) -> None:
    """One seed; raises ComplaintError."""
    counts["seeds"] += 1
    if not isinstance(tale, Scenario):
        agents = AgentWorld(seed, tale).run()
        counts.update(state for state, _ in agents.outcomes)
        return
    world = World(seed, tale).run()
    counts.update(outcome.value for outcome in world.outcomes)
    for app in world.apps:
        counts["retransmitted"] += app.endpoint.retransmitted
        counts["paws"] += app.endpoint.paws_drops
    for node in world.everyone:
        if isinstance(node.box, Firewall):
            counts["invalid"] += node.box.invalid


def explained(seed: int, tale: Tale) -> str:
    """The smallest script that fails in the same way; empty if the seed does not fail again."""
    try:
        return shrink(seed, tale).script
    except ValueError as error:
        return str(error)


def try_all(tales: Iterable[tuple[int, Tale]]) -> Counter[str]:
    """All of them, for a test; a failure says the smallest script. Raises ComplaintError."""
    counts: Counter[str] = Counter()
    for seed, tale in tales:
        try:
            run(seed, tale, counts)
        except ComplaintError as complaint:
            raise ComplaintError(f"{complaint}\n{explained(seed, tale)}") from complaint
    return counts


def _tell(counts: Counter[str], began: tuple[float, float]) -> None:
    wall, cpu = time.monotonic() - began[0], time.process_time() - began[1]
    rates = (counts["seeds"] / max(1e-9, seconds) for seconds in (wall, cpu))
    print("{:.0f} seeds/s, {:.0f} per CPU second".format(*rates), dict(counts), flush=True)


if __name__ == "__main__":
    sys.exit(main())
