"""HAProxy in a chain, and out of it again: two TCP connections that become one."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
from chained import Network, PolicyArgs, box, running
from streams import CLIENT, SERVER, Stream

from dysco.bench.usage import cpu_seconds
from dysco.topo.proxy import TransparentProxy
from dysco.topo.spec import DeviceSpec, TopologySpec
from dysco.topo.waiting import wait_until

WEB, FREE, LATER = 80, 95, 96


@pytest.fixture(scope="module")
def network(caged: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Network]:
    """A client, HAProxy, a box to put in its place, a server."""
    hosts = (
        box("client", 1),
        box("proxy", 2, "proxy"),
        box("firewall", 3, "firewall"),
        box("server", 4),
    )
    spec = TopologySpec(hosts, tuple(DeviceSpec(f"nic{h.subnet}", h.subnet) for h in hosts))
    policies = [
        PolicyArgs(f"tcp and (dst port {WEB} or dst port {FREE})", ("proxy",)),
        PolicyArgs(f"tcp and dst port {LATER}", ()),
    ]
    with running(spec, tmp_path_factory.mktemp("proxy"), policies, web=(WEB,)) as network:
        yield network


@pytest.fixture(scope="module")
def proxy(network: Network) -> TransparentProxy:
    """The running HAProxy."""
    return TransparentProxy(network.host("proxy"), network.directory / "proxy", (WEB, FREE))


@pytest.mark.parametrize("version", [4, 6])
def test_http_goes_through_and_the_server_sees_the_client(
    network: Network, proxy: TransparentProxy, version: int
) -> None:
    before = network.counted("proxy", "session_received")
    assert network.works(WEB, version)
    assert network.who(WEB, version) == network.address("client", version)
    assert network.counted("proxy", "session_received") == before + 2
    assert proxy.process.running
    network.wait_empty()


@pytest.mark.parametrize("version", [4, 6])
def test_it_leaves_while_bytes_go_both_ways(
    network: Network, proxy: TransparentProxy, version: int
) -> None:
    stream = Stream(network, FREE, version)
    assert stream.chain() == ["client", "proxy", "server"]
    assert proxy.sockets(stream.port) == ["established"] * 2
    stream.ask(delete=["proxy"])
    stream.wait_state("finished")
    assert stream.chain() == ["client", "server"]
    wait_gone(proxy, stream)
    before, start = sum(cpu_seconds(proxy.process.pid)), time.monotonic()
    stream.wait_more(3_000_000)
    assert sum(cpu_seconds(proxy.process.pid)) - before <= 0.02 * (time.monotonic() - start) + 0.02
    stream.finish()


def test_it_does_not_come_into_a_session_that_is_there(network: Network) -> None:
    stream = Stream(network, LATER)
    words = (stream.id, "--insert", "proxy", "--after", "client")
    done = network.controller.ctl("reconfigure", *words, check=False)
    assert "'proxy' ends connections itself" in done["refused"][0]["detail"]
    stream.wait_more()
    assert stream.chain() == ["client", "server"]
    stream.finish()


def test_ecn_on_one_side_only_is_noticed(network: Network, proxy: TransparentProxy) -> None:
    """The client asks for it, HAProxy's kernel grants it, and asks the server for none."""
    asks = "ipv4/tcp_ecn"
    network.host("client").sysctl({asks: 1})
    stream = Stream(network, FREE)
    answer = network.controller.ctl("reconfigure", stream.id, "--delete", "proxy", check=False)
    (done,) = answer["reconfigurations"]
    assert (done["state"], done["why"]) == (
        "failed",
        "the same ECN is not negotiated on both sides",
    )
    stream.wait_more()
    stream.finish()
    network.host("proxy").sysctl({asks: 1})
    both = Stream(network, FREE)
    both.change("--delete", "proxy")
    both.finish()
    for host in ("client", "proxy"):
        network.host(host).sysctl({asks: 2})


@pytest.mark.parametrize("deaf", [SERVER, CLIENT])
def test_it_leaves_with_full_buffers(network: Network, proxy: TransparentProxy, deaf: int) -> None:
    stream = Stream(network, FREE)
    stream.hold(deaf)
    stream.ask(delete=["proxy"])
    stream.wait_state("draining")
    # What the proxy holds keeps the old path; the other direction goes on meanwhile.
    stream.wait_more(ends=(1 - deaf,))
    assert stream.state() == "draining"
    stream.let_go(deaf)
    stream.wait_state("finished")
    stream.wait_more()
    wait_gone(proxy, stream)
    stream.finish()


def test_it_leaves_with_full_buffers_both_ways(network: Network, proxy: TransparentProxy) -> None:
    stream = Stream(network, FREE)
    stream.hold(SERVER)
    stream.hold(CLIENT)
    stream.ask(delete=["proxy"])
    stream.wait_state("draining")
    stream.let_go(CLIENT)
    stream.let_go(SERVER)
    stream.wait_state("finished")
    stream.wait_more()
    wait_gone(proxy, stream)
    stream.finish()


def test_a_firewall_takes_its_place(network: Network, proxy: TransparentProxy) -> None:
    stream = Stream(network, FREE)
    stream.ask(replace="proxy", by="firewall")
    stream.wait_state("finished")
    assert stream.chain() == ["client", "firewall", "server"]
    stream.wait_more()
    assert network.dropped("firewall") == 0
    wait_gone(proxy, stream)
    stream.finish()


def test_both_ends_stop_while_it_holds_bytes(network: Network, proxy: TransparentProxy) -> None:
    stream = Stream(network, FREE)
    stream.hold(SERVER)
    stream.ask(delete=["proxy"])
    stream.wait_state("draining")
    stream.stop()
    stream.let_go(SERVER)
    stream.finish()
    wait_gone(proxy, stream)


def wait_gone(proxy: TransparentProxy, stream: Stream) -> None:
    """Until HAProxy has no connection of a session any more, not even one that dies."""
    wait_until(lambda: not proxy.sockets(stream.port), "HAProxy's connections to be gone", 10.0)
