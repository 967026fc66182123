"""The chain of a live connection changes, while bytes flow both ways all the time."""

from __future__ import annotations

import contextlib
import hashlib
import os
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from chained import Conversation, Network, PolicyArgs, box, nft, running
from streams import Stream

from dysco.controller.client import Client
from dysco.topo import boxes
from dysco.topo.proxy import TransparentProxy
from dysco.topo.spec import DeviceSpec, TopologySpec
from dysco.topo.waiting import wait_until

POLICIES = [
    PolicyArgs("tcp and dst port 90", ("counter",)),
    PolicyArgs("tcp and dst port 91", ()),
    PolicyArgs("tcp and dst port 92", ("firewall",)),
    PolicyArgs("tcp and dst port 93", ("nat", "counter")),
    PolicyArgs("tcp and dst port 94", ("firewall", "counter", "scrubber")),
    PolicyArgs("tcp and dst port 95", ("proxy",)),
]


@pytest.fixture(scope="module")
def network(caged: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Network]:
    """A client, a server, and boxes in and beside their chains."""
    hosts = [
        box("client", 1),
        box("counter", 2, "counter"),
        box("firewall", 3, "firewall"),
        box("nat", 4, "nat"),
        box("scrubber", 5, "scrubber"),
        box("firewall2", 6, "firewall"),
        box("server", 7),
        box("proxy", 8, "proxy"),
        box("spare", 9, "scrubber"),
    ]
    devices = tuple(DeviceSpec(f"nic{host.subnet}", host.subnet) for host in hosts)
    spec = TopologySpec(tuple(hosts), devices)
    with running(spec, tmp_path_factory.mktemp("reconfigure"), POLICIES) as network:
        TransparentProxy(network.host("proxy"), network.directory / "proxy", (95,))
        yield network


def passed(network: Network, name: str) -> boxes.Counters:
    """What a box's own counters say."""
    return boxes.counters(network.host(name))


def test_a_box_is_taken_out(network: Network) -> None:
    stream = Stream(network, 90)
    assert stream.chain() == ["client", "counter", "server"]
    done = stream.change("--delete", "counter")
    assert stream.chain() == ["client", "server"]
    assert done["started"] < done["locked"] < done["switched"] < done["finished"]
    before = passed(network, "counter").to_server
    stream.wait_more()
    assert passed(network, "counter").to_server == before
    stream.finish()


def test_a_strict_firewall_is_put_into_a_session_without_a_chain(network: Network) -> None:
    stream = Stream(network, 91)
    assert stream.chain() == ["client", "server"]
    stream.change("--insert", "firewall", "--after", "client")
    assert stream.chain() == ["client", "firewall", "server"]
    before = passed(network, "firewall").to_server
    stream.wait_more()
    assert passed(network, "firewall").to_server > before
    assert network.dropped("firewall") == 0
    stream.finish()


def test_one_firewall_takes_the_place_of_another(network: Network) -> None:
    stream = Stream(network, 92)
    stream.change("--replace", "firewall=firewall2")
    assert stream.chain() == ["client", "firewall2", "server"]
    before = passed(network, "firewall2").to_client
    stream.wait_more()
    assert passed(network, "firewall2").to_client > before
    assert network.dropped("firewall2") == 0
    stream.finish()


def test_a_nat_is_taken_out(network: Network) -> None:
    stream = Stream(network, 93)
    stream.change("--delete", "nat")
    assert stream.chain() == ["client", "counter", "server"]
    stream.finish()


def test_a_nat_is_put_in(network: Network) -> None:
    stream = Stream(network, 91)
    stream.change("--insert", "nat", "--after", "client")
    assert stream.chain() == ["client", "nat", "server"]
    stream.finish()


def test_two_neighbours_are_taken_out_at_once_over_ipv6(network: Network) -> None:
    stream = Stream(network, 94, version=6)
    stream.change("--delete", "firewall", "--delete", "counter")
    assert stream.chain() == ["client", "scrubber", "server"]
    stream.finish()


