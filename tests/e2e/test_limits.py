"""What fills a bound: ports, sessions of an agent, entries of a device. And silence."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from chained import Conversation, Network, PolicyArgs, box, connect, running

from dysco.topo.spec import DeviceSpec, TopologySpec
from dysco.topo.waiting import wait_until

POLICIES = [
    PolicyArgs("tcp and dst port 80", ("counter",)),
    PolicyArgs("tcp and dst port 90", ("counter",), ("--on-failure", "refuse")),
    PolicyArgs("tcp and dst port 91", ("counter",), ("--on-failure", "direct")),
]
BUILT = Path(__file__).parents[2] / "p4src/v1model/build"
IDLE_SECONDS = 2.0
MAX_SESSIONS = 5
TABLE_SIZE = 6
"""Entries of a device: of three sessions through a middlebox, or six at an end."""


def spec() -> TopologySpec:
    hosts = (box("client", 1), box("counter", 2, "counter"), box("server", 3))
    return TopologySpec(hosts, tuple(DeviceSpec(f"nic{h.subnet}", h.subnet) for h in hosts))


@pytest.fixture(scope="module")
def narrow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Network]:
    """Four port pairs from client to counter, as many from counter to server."""
    settings = {
        "first_port": 61000,
        "last_port": 61003,
        "idle_timeout": IDLE_SECONDS,
        "max_sessions": MAX_SESSIONS,
    }
    directory = tmp_path_factory.mktemp("narrow")
    with running(spec(), directory, POLICIES, settings=settings) as network:
        yield network


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Network]:
    """Devices whose session tables are tiny."""
    directory = tmp_path_factory.mktemp("small")
    program = json.loads((BUILT / "dysco.json").read_text())
    info = (BUILT / "dysco.p4info.txtpb").read_text()
    for pipeline in program["pipelines"]:
        for table in pipeline["tables"]:
            if re.search(r"(out|in)bound_v[46]$", table["name"]):
                info = info.replace(f"size: {table['max_size']}\n", f"size: {TABLE_SIZE}\n")
                table["max_size"] = TABLE_SIZE
    folder = directory / "pipeline"
    folder.mkdir()
    (folder / "dysco.json").write_text(json.dumps(program))
    (folder / "dysco.p4info.txtpb").write_text(info)
    with running(spec(), directory, POLICIES, pipeline=folder) as network:
        yield network


def refused(network: Network) -> None:
    with pytest.raises(ConnectionRefusedError):
        connect(network, 90)


def finish_all(network: Network, talks: list[Conversation]) -> None:
    for talk in talks:
        talk.exchange()
        talk.finish()
    network.wait_empty()


def logged(network: Network, why: str, counter: str) -> bool:
    pattern = rf"session [0-9a-f]{{13}} \(10\.0\.1\.2:\d+ > 10\.0\.3\.2:\d+\): {why}.*\({counter}\)"
    return re.search(pattern, network.log()) is not None


def test_ports_are_exhausted(narrow: Network) -> None:
    """The fifth session finds no port pair; the four others go on; ports come back."""
    talks = [Conversation(narrow, 90) for _ in range(4)]
    before = narrow.counted("client", "ports_exhausted")
    refused(narrow)
    assert narrow.counted("client", "ports_exhausted") == before + 1
    assert logged(narrow, "", "ports_exhausted")
    direct = Conversation(narrow, 91)
    assert direct.server_sees[0] == narrow.address("client")
    direct.exchange()
    finish_all(narrow, [*talks, direct])
    finish_all(narrow, [_retried(narrow, 4)])


def test_sessions_are_too_many(narrow: Network) -> None:
    """Of both families together, as many as an agent may have and one more."""
    narrow.wait_empty()
    with ExitStack() as stack:
        talks = []
        for version in (4, 4, 4, 6, 6):
            talks.append(_retried(narrow, version))
            stack.callback(talks[-1].close)
        before = narrow.counted("client", "too_many_sessions")
        refused(narrow)
        assert narrow.counted("client", "too_many_sessions") == before + 1
        assert logged(narrow, "", "too_many_sessions")
        finish_all(narrow, talks)


def _retried(network: Network, version: int) -> Conversation:
    """A session, as soon as the quarantine of an earlier one's ports is over."""
    found: list[Conversation] = []

    def connected() -> bool:
        try:
            found.append(Conversation(network, 90, version))
        except ConnectionRefusedError:
            return False
        return True

    wait_until(connected, "a free port pair")
    return found[0]


@pytest.mark.parametrize("version", [4, 6])
def test_silence_ends_a_session(narrow: Network, version: int) -> None:
    """Its hosts don't know; whoever breaks the silence is on its own."""
    narrow.wait_empty()
    before = narrow.counted("counter", "session_idle")
    talk = _retried(narrow, version)
    talk.exchange()
    assert len(narrow.sessions()) == 1
    narrow.wait_empty(IDLE_SECONDS + 5)
    assert narrow.counted("counter", "session_idle") == before + 1
    talk.close()


@pytest.mark.parametrize("is_over", [False, True])
def test_silence_ends_a_session_that_closed_unseen(narrow: Network, is_over: bool) -> None:
    """Its FINs passed while `dyscod` was dead."""
    narrow.wait_empty()
    talk = _retried(narrow, 4)
    talk.exchange()
    narrow.controller.process.kill()
    talk.finish()
    started = time.monotonic()
    if is_over:  # the devices tell of it meanwhile, to nobody
        wait_until(lambda: time.monotonic() - started > IDLE_SECONDS + 1, "silence to be over")
    narrow.controller.start()
    narrow.wait_empty(IDLE_SECONDS + 5)


def test_a_session_that_talks_stays(narrow: Network) -> None:
    narrow.wait_empty()
    talk = _retried(narrow, 4)
    (session,) = narrow.sessions()

    def talked_for_long() -> bool:
        talk.exchange()
        return _age(narrow, session["id"]) > 2 * IDLE_SECONDS

    wait_until(talked_for_long, "time to pass", 4 * IDLE_SECONDS, every=0.3)
    assert [s["id"] for s in narrow.sessions()] == [session["id"]]
    talk.finish()
    narrow.wait_empty()


def _age(network: Network, session: str) -> float:
    with network.controller.api() as client:
        return time.time() - float(client.get("v1", "sessions", session)["created"])


def test_a_device_is_full(small: Network) -> None:
    """The middlebox's device holds three sessions; the fourth is refused as its policy says."""
    talks = [Conversation(small, 90) for _ in range(TABLE_SIZE // 2)]
    before = small.counted("counter", "install_failed")
    refused(small)
    assert small.counted("counter", "install_failed") == before + 1
    assert logged(small, "the device refused its mappings", "install_failed")
    for talk in talks:
        talk.exchange()
    finish_all(small, talks)
    assert small.works(80)
