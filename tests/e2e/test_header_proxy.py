"""Middleboxes that change the stream: they stay, until they say that they are done."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest
from chained import Network, PolicyArgs, box, running
from streams import SERVER, Stream

from dysco.topo import header_proxy
from dysco.topo.proxy import intercept
from dysco.topo.spec import DeviceSpec, HostSpec, TopologySpec

HEADED, SILENT = 90, 91


@pytest.fixture(scope="module")
def network(caged: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Network]:
    """A proxy that puts a header in front, and a box that never says that it is done."""
    hosts = (
        box("client", 1),
        HostSpec("header", 2, "proxy", device="nic2", changes_stream=True),
        HostSpec("silent", 3, "counter", device="nic3", changes_stream=True),
        box("server", 4),
    )
    spec = TopologySpec(hosts, tuple(DeviceSpec(f"nic{h.subnet}", h.subnet) for h in hosts))
    policies = [
        PolicyArgs(f"tcp and dst port {HEADED}", ("header",)),
        PolicyArgs(f"tcp and dst port {SILENT}", ("silent",)),
    ]
    with running(spec, tmp_path_factory.mktemp("header"), policies) as network:
        proxy = network.host("header")
        intercept(proxy, (HEADED,))
        header_proxy.start(proxy, "header", network.controller.url, network.topology.devices)
        yield network


class HeadedStream(Stream):
    """The server reads a line before anything that the client sent."""

    header = b""

    def _receive(self, me: int) -> None:
        if me == SERVER:
            self.header = _line(self.ends[SERVER])
        super()._receive(me)


def _line(end: socket.socket) -> bytes:
    read = b""
    while not read.endswith(b"\r\n"):
        read += end.recv(1)
    return read


@pytest.mark.parametrize("version", [4, 6])
def test_a_header_inserter_leaves(network: Network, version: int) -> None:
    """What it added is in the server's stream for good, and in nobody's way."""
    fixed = network.counted("header", "deltas_fixed")
    stream = HeadedStream(network, HEADED, version)
    src, dst = (network.address(name, version) for name in ("client", "server"))
    family = f"TCP{version}"
    assert stream.header == f"PROXY {family} {src} {dst} {stream.port} {HEADED}\r\n".encode()
    network.wait_counted("header", "deltas_fixed", fixed)
    stream.change("--delete", "header")
    assert stream.chain() == ["client", "server"]
    stream.finish()


def test_who_has_not_said_that_it_is_done_stays(network: Network) -> None:
    stream = Stream(network, SILENT)
    answer = network.controller.ctl("reconfigure", stream.id, "--delete", "silent", check=False)
    (done,) = answer["reconfigurations"]
    assert done["state"] == "failed"
    assert done["why"] == "'silent' changes the stream, and has not said that it is done"
    stream.wait_more()
    assert stream.chain() == ["client", "silent", "server"]
    with network.controller.api() as client:
        body = {"session": stream.id, "rightwards": 0, "leftwards": 0}
        client.post("v1", "middlebox", "silent", "deltas", body=body)
    stream.change("--delete", "silent")
    assert stream.chain() == ["client", "server"]
    stream.finish()
