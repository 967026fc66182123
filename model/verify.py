"""Checks the protocol exhaustively: `python -m model.verify [--quick] [--list] [NAME...]`.

Compiles a model with spin and gcc in a temporary folder for each configuration and each seeded bug,
and searches all its states within limits of memory and time. A configuration must hold; a bug must
be found. With all of them, the steps that were taken must be those of `table.py`. The exit status
says whether all of that was so.
"""

from __future__ import annotations

import argparse
import re
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console
from rich.table import Table

from model.table import MODEL, MOVES, Step, promela, steps_of

HERE = Path(__file__).parent
MEMORY = 2000
"""Limit of one search, in MB."""
SECONDS = 600
DEPTH = 10_000
JOBS = 2

LOCKING, PATHS, MOVING = "locking", "paths", "moving"


@dataclass(frozen=True)
class Run:
    """One search."""

    name: str
    model: str
    defines: dict[str, int]
    covers: str
    """What of the protocol; of a bug, what is wrong."""
    quick: bool = False
    bug: str | None = None
    """The name of the seeded bug, which must be found."""
    base: str = ""
    """And the configuration that it is put into."""
    endless: bool = False
    """Look for runs that never end (Spin's non-progress cycles): there are none."""

    @property
    def faults(self) -> str:
        """How many faults of which kind are tried."""
        if self.model == LOCKING:
            d = self.defines
            given_up = "; given up" if d.get("GIVE_UP", 1) else ""
            ends = "; the session ends" if d.get("ENDS") else ""
            return f"{d['LOSSES']} lost, {d['REPEATS']} repeated, any order{given_up}{ends}"
        more = [text for name, text in _FAULTS.items() if self.defines.get(name)]
        if self.defines.get("CRASHES", 0) > 1:
            more[more.index(_FAULTS["CRASHES"])] = f"{self.defines['CRASHES']} crashes of agents"
        return "; ".join(["any loss, repetition, order; given up", *more])


_FAULTS = {
    "DEATHS": "1 new box dies",
    "REFUSES": "the new box refuses",
    "CRASHES": "1 crash of an agent",
    "LEASES": "1 lease ends",
    "RESETS": "a host resets",
    "FAILS": "the copy fails",
}


def _lock(name: str, covers: str, agents: int, *segments: tuple[int, int], **more: int) -> Run:
    quick, endless = bool(more.pop("quick", 0)), bool(more.pop("endless", 0))
    defines = {"N": agents, "R": len(segments), "LOSSES": 1, "REPEATS": 1} | more
    for number, (left, right) in enumerate(segments):
        defines |= {f"LEFT{number}": left, f"RIGHT{number}": right}
    return Run(f"locks: {name}", LOCKING, defines, covers, quick, endless=endless)


def _path(name: str, covers: str, sizes: tuple[int, int], **more: int) -> Run:
    quick, endless = bool(more.pop("quick", 0)), bool(more.pop("endless", 0))
    defines = {"BYTES0": sizes[0], "BYTES1": sizes[1]} | more
    return Run(f"paths: {name}", PATHS, defines, covers, quick, endless=endless)


def _move(name: str, covers: str, sizes: tuple[int, int], **more: int) -> Run:
    quick, endless = bool(more.pop("quick", 0)), bool(more.pop("endless", 0))
    defines = {"BYTES0": sizes[0], "BYTES1": sizes[1]} | more
    return Run(f"moves: {name}", MOVING, defines, covers, quick, endless=endless)


