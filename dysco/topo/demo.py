"""The demo: HTTP of an unmodified client through firewall, NAT and counter, on P4 devices; and a
download whose chain changes on its way.

`python -m dysco.topo.demo --target softnic|bmv2` builds the network in a cage, sends the traffic,
and exits with 0 only if everything that proof.py claims held.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import NoReturn

import click
from rich.console import Console

from dysco.topo import boxes, cage, proof, traffic
from dysco.topo.boxes import Counters
from dysco.topo.capture import Capture, Frame, write_pcap
from dysco.topo.controller import Controller, group_key
from dysco.topo.devices import Target, start_devices
from dysco.topo.display import (
    Steps,
    Throughput,
    change_table,
    claims_table,
    problems_text,
    way_table,
)
from dysco.topo.needs import missing
from dysco.topo.path import Seen, taps
from dysco.topo.process import ProcessError
from dysco.topo.proof import Claim, Recording
from dysco.topo.proxy import TransparentProxy
from dysco.topo.second_act import PORT as LIVE_PORT
from dysco.topo.second_act import SPARES, Change, SecondAct
from dysco.topo.spec import demo_spec, with_spares
from dysco.topo.topology import Topology
from dysco.topo.waiting import DeadlineError

MATCH = "tcp and dst port 80"
BOXES = ("firewall", "nat", "counter")
CHAIN = ("client", *BOXES, "server")
DIRECT_PORT = 8080

EXIT_FAILED = 1
EXIT_MISSING = 2
EXIT_INTERRUPTED = 130

_SIZE = 3_000_000
_LOAD_CONNECTIONS = 16
_END_SECONDS = 25.0
_SETTINGS = {"closing_linger": 3.0}
"""Sessions that ended are given back sooner than by default: the demo waits to see it."""


@dataclass
class Demo:
    """The running network, and what has been found in it so far."""

    topology: Topology
    controller: Controller
    sha256: str
    directory: Path
    captures: Path | None
    claims: list[Claim] = field(default_factory=list)
    way: list[Seen] = field(default_factory=list)
    change: Change | None = None

    def url(self, version: int, port: int, path: str = "file") -> str:
        """Of something at the server."""
        server = self.topology.spec.host("server")
        host = str(server.ipv4) if version == 4 else f"[{server.ipv6}]"
        return f"http://{host}:{port}/{path}"

    def counters(self) -> dict[str, Counters]:
        """The middleboxes' own, now."""
        return {box: boxes.counters(self.topology.hosts[box]) for box in BOXES}

    def fetch(self, name: str, client: str, version: int, port: int) -> None:
        """Download the file with curl."""
        got = traffic.download(
            self.topology.hosts[client], self.url(version, port), self.directory / "got"
        )
        self.claims.append(proof.bytes_arrived(name, got, self.sha256, _SIZE))

    def keep(self, name: str, frames: Sequence[Frame]) -> None:
        """Write what was captured, if that is wanted."""
        if self.captures is not None:
            write_pcap(frames, self.captures / name)


def through_chain(demo: Demo, version: int) -> None:
    """One download through the chain."""
    before = demo.counters()
    with Capture(taps(demo.topology, CHAIN)) as capture:
        demo.fetch(f"chain, IPv{version}", "client", version, 80)
    demo.keep(f"chain-ipv{version}", capture.frames)
    chains = demo.controller.ctl("chain", "show", "--limit", "1")
    hosts = demo.topology.hosts
    recording = Recording(
        demo.topology.spec,
        CHAIN,
        version,
        capture.frames,
        capture.missed,
        proof.grown(before, demo.counters()),
        {box: boxes.connections(hosts[box]) for box in BOXES if box != "counter"},
        chains[0] if chains else None,
    )
    demo.claims += proof.chain_claims(recording)
    demo.way = demo.way or recording.way


def under_load(demo: Demo, seconds: int) -> None:
    """Many requests at once."""
    before = demo.counters()
    load = traffic.load(
        demo.topology.hosts["client"],
        demo.url(4, 80, "who"),
        seconds=seconds,
        connections=_LOAD_CONNECTIONS,
    )
    tracked = int(demo.controller.ctl("session", "list", "--limit", "1")["total"])
    counted = proof.grown(before, demo.counters())
    demo.claims.append(proof.load_passed(load, counted, tracked))


def directly(demo: Demo) -> None:
    """What no policy is for: another port, and a host without an agent."""
    before = demo.counters()
    spec = demo.topology.spec
    for what, source, port in (
        (f"port {DIRECT_PORT}, without a policy: direct, untouched", "client", DIRECT_PORT),
        ("the host without an agent: direct, untouched", "bystander", 80),
    ):
        hosts = [name for name in (source, "server") if spec.host(name).device is not None]
        with Capture(taps(demo.topology, hosts)) as capture:
            for version in (4, 6):
                name = f"{source}, port {port}, IPv{version}"
                demo.fetch(name, source, version, port)
        demo.keep(f"direct-{source}-{port}", capture.frames)
        ends = spec.host(source), spec.host("server")
        demo.claims.append(proof.untouched(what, capture.frames, capture.missed, *ends))
    demo.claims.append(proof.not_counted(before, demo.counters()))


