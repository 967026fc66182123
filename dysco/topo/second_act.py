"""The demo's second act: a download goes on while HAProxy leaves its chain, and a scrubber comes.

client ── HAProxy ── server         two TCP connections
client ───────────── server         one, after --delete proxy
client ── scrubber ─ server         after --insert scrubber --after client
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from dysco.topo.controller import Controller
from dysco.topo.devices import Target
from dysco.topo.namespace import Namespace
from dysco.topo.proof import Claim, bytes_arrived, chain_changed
from dysco.topo.proxy import TransparentProxy
from dysco.topo.spec import HOST_IFNAME
from dysco.topo.topology import Topology
from dysco.topo.traffic import Download, download
from dysco.topo.waiting import wait_until

PORT = 81
SPARES = (("proxy", "proxy"), ("scrubber", "scrubber"))
"""The middleboxes of this act."""
CHAINS = (
    ("client", "proxy", "server"),
    ("client", "server"),
    ("client", "scrubber", "server"),
)
SHOWN_SECONDS = 0.2

_RATE = {Target.SOFTNIC: 20_000_000, Target.BMV2: 2_000_000}
"""Bytes a second that curl is to take: well below what the devices can do."""
_BUFFER = {"ipv4/tcp_rmem": "4096 65536 131072"}
"""For the client: what it takes then comes evenly, and not in lumps of megabytes."""
_SECONDS = 5
"""How long the download takes at that rate."""
_TURNS = (0.25, 0.6)
"""When the chain is changed: shares of the bytes that have come."""
_EVERY_S = 0.1
_LIMIT_S = 30.0


class Live(Protocol):
    """Is told of the download while it lasts."""

    def step(self, what: str) -> None:
        """What happens now."""

    def rate(self, mbit: float) -> None:
        """Its throughput in the last SHOWN_SECONDS, Mbit/s."""


@dataclass(slots=True)
class Change:
    """What was seen of the download."""

    began: float = 0.0
    samples: list[tuple[float, int]] = field(default_factory=list)
    """Bytes that the client's interface had received, and when (seconds since 1970)."""
    switched: list[float] = field(default_factory=list)
    """When the chain was another one."""

    @property
    def rate(self) -> float:
        """Mbit/s in the last SHOWN_SECONDS."""
        span = self.samples[-round(SHOWN_SECONDS / _EVERY_S) - 1 :]
        (start, first), (end, last) = span[0], span[-1]
        return (last - first) * 8 / 1e6 / (end - start) if end > start else 0.0

    @property
    def stretches(self) -> list[tuple[float, tuple[str, ...], list[float]]]:
        """For each chain: from when, its hosts, and Mbit/s in each SHOWN_SECONDS."""
        moments = [self.began, *self.switched]
        found: list[tuple[float, tuple[str, ...], list[float]]] = [
            (at - self.began, hosts, []) for at, hosts in zip(moments, CHAINS, strict=False)
        ]
        last_at, last = self.samples[0]
        end = max((received for _, received in self.samples), default=0)
        for at, received in self.samples:
            if received == end:
                break  # the download ended in it
            if at - last_at >= SHOWN_SECONDS - _EVERY_S / 2:
                stretch = sum(moment <= last_at for moment in self.switched)
                found[stretch][2].append((received - last) * 8 / 1e6 / (at - last_at))
                last_at, last = at, received
        return found