def test_one_after_another(network: Network) -> None:
    stream = Stream(network, 91)
    for turn in range(2):
        box = ("counter", "firewall")[turn % 2]
        stream.change("--insert", box, "--after", "client")
        stream.change("--delete", box)
    assert stream.chain() == ["client", "server"]
    stream.finish()


def test_a_terminating_proxy_is_taken_out(network: Network) -> None:
    stream = Stream(network, 95)
    assert stream.chain() == ["client", "proxy", "server"]
    stream.change("--delete", "proxy")
    assert stream.chain() == ["client", "server"]
    stream.finish()


def test_a_proxy_whose_buffers_are_full_is_taken_out(network: Network) -> None:
    """What it has acknowledged and not delivered is still delivered, after it was taken out."""
    talk = Conversation(network, 95)
    assert talk.server is not None
    talk.client.setblocking(False)
    sent, got = hashlib.sha256(), hashlib.sha256()
    until = time.monotonic() + 1.5
    while time.monotonic() < until:
        piece = os.urandom(1 << 16)
        try:
            sent.update(piece[: talk.client.send(piece)])
        except BlockingIOError:
            time.sleep(0.05)
    ctl = network.controller.ctl
    (found,) = ctl("chain", "show", f"tcp and src port {talk.local_port}")
    ctl("reconfigure", found["id"], "--delete", "proxy", "--no-wait")
    wait_until(lambda: state_of(network, found["id"]) == "draining", "two paths", 5.0)
    shown = ctl("session", "show", found["id"])
    assert shown["hosts"] == ["client", "proxy", "server"]
    talk.client.settimeout(8.0)
    more = os.urandom(100_000)
    sender = threading.Thread(target=talk.client.sendall, args=(more,))
    sender.start()
    sent.update(more)
    talk.server.settimeout(0.2)
    size, until = 0, time.monotonic() + 15.0
    while state_of(network, found["id"]) != "finished" or sender.is_alive():
        assert time.monotonic() < until, (size, state_of(network, found["id"]), network.log())
        with contextlib.suppress(TimeoutError):
            # Nothing comes any more when the last state is still to be told.
            piece = talk.server.recv(1 << 20)
            got.update(piece)
            size += len(piece)
    sender.join()
    talk.server.settimeout(8.0)
    talk.client.shutdown(1)
    while piece := talk.server.recv(1 << 20):
        got.update(piece)
        size += len(piece)
    assert size > 1_000_000, "the proxy held nothing"
    assert got.digest() == sent.digest()
    talk.close()
    network.wait_empty()


def state_of(network: Network, session: str) -> str:
    """How the session's last reconfiguration stands."""
    with network.topology.devices.entered():
        known = Client(network.controller.url).get("v1", "reconfigurations")
    states = [r["state"] for r in known if r["session"] == session]
    return str(states[-1]) if states else ""


def test_a_new_box_that_is_down_changes_nothing(network: Network) -> None:
    stream = Stream(network, 90)
    spare = network.host("spare")
    spare.ip.link("set", index=spare.link_index("eth0"), state="down")
    words = (stream.id, "--replace", "counter=spare")
    done = network.controller.ctl("reconfigure", *words, check=False)
    (ended,) = done["reconfigurations"]
    assert ended["state"] == "failed"
    assert "connecting" in ended["why"]
    stream.wait_more()
    assert stream.chain() == ["client", "counter", "server"]
    stream.change("--delete", "counter")
    stream.finish()


def test_what_makes_no_sense_is_refused_with_the_reason(network: Network) -> None:
    stream = Stream(network, 90)
    for words, why in (
        (("--delete", "firewall"), "not on the chain"),
        (("--delete", "client"), "an end of the session"),
        (("--insert", "nobody", "--after", "client"), "no peer"),
        (("--insert", "counter", "--after", "server"), "the last host"),
    ):
        done = network.controller.ctl("reconfigure", stream.id, *words, check=False)
        assert why in done["refused"][0]["detail"]
    stream.wait_more()
    stream.finish()