def to_the_end(demo: Demo) -> None:
    """Sessions are closed; what they held is given back."""
    is_empty = demo.controller.wait_no_sessions(_END_SECONDS)
    demo.claims.append(proof.ended(is_empty, demo.controller.entries()))


def play(target: Target, seconds: int, captures: Path | None, console: Console) -> Demo:
    """Build the network, send the traffic, collect the claims. Raises ProcessError."""
    steps = Steps(console)
    with contextlib.ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="dysco-demo-")))
        with steps.step("hosts, middleboxes and a router in namespaces"):
            topology = stack.enter_context(
                Topology(with_spares(demo_spec(), SPARES), directory, offloads=target.offloads)
            )
            boxes.set_up_boxes(topology, (80, DIRECT_PORT))
            proxy = TransparentProxy(topology.hosts["proxy"], directory / "proxy", (LIVE_PORT,))
            ports = (80, LIVE_PORT, DIRECT_PORT)
            web = traffic.WebServer(topology.hosts["server"], directory / "nginx", ports)
            sha256 = web.publish("file", os.urandom(_SIZE))
        with steps.step(f"P4 devices: {len(topology.spec.devices)} x {target.value}"):
            devices = start_devices(topology, target)
        with steps.step("dyscod: the P4 program, tables, agents"):
            controller = Controller(topology, devices, group_key(), settings=_SETTINGS)
            controller.start()
        with steps.step(f"dysco-ctl policy add: '{MATCH}' > {', '.join(BOXES)}"):
            controller.add_policy(MATCH, BOXES)
            controller.add_policy(f"tcp and dst port {LIVE_PORT}", ("proxy",))
        demo = Demo(topology, controller, sha256, directory, captures)
        for version in (4, 6):
            with steps.step(f"curl through the chain, IPv{version}"):
                through_chain(demo, version)
        with steps.step(f"wrk through the chain, {_LOAD_CONNECTIONS} connections, {seconds} s"):
            under_load(demo, seconds)
        with steps.step(f"curl without a policy (port {DIRECT_PORT}), and without an agent"):
            directly(demo)
        act = SecondAct(topology, controller, proxy, target)
        with steps.step("curl through HAProxy, which leaves, then a scrubber comes") as say:
            sha256 = web.publish("long", os.urandom(act.size))
            demo.change, claims = act.play(
                directory / "got-long", sha256, Throughput(console, say, act.mbit * 1.2)
            )
            demo.claims += claims
        with steps.step("until ended sessions have left the devices"):
            to_the_end(demo)
    return demo


def _report(demo: Demo, console: Console) -> bool:
    console.print()
    console.print(way_table(demo.way))
    console.print()
    if demo.change is not None:
        console.print(change_table(demo.change))
        console.print()
    claims = proof.merged(demo.claims)
    console.print(claims_table(claims))
    failed = [claim for claim in claims if not claim.held]
    if failed:
        console.print("\n[bold red]What did not hold[/]")
        console.print(problems_text(failed), markup=False, highlight=False)
    return not failed


def _interrupt(_number: int, _frame: FrameType | None) -> NoReturn:
    # Once is enough: a second signal must not disturb the cleaning up.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    raise KeyboardInterrupt


@click.command()
@click.option(
    "--target",
    type=click.Choice([Target.SOFTNIC.value, Target.BMV2.value]),
    default=Target.SOFTNIC.value,
    show_default=True,
    help="What runs the P4 program.",
)
@click.option("--seconds", type=click.IntRange(1, 60), default=3, show_default=True, help="Of wrk.")
@click.option(
    "--captures",
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder for what was captured, as pcap files.",
)
def main(*, target: str, seconds: int, captures: Path | None) -> None:
    """Send HTTP of an unmodified client through firewall, NAT and counter, and prove it.

    \b
    Exit codes: 0 all of it held, 1 something did not, 2 this machine lacks something,
    130 interrupted. Nothing is left behind.
    """
    chosen = Target(target)
    if not cage.inside():
        lacking = missing(chosen)
        for item in lacking:
            click.echo(f"missing: {item}", err=True)
        if lacking:
            sys.exit(EXIT_MISSING)
        cage.enter()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _interrupt)
    console = Console(highlight=False)
    try:
        demo = play(chosen, seconds, captures, console)
        held = _report(demo, console)
    except (ProcessError, DeadlineError) as error:
        click.echo(f"\nthe demo can't go on: {error}", err=True)
        sys.exit(EXIT_FAILED)
    except KeyboardInterrupt:
        click.echo("\ninterrupted; nothing is left behind", err=True)
        sys.exit(EXIT_INTERRUPTED)
    if not held:
        sys.exit(EXIT_FAILED)
    console.print("\n[bold green]All of it held.[/]")


if __name__ == "__main__":
    main()
