"""Sessions whose chains change while they carry data: the network, the wish, and its times.

    client ── (counter) ── (second) ── (proxy) ── server     every host behind a softnic of its own

Which boxes a session takes at first, its port says.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dysco.bench.chain import Chain
from dysco.topo.boxes import set_up_boxes
from dysco.topo.controller import Controller, group_key
from dysco.topo.devices import Target, start_devices
from dysco.topo.process import ProcessError
from dysco.topo.proxy import TransparentProxy
from dysco.topo.spec import chain_spec
from dysco.topo.topology import Topology
from dysco.topo.waiting import DeadlineError, wait_until

TRACKED_PORT, COUNTED_PORT, PROXIED_PORT = 80, 81, 82
"""Servers' ports: no box yet, the counter, the proxy."""

_CHAINS: dict[int, tuple[str, ...]] = {
    TRACKED_PORT: (),
    COUNTED_PORT: ("counter",),
    PROXIED_PORT: ("proxy",),
}
_BOXES = (("counter", "counter"), ("second", "counter"), ("proxy", "proxy"))
_CONGESTION_CONTROL = "ipv4/tcp_congestion_control"


@dataclass(frozen=True, slots=True)
class Times:
    """Of one reconfiguration, in seconds since 1970."""

    started: float
    locked: float
    switched: float
    finished: float

    def as_ms(self) -> dict[str, float]:
        """Milliseconds from the trigger."""
        steps = {"locked": self.locked, "switched": self.switched, "finished": self.finished}
        return {name: (at - self.started) * 1000 for name, at in steps.items()}


@dataclass(frozen=True, slots=True)
class Outcome:
    """Of reconfigurations that are over."""

    times: dict[str, Times]
    """Of the sessions that were changed."""
    failed: dict[str, str]
    """Why the others are still on their old path."""


@dataclass(frozen=True, slots=True)
class Live:
    """The running network."""

    chain: Chain
    proxy: TransparentProxy

    def sessions(self, match: str, count: int) -> list[str]:
        """Ids of the sessions that match, in pcap-filter words, once so many reach the server.

        Behind a proxy they do so later than their clients think. Raises ProcessError.
        """
        found: list[str] = []

        def there() -> bool:
            with self.chain.controller.api() as client:
                known = client.get("v1", "sessions", match=match, limit=1000)["sessions"]
            found[:] = [str(one["id"]) for one in known if one["hosts"][-1] == "server"]
            return len(found) == count

        try:
            wait_until(there, f"{count} sessions at the server", 20.0, every=0.5)
        except DeadlineError as error:
            raise ProcessError(f"{error}: there are {len(found)}") from error
        return found

    def change(self, sessions: list[str], seconds: float, **wish: Any) -> Outcome:
        """Change the chains of sessions, all at once. Raises ProcessError if they are never over.

        `wish`: delete=[BOX], insert=BOX and after=HOST, or replace=BOX and by=BOX.
        """
        with self.chain.controller.api() as client:
            asked = client.post("v1", "reconfigurations", body={"sessions": sessions, **wish})
        refused = [answer["detail"] for answer in asked if not answer["accepted"]]
        if refused:
            raise ProcessError(f"{len(refused)} of {len(asked)} were refused: {refused[0]}")
        since = {answer["session"]: answer["at"] for answer in asked}
        ended: dict[str, dict[str, Any]] = {}

        def over() -> bool:
            with self.chain.controller.api() as client:
                known = client.get("v1", "reconfigurations")
            for one in known:
                if one["over"] and one["started"] >= since.get(one["session"], float("inf")):
                    ended[one["session"]] = one
            return len(ended) == len(since)

        # Asking takes the daemon's time, which is what is measured: not before it may be over.
        time.sleep(min(0.3, seconds / 10))
        try:
            wait_until(over, "all reconfigurations to be over", seconds, every=0.25)
        except DeadlineError as error:
            missing = len(since) - len(ended)
            raise ProcessError(f"{missing} of {len(since)} didn't end: {error}") from error
        times, failed = {}, {}
        for session, one in ended.items():
            if one["state"] == "finished":
                steps = one["started"], one["locked"], one["switched"], one["finished"]
                times[session] = Times(*steps)
            else:
                failed[session] = str(one["why"])
        return Outcome(times, failed)


@contextmanager
def live(directory: Path) -> Iterator[Live]:
    """Build it; gone with the `with`. Raises ProcessError."""
    target = Target.SOFTNIC
    with Topology(chain_spec(_BOXES), directory, offloads=target.offloads) as topology:
        for host in topology.hosts.values():
            # BBR, a machine's default perhaps, slows down by itself now and then.
            host.sysctl({_CONGESTION_CONTROL: "reno"})
        devices = start_devices(topology, target)
        set_up_boxes(topology, tuple(_CHAINS))
        proxy = TransparentProxy(topology.hosts["proxy"], directory / "proxy", (PROXIED_PORT,))
        controller = Controller(topology, devices, group_key())
        controller.start()
        for port, boxes in _CHAINS.items():
            controller.add_policy(f"tcp and dst port {port}", boxes)
        yield Live(Chain(topology, devices, controller), proxy)