CONFIGURATIONS: tuple[Run, ...] = (
    _lock("no endless run", "every run ends, so that end states say all", 3, (0, 2), endless=1),
    _path("no endless run", "the same", (1, 0), CRASHES=1, LEASES=1, DEATHS=1, endless=1),
    _lock("one hop", "insert 1 or 2", 2, (0, 1), LOSSES=3, REPEATS=2),
    _lock("one box", "delete 1, replace 1, mobility", 3, (0, 2), LOSSES=3, REPEATS=2, quick=1),
    _lock("two boxes", "delete 2, replace 2", 4, (0, 3), LOSSES=2, REPEATS=2),
    _lock("beside", "insert beside an existing box", 4, (1, 2), LOSSES=3, REPEATS=2),
    _lock("overlapping", "two that compete, neither inside the other", 4, (0, 2), (1, 3)),
    _lock("patient", "two that compete, and neither gives up", 4, (0, 2), (1, 3), GIVE_UP=0),
    _lock("patient, nested", "the same", 4, (0, 3), (1, 2), GIVE_UP=0),
    _lock("nested", "two that compete, one inside the other", 4, (0, 3), (1, 2)),
    _lock("same right end", "two that compete for one right anchor", 4, (0, 3), (1, 3)),
    _lock("disjoint", "two at once that share an anchor only", 5, (0, 2), (2, 4)),
    _lock("three", "three that compete", 5, (0, 2), (1, 3), (2, 4), LOSSES=0, REPEATS=0),
    _lock(
        "same anchors",
        "two in a row; self-removal, asked for twice",
        3,
        (0, 2),
        (0, 2),
        LOSSES=2,
    ),
    _lock("the session ends", "RST while locks are held", 4, (0, 3), ENDS=1, quick=1),
    _lock("the session ends, two", "the same", 4, (0, 2), (1, 3), ENDS=1, LOSSES=0, REPEATS=0),
    _path(
        "transparent",
        "insert, delete, replace of any number of boxes that pass bytes on; mobility",
        (2, 1),
        DEATHS=1,
        CRASHES=1,
    ),
    _path("transparent, leases", "the same", (2, 1), LEASES=1, CRASHES=1),
    _path("transparent, small", "the same", (1, 1), LEASES=1, CRASHES=1, REFUSES=1, quick=1),
    _path("reset", "RST at any moment", (1, 1), RESETS=1, LEASES=1, CRASHES=1, DEATHS=1),
    _path("long", "three bytes one way, only a FIN the other", (3, 0), DEATHS=1, CRASHES=1),
    _path("wrap", "sequence numbers that wrap", (2, 1), START=14, REFUSES=1),
    _path(
        "box as host", "insert beside an existing box: FIN before data", (2, 1), BOX=1, CRASHES=1
    ),
    _path("proxy", "delete or replace a proxy", (1, 1), PROXY=1, CRASHES=1),
    _path("proxy, one way", "the same", (2, 0), PROXY=1, CRASHES=1, DEATHS=1),
    _path("in a row", "two, with everything of the first late", (1, 1), TURNS=2, LEASES=1),
    _path("in a row, faults", "the same", (1, 0), TURNS=2, CRASHES=1, DEATHS=1),
    _path("in a row, wrap", "the same", (2, 0), TURNS=2, START=14),
    _path("in a row, proxy", "a proxy deleted, then a box inserted", (1, 0), TURNS=2, PROXY=1),
    _move("no endless run", "every run ends", (1, 0), CRASHES=1, endless=1),
    _move("box", "replace with state", (1, 1), CRASHES=1, FAILS=1),
    _move("box, two crashes", "the same", (1, 1), CRASHES=2),
    _move("box, the session ends", "RST at any moment", (1, 1), CRASHES=1, RESETS=1),
    _move("end", "mobility of an end with its socket", (2, 1), CRASHES=1, FAILS=1, END=1, quick=1),
    _move("end, two crashes", "the same", (1, 1), CRASHES=2, END=1),
    _move("end, the session ends", "RST at any moment", (1, 1), CRASHES=1, RESETS=1, END=1),
)


def _bug(name: str, base: str, wrong: str, *, quick: bool = False, **more: int) -> Run:
    run = next(c for c in CONFIGURATIONS if c.name == base)
    defines = run.defines | more | {f"BUG_{name}": 1}
    return Run(f"bug {name}", run.model, defines, wrong, quick, name, base)