def test_many_at_once(network: Network) -> None:
    """More than begin at once at one host: the others wait for their turn."""
    talks = [Conversation(network, 90) for _ in range(12)]
    done = network.controller.ctl(
        "reconfigure", "--match", "tcp and dst port 90", "--delete", "counter"
    )
    assert [r["state"] for r in done["reconfigurations"]] == ["finished"] * 12
    before = passed(network, "counter").to_server
    for talk in talks:
        talk.exchange()
        talk.finish()
    assert passed(network, "counter").to_server == before
    network.wait_empty()


def test_events_tell_each_step(network: Network) -> None:
    stream = Stream(network, 90)
    stream.change("--delete", "counter")
    stream.finish()
    argv = ["dysco-ctl", "--server", network.controller.url, "events", "--session", stream.id]
    argv[0] = str(Path(sys.executable).parent / argv[0])
    lines = network.topology.devices.run(argv).splitlines()
    told = [line.split(": ", 1)[1] for line in lines if "client (left anchor)" in line]
    assert told == ["locking", "connecting", "switching", "draining", "releasing", "finished"]


@pytest.mark.parametrize("after", [0.0, 0.03])
def test_kill_9_in_the_middle(network: Network, after: float) -> None:
    """The session is whole, on the one path or the other, and no lock stays."""
    stream = Stream(network, 92)
    network.controller.ctl("reconfigure", stream.id, "--replace", "firewall=firewall2", "--no-wait")
    time.sleep(after)
    network.controller.process.kill()
    stream.wait_more()
    network.controller.launch()
    network.controller.wait_ready()
    stream.wait_more()
    old, new = ["client", "firewall", "server"], ["client", "firewall2", "server"]
    wait_until(lambda: stream.chain() in (old, new), "one path", 10.0, every=0.2)
    stream.wait_more()
    if stream.chain() == old:
        stream.change("--replace", "firewall=firewall2")
    stream.change("--delete", "firewall2")
    stream.finish()


def test_a_box_takes_itself_out(network: Network) -> None:
    stream = Stream(network, 90)
    with network.topology.devices.entered():
        answer = Client(network.controller.url).post(
            "v1", "middlebox", "counter", "reconfigure", body={"session": stream.id}
        )
    assert answer["accepted"], answer
    wait_until(lambda: stream.chain() == ["client", "server"], "it to be gone", 10.0, every=0.2)
    stream.wait_more()
    stream.finish()


def test_agents_of_two_daemons(caged: None, tmp_path_factory: pytest.TempPathFactory) -> None:
    """They share nothing: what one tells the other crosses the network."""
    hosts = (box("client", 1), box("counter", 2, "counter"), box("server", 3))
    devices = tuple(DeviceSpec(f"nic{host.subnet}", host.subnet) for host in hosts)
    spec = TopologySpec(hosts, devices)
    directory = tmp_path_factory.mktemp("two")
    daemons = [["nic1"], ["nic2", "nic3"]]
    settings = {"connect_timeout": 0.5}
    with running(spec, directory, POLICIES[:2], settings=settings, daemons=daemons) as network:
        stream = Stream(network, 90)
        # The first daemon knows its own host, and the boxes that the session goes through.
        assert stream.chain() == ["client", "counter"]
        stream.change("--delete", "counter")
        assert stream.chain() == ["client"]
        stream.change("--insert", "counter", "--after", "client")
        assert stream.chain() == ["client", "counter"]
        stream.change("--delete", "counter")
        # The agent of the new box dies during the handshake, and that of the right anchor with it.
        answers = "tcp flags & (syn | ack) == (syn | ack) counter drop"
        with nft(network.topology.routers["router"], "forward", answers):
            stream.ask(insert="counter", after="client")
            stream.wait_state("connecting")
            network.controllers[1].process.kill()
        # The right anchor has to hear of its end: until then it is not over.
        stream.wait_state("cancelling")
        stream.wait_more()
        network.controllers[1].launch()
        network.controllers[1].wait_ready()
        stream.wait_state("failed")
        stream.change("--insert", "counter", "--after", "client")
        stream.finish()