class SecondAct:
    """Its parts in the running network."""

    def __init__(
        self, topology: Topology, controller: Controller, proxy: TransparentProxy, target: Target
    ) -> None:
        self._client = topology.hosts["client"]
        self._scrubber = topology.hosts["scrubber"]
        self._controller = controller
        self._proxy = proxy
        self._rate = _RATE[target]
        self._url = f"http://{topology.spec.host('server').ipv4}:{PORT}/long"

    @property
    def mbit(self) -> float:
        """The rate that the client asks for, Mbit/s."""
        return self._rate * 8 / 1e6

    @property
    def size(self) -> int:
        """Bytes of the file that must be at the server, as "long"."""
        return self._rate * _SECONDS

    def play(self, file: Path, sha256: str, live: Live) -> tuple[Change, list[Claim]]:
        """Download it, change its chain twice; what was seen, and what must hold.

        Raises DeadlineError where a change doesn't end, ProcessError where curl fails.
        """
        change = Change()
        problems: list[str] = []
        self._client.sysctl(_BUFFER)
        with _download(self._client, self._url, file, self._rate) as fetching:
            change.began = time.time()
            with _sampled(self._client, change, live.rate):
                session = self._session()
                port = int(session["session"]["sport"])
                live.step("the download goes through HAProxy")
                self._wait_for(change, _TURNS[0])
                live.step("reconfigure --delete proxy")
                change.switched.append(self._change(session["id"], delete=["proxy"]))
                problems += self._expect(session["id"], 1)
                live.step("the download goes straight")
                wait_until(lambda: not self._proxy.sockets(port), "HAProxy to let go", 5.0)
                self._wait_for(change, _TURNS[1])
                before = _packets(self._scrubber)
                live.step("reconfigure --insert scrubber --after client")
                wish = {"insert": "scrubber", "after": "client"}
                change.switched.append(self._change(session["id"], **wish))
                problems += self._expect(session["id"], 2)
                live.step("the download goes through the scrubber")
                passed = fetching.wait(_LIMIT_S)
            if _packets(self._scrubber) - before < self.size * 0.1 / 65_536:
                problems.append("hardly anything passed the scrubber")
        name = "the download whose chain changed"
        return change, [bytes_arrived(name, passed, sha256, self.size), chain_changed(problems)]

    def _session(self) -> dict[str, Any]:
        found: list[dict[str, Any]] = []

        def there() -> bool:
            with self._controller.api() as client:
                known = client.get("v1", "sessions", match=f"tcp and dst port {PORT}")["sessions"]
            found[:] = [session for session in known if tuple(session["hosts"]) == CHAINS[0]]
            return bool(found)

        wait_until(there, f"a session {' > '.join(CHAINS[0])}", 5.0)
        return found[0]

    def _expect(self, session: str, number: int) -> list[str]:
        with self._controller.api() as client:
            hosts = tuple(client.get("v1", "sessions", session)["hosts"])
        if hosts == CHAINS[number]:
            return []
        return [f"dyscod tells {' > '.join(hosts)} instead of {' > '.join(CHAINS[number])}"]

    def _wait_for(self, change: Change, share: float) -> None:
        first = change.samples[0][1] if change.samples else 0
        goal = first + self.size * share
        wait_until(
            lambda: bool(change.samples) and change.samples[-1][1] >= goal,
            f"{share:.0%} of the download",
            _LIMIT_S,
        )

    def _change(self, session: str, **wish: Any) -> float:
        """Change the chain, and wait until the old path is gone; when it had switched."""
        body = {"sessions": [session], **wish}
        with self._controller.api() as client:
            (asked,) = client.post("v1", "reconfigurations", body=body)
        ended: list[dict[str, Any]] = []

        def over() -> bool:
            with self._controller.api() as client:
                known = client.get("v1", "reconfigurations", session=session)
            ended[:] = [one for one in known if one["over"] and one["started"] >= asked["at"]]
            return bool(ended)

        if asked["accepted"]:
            wait_until(over, "the chain to be changed", _LIMIT_S, every=0.05)
        return float(ended[0]["switched"] or time.time()) if ended else time.time()


class _Fetching:
    """A download in a thread of its own."""

    def __init__(self, namespace: Namespace, url: str, file: Path, rate: int) -> None:
        self._got: list[Download | Exception] = []

        def fetch() -> None:
            options = ("--limit-rate", str(rate))
            try:
                self._got.append(download(namespace, url, file, options=options, seconds=40))
            except Exception as error:
                self._got.append(error)

        self._thread = threading.Thread(target=fetch)
        self._thread.start()

    def wait(self, seconds: float | None = None) -> Download:
        """What it got. Raises what curl's failure raised."""
        self._thread.join(seconds)
        if not self._got:
            raise TimeoutError(f"the download still runs after {seconds} s")
        if isinstance(self._got[0], Exception):
            raise self._got[0]
        return self._got[0]


@contextmanager
def _download(namespace: Namespace, url: str, file: Path, rate: int) -> Iterator[_Fetching]:
    fetching = _Fetching(namespace, url, file, rate)
    try:
        yield fetching
    finally:
        fetching.wait()


@contextmanager
def _sampled(client: Namespace, change: Change, show: Callable[[float], None]) -> Iterator[None]:
    """What the client received so far, every _EVERY_S; `show` is told the rate."""
    over = threading.Event()
    change.samples.append((time.time(), _received(client)))

    def sample() -> None:
        while not over.wait(_EVERY_S):
            change.samples.append((time.time(), _received(client)))
            show(change.rate)

    thread = threading.Thread(target=sample)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def _received(namespace: Namespace) -> int:
    return _counts(namespace)[0]


def _packets(namespace: Namespace) -> int:
    return _counts(namespace)[1]


def _counts(namespace: Namespace) -> tuple[int, int]:
    """Bytes and packets that a host's interface has received."""
    with namespace.entered():
        lines = Path("/proc/thread-self/net/dev").read_text().splitlines()
    for line in lines:
        name, _, numbers = line.strip().partition(":")
        if name == HOST_IFNAME:
            received = numbers.split()
            return int(received[0]), int(received[1])
    raise KeyError(f"no interface {HOST_IFNAME} in {namespace.name}")