SMALL = "paths: transparent, small"
BOX = "moves: box"
BUGS: tuple[Run, ...] = (
    _bug("UNLOCK", "locks: one box", "a lock is not released", quick=True),
    _bug("LATE_LOCK", "locks: overlapping", "a late request locks again"),
    _bug("FORGET", "locks: one box", "a hop does not remember what is over"),
    _bug("ROUTE", "locks: overlapping", "a late request turns the way of its cancel"),
    _bug("NACK_ENDS", "locks: overlapping", "a refused request is not cancelled at the hops"),
    _bug("CUTOFF", SMALL, "the cutoff is one too low", quick=True),
    _bug("WRAP", "paths: wrap", "sequence numbers are compared as plain numbers"),
    _bug("ACK_PATH", SMALL, "ACKs of new data go onto the old path"),
    _bug("STALE", SMALL, "a stale ACK of the new path is passed on as it is"),
    _bug("EARLY", SMALL, "new data are taken before their announcement", quick=True),
    _bug("TOKEN", "paths: in a row", "an announcement of another reconfiguration is taken"),
    _bug("DRAIN", "paths: proxy", "drained when told so by ACKs, which a proxy gives early"),
    _bug("RELEASE", SMALL, "released before the other side is drained"),
    _bug("FIN", SMALL, "the cutoff covers a FIN"),
    _bug("REVOKE", SMALL, "revoked after the latch"),
    _bug("BACK_ALONE", SMALL, "the left anchor goes back without asking"),
    _bug("FLOOR", SMALL, "late bytes of the old path go onto the new one"),
    _bug("RESTART", SMALL, "a restart forgets what the journal says"),
    _bug("LATE_REQUEST", SMALL, "a late request begins again at the right anchor"),
    _bug("SILENT", SMALL, "a right anchor that gave up does not say so"),
    _bug("COPY_OPEN", BOX, "the copy is made while packets still pass", quick=True),
    _bug("DECIDE", BOX, "decided when the copy is sent, and not when it is taken in"),
    _bug("DROPS_IT", BOX, "the new host drops a copy that may be in use"),
    _bug("RECOVER_BACK", BOX, "a restart goes back when it is decided"),
    _bug("OPENS", BOX, "a restart of the old host lets packets pass"),
    _bug("SWITCH_EARLY", BOX, "the right anchor switches before it is decided"),
    _bug("KEEPS_HELD", BOX, "what was held stays held when the move is off"),
    _bug("THAW", "moves: end", "the new end speaks before it is decided"),
)


@dataclass
class Result:
    """What a search said."""

    run: Run
    states: int = 0
    memory: int = 0
    """MB."""
    seconds: float = 0.0
    problem: str = ""
    """What is wrong with the model; empty: all of its states are good."""
    broken: str = ""
    """Why the search itself says nothing: not complete, not compiled."""
    steps: frozenset[Step] = frozenset()
    trail: list[str] = field(default_factory=list)

    @property
    def is_good(self) -> bool:
        """True if it is as it must be."""
        return not self.broken and bool(self.problem) == (self.run.bug is not None)


def _limited() -> None:
    size = (MEMORY + 200) << 20
    resource.setrlimit(resource.RLIMIT_AS, (size, size))


