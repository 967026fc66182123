"""A network for reconfigurations: boxes in and beside the chains, and how their sessions stand."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any
from urllib.request import urlopen

from chained import Conversation, Network, PolicyArgs, box, running
from tables import Tables

from dysco.topo.devices import tool_path
from dysco.topo.spec import DeviceSpec, TopologySpec
from dysco.topo.waiting import DeadlineError, wait_until

FREE, CHAINED = 91, 94
"""Ports of the server: tracked, without a chain; a, middle, b."""
CHAIN = ["client", "a", "middle", "b", "server"]
OVER = ("finished", "failed")

POLICIES = [
    PolicyArgs(f"tcp and dst port {FREE}", ()),
    PolicyArgs(f"tcp and dst port {CHAINED}", ("a", "middle", "b")),
]
PATIENT: dict[str, int | float] = {
    "lock_timeout": 30.0,
    "connect_timeout": 30.0,
    "changes_at_once": 8,
}
"""A phase lasts as long as a test holds it, and few sessions are enough for some to wait."""

_PORTS = count(20_000)
_WRAP = 1 << 32
_LOADED = re.compile(r"^(dysco_legs_tracked|dysco_ports_in_use)\{.*\} (\S+)$", re.MULTILINE)


class Sessions(Network):
    """A network with what devices and daemons hold of its sessions."""

    tables: Tables

    def left_behind(self) -> dict[str, float]:
        """Entries in the devices' tables, slots of legs, ports: all that is not static."""
        with self.topology.devices.entered(), urlopen(f"{self.controller.url}/metrics") as answer:
            text = answer.read().decode()
        found = dict.fromkeys(("dysco_legs_tracked", "dysco_ports_in_use"), 0.0)
        for name, value in _LOADED.findall(text):
            found[name] += float(value)
        return {name: n for name, n in {**found, **self.tables.read()}.items() if n}

    def wait_clean(self, seconds: float = 15.0) -> None:
        """Until nothing of any session is left anywhere."""
        try:
            self.wait_empty(seconds)
            wait_until(lambda: not self.left_behind(), "all to be gone", seconds, every=0.1)
        except DeadlineError as error:
            left = (self.sessions(), self.left_behind())
            raise AssertionError((error, left, self.log())) from error


@contextmanager
def reconfigured(
    directory: Path, settings: dict[str, int | float] | None = None
) -> Iterator[Sessions]:
    """The network, running."""
    hosts = (
        box("client", 1),
        box("a", 2, "counter"),
        box("middle", 3, "counter"),
        box("b", 4, "firewall"),
        box("firewall", 5, "firewall"),
        box("spare", 6, "counter"),
        box("server", 7),
    )
    spec = TopologySpec(hosts, tuple(DeviceSpec(f"nic{h.subnet}", h.subnet) for h in hosts))
    with running(spec, directory, POLICIES, settings=settings) as network:
        sessions = Sessions(**vars(network))
        with Tables(network) as sessions.tables:
            yield sessions


class Talk(Conversation):
    """A conversation whose session is known."""

    def __init__(self, network: Sessions, port: int = FREE, *, wrap_in: int = 0) -> None:
        """`wrap_in`: after so many bytes the sequence numbers of both directions wrap."""
        self.network = network
        self.asked = 0.0
        """When its last reconfiguration was asked for."""
        self._under_way = {False: b"", True: b""}
        local = next(_PORTS) if wrap_in else 0
        isn = _WRAP - 1 - wrap_in
        super().__init__(network, port, local_port=local, isns=(isn, isn) if wrap_in else None)
        self.exchange()
        with network.controller.api() as client:
            match = f"tcp and src port {self.local_port}"
            (session,) = client.get("v1", "sessions", match=match)["sessions"]
        self.id = str(session["id"])

    def chain(self) -> list[str]:
        """Names of the hosts that it crosses."""
        with self.network.controller.api() as client:
            return list(client.get("v1", "sessions", self.id)["hosts"])

    def last(self) -> dict[str, Any]:
        """Its last reconfiguration."""
        with self.network.controller.api() as client:
            return dict(client.get("v1", "reconfigurations", session=self.id)[-1])

    def send(self, *, by_server: bool, size: int = 1000) -> None:
        """Bytes one way, which `receive` waits for; no more than buffers take."""
        self._under_way[by_server] += (sent := os.urandom(size))
        self.ends(by_server=by_server)[0].sendall(sent)

    def receive(self, *, by_server: bool) -> None:
        """All that one end sent has come to the other; an AssertionError if other bytes came."""
        sent, self._under_way[by_server] = self._under_way[by_server], b""
        other, got = self.ends(by_server=by_server)[1], bytearray()
        while len(got) < len(sent):
            part = other.recv(len(sent) - len(got))
            assert part, "it ended too soon"
            got += part
        assert got == sent

    def finish_from(self, *, by_server: bool) -> None:
        """One end has sent its FIN; the other goes on for a while, and follows."""
        ends = self.ends(by_server=by_server)
        self.receive(by_server=by_server)
        assert ends[1].recv(1) == b""
        self.send(by_server=not by_server)
        self.receive(by_server=not by_server)
        ends[1].shutdown(1)
        assert ends[0].recv(1) == b""
        self.close()


def ask(network: Network, talks: Sequence[Talk], **wish: Any) -> list[dict[str, Any]]:
    """Begin to change the chains of these sessions; what became of each wish."""
    body = {"sessions": [talk.id for talk in talks], **wish}
    with network.controller.api() as client:
        answers = list(client.post("v1", "reconfigurations", body=body))
    for talk, answer in zip(talks, answers, strict=True):
        if answer["accepted"]:
            talk.asked = float(answer["at"])
    return answers


def wait_states(
    network: Network, talks: Sequence[Talk], wanted: Sequence[str], seconds: float = 20.0
) -> list[str]:
    """Until the last reconfiguration of each session is in one of these states: which ones."""
    known: dict[str, dict[str, Any]] = {}

    def there() -> bool:
        with network.controller.api() as client:
            known.update({k["session"]: k for k in client.get("v1", "reconfigurations")})
        return all(
            (now := known.get(talk.id)) is not None
            and now["started"] >= talk.asked
            and now["state"] in wanted
            for talk in talks
        )

    try:
        wait_until(there, f"all to be {' or '.join(wanted)}", seconds, every=0.05)
    except DeadlineError as error:
        raise AssertionError((error, list(known.values()), network.log())) from error
    return [known[talk.id]["state"] for talk in talks]


def change(network: Network, talks: Sequence[Talk], **wish: Any) -> None:
    """Change their chains, to the end."""
    answers = ask(network, talks, **wish)
    assert all(answer["accepted"] for answer in answers), answers
    states = wait_states(network, talks, OVER)
    assert states == ["finished"] * len(talks), ([t.last() for t in talks], network.log())


def told(network: Network, session: str) -> list[str]:
    """What `dysco-ctl events` says of a session's steps at its left anchor: states and reasons."""
    program = tool_path("dysco-ctl")
    assert program is not None
    argv = [program, "--server", network.controller.url, "events", "--session", session]
    lines = network.topology.devices.run(argv).splitlines()
    return [line.split(": ", 1)[1] for line in lines if "(left anchor)" in line]