def _call(command: Sequence[str], folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


def search(run: Run, *, with_trail: bool = True) -> Result:
    """Compile and search one."""
    with tempfile.TemporaryDirectory(prefix="dysco-model-") as name:
        return _search(run, Path(name), with_trail=with_trail)


def _search(run: Run, folder: Path, *, with_trail: bool) -> Result:
    result = Result(run)
    source = f"{run.model}.pml"
    shutil.copy(HERE / source, folder / source)
    (folder / "states.pml").write_text(promela(), encoding="ascii")
    defines = [f"-D{name}={value}" for name, value in run.defines.items()]
    made = _call(["spin", "-a", "-DCOVER", *defines, source], folder)
    if made.returncode or not (folder / "pan.c").exists():
        result.broken = f"spin: {made.stdout}{made.stderr}"
        return result
    reduce = ["-DCOLLAPSE"] if run.model == LOCKING else ["-DNOREDUCE"]
    options = [
        "-O1" if run.quick or run.bug else "-O2",
        "-w",
        "-DNP" if run.endless else "-DSAFETY",
        f"-DMEMLIM={MEMORY}",
        *reduce,
    ]
    made = _call(["gcc", *options, "-o", "pan", "pan.c"], folder)
    if made.returncode:
        result.broken = f"gcc: {made.stderr[:2000]}"
        return result
    began = time.monotonic()
    try:
        done = subprocess.run(
            [
                "./pan",
                f"-m{DEPTH}",
                "-w20" if run.quick else "-w24",
                *(["-l"] if run.endless else []),
            ],
            cwd=folder,
            capture_output=True,
            text=True,
            timeout=SECONDS,
            check=False,
            preexec_fn=_limited,
        )
    except subprocess.TimeoutExpired:
        result.broken = f"not complete after {SECONDS} s"
        return result
    result.seconds = time.monotonic() - began
    _read(result, done.stdout)
    if result.problem and with_trail and run.bug is None:
        # Spin can't replay the C code that writes the steps down: search again without it.
        for command in (
            ["spin", "-a", *defines, source],
            ["gcc", *options, "-o", "pan", "pan.c"],
            ["./pan", f"-m{DEPTH}", "-w24"],
        ):
            _call(command, folder)
        result.trail = _call(["spin", "-t", "-p", *defines, source], folder).stdout.splitlines()
    return result


def _read(result: Result, output: str) -> None:
    states = re.search(r"([\d.e+]+) states, stored", output)
    memory = re.search(r"([\d.]+)\s+total actual memory usage", output)
    errors = re.search(r"errors: (\d+)", output)
    result.states = int(float(states[1])) if states else 0
    result.memory = round(float(memory[1])) if memory else 0
    result.steps = steps_of(output)
    said = re.search(r"^pan:1: (.*)$", output, re.MULTILINE)
    if said:
        result.problem = said[1]
    elif (
        "Search not completed" in output
        or "depth too small" in output
        or errors is None
        or errors[1] != "0"
    ):
        result.broken = f"not complete: {output[:300]}"


def wanted(names: Iterable[str], *, quick: bool) -> list[Run]:
    """The runs of these names; of none: all. Raises KeyError."""
    known = {run.name: run for run in (*CONFIGURATIONS, *BUGS)}
    chosen = [known[name] for name in names] or list(known.values())
    return [run for run in chosen if run.quick or not quick]


def disagreement(results: Iterable[Result]) -> list[str]:
    """Where the model's steps and the table differ."""
    steps: set[Step] = set()
    for result in results:
        if result.run.bug is None:
            steps |= result.steps
    return [f"not in the table: {step}" for step in sorted(steps - MODEL - MOVES)] + [
        f"never taken by the model: {step}" for step in sorted((MODEL | MOVES) - steps)
    ]


def table_of(results: Iterable[Result]) -> Table:
    """For people."""
    table = Table("run", "what", "states", "MB", "s", "result", title="The model, all states")
    for r in results:
        verdict = r.broken or r.problem or "holds"
        colour = "green" if r.is_good else "red"
        figures = (f"{r.states:,}", f"{r.memory}", f"{r.seconds:.1f}")
        found = "found" if r.run.bug and r.problem else verdict
        table.add_row(r.run.name, r.run.covers, *figures, f"[{colour}]{found[:60]}[/]")
    return table


def configurations_table() -> str:
    """As docs/verification.md has it."""
    lines = ["| run | what | faults |", "|---|---|---|"]
    return "\n".join([*lines, *(f"| {r.name} | {r.covers} | {r.faults} |" for r in CONFIGURATIONS)])


def bugs_table() -> str:
    """As docs/verification.md has it."""
    lines = ["| bug | what is wrong | tried on |", "|---|---|---|"]
    return "\n".join([*lines, *(f"| `{r.bug}` | {r.covers} | {r.base} |" for r in BUGS)])


def measured(results: Iterable[Result]) -> str:
    """A table of what was measured."""
    lines = ["| run | states | MB | s |", "|---|---:|---:|---:|"]
    lines += [f"| {r.run.name} | {r.states:,} | {r.memory} | {r.seconds:.0f} |" for r in results]
    return "\n".join(lines)


def main() -> int:
    """Runs what is asked for; the exit status says whether all was good."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME")
    parser.add_argument("--quick", action="store_true", help="only the small ones")
    parser.add_argument("--list", action="store_true", help="what there is, as tables")
    parser.add_argument("--markdown", action="store_true", help="what was measured, as a table")
    parser.add_argument("--jobs", type=int, default=JOBS, help="searches at a time")
    asked = parser.parse_args()
    console = Console()
    if asked.list:
        print(configurations_table(), bugs_table(), sep="\n\n")
        return 0
    if shutil.which("spin") is None:
        console.print("spin is missing: apt-get install spin")
        return 2
    try:
        runs = wanted(asked.names, quick=asked.quick)
    except KeyError as error:
        parser.error(f"no run is named {error}; --list tells what there is")
    results: dict[str, Result] = {}
    with ThreadPoolExecutor(asked.jobs) as pool, console.status("searching") as status:
        for future in as_completed([pool.submit(search, run) for run in runs]):
            result = future.result()
            results[result.run.name] = result
            status.update(f"{len(results)} of {len(runs)}; last: {result.run.name}")
            if not console.is_terminal:
                print(measured([result]).splitlines()[-1], flush=True)
            if not result.is_good:
                console.print(f"[red]{result.run.name}[/]: {result.broken or result.problem}")
                console.print("\n".join(result.trail[-60:]), markup=False)
    in_order = [results[run.name] for run in runs]
    console.print(table_of(in_order))
    if asked.markdown:
        print(measured(in_order))
    good = all(result.is_good for result in in_order)
    if not asked.names and not asked.quick:
        differences = disagreement(in_order)
        console.print("\n".join(differences) or "its steps are those of the table", markup=False)
        good = good and not differences
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
