"""The chain by plain static routing: real boxes, real traffic, no Dysco, no P4."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from dysco.topo import boxes, traffic
from dysco.topo.devices import Target, start_devices
from dysco.topo.process import ProcessError
from dysco.topo.spec import HostSpec, SpecError, TopologySpec, demo_spec
from dysco.topo.static import route_through
from dysco.topo.topology import Topology

CHAIN = ["client", "firewall", "nat", "counter", "server"]


@dataclass(frozen=True)
class Baseline:
    topology: Topology
    sha256: str
    directory: Path


@pytest.fixture(scope="module")
def baseline(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Baseline]:
    directory = tmp_path_factory.mktemp("baseline")
    with Topology(demo_spec(), directory) as topology:
        start_devices(topology, Target.BRIDGE)
        boxes.set_up_boxes(topology)
        route_through(topology, CHAIN, 80)
        web = traffic.WebServer(topology.hosts["server"], directory / "nginx", (80, 8080))
        sha256 = web.publish("file", os.urandom(2_000_000))
        yield Baseline(topology, sha256, directory)


def packets(topology: Topology) -> list[int]:
    return [boxes.counters(topology.hosts[name]).to_server for name in CHAIN[1:-1]]


@pytest.mark.parametrize("server", ["10.0.5.2", "[fd00:5::2]"])
def test_http_goes_through_all_boxes(baseline: Baseline, server: str) -> None:
    before = packets(baseline.topology)
    got = traffic.download(
        baseline.topology.hosts["client"], f"http://{server}/file", baseline.directory / "got"
    )
    assert (got.status, got.size, got.sha256) == (200, 2_000_000, baseline.sha256)
    after = packets(baseline.topology)
    assert all(now > then + 3 for then, now in zip(before, after, strict=True))


@pytest.mark.parametrize(
    ("server", "nat"), [("10.0.5.2", "10.0.3.2"), ("[fd00:5::2]", "fd00:3::2")]
)
def test_the_server_sees_the_nat(baseline: Baseline, server: str, nat: str) -> None:
    file = baseline.directory / "who"
    traffic.download(baseline.topology.hosts["client"], f"http://{server}/who", file)
    assert file.read_text().strip() == nat


@pytest.mark.parametrize(
    ("host", "url", "source"),
    [
        ("client", "http://10.0.5.2:8080/who", "10.0.1.2"),
        ("bystander", "http://10.0.5.2/who", "10.0.6.2"),
    ],
)
def test_other_traffic_goes_directly(baseline: Baseline, host: str, url: str, source: str) -> None:
    before = packets(baseline.topology)
    file = baseline.directory / "who"
    traffic.download(baseline.topology.hosts[host], url, file)
    assert file.read_text().strip() == source
    assert packets(baseline.topology) == before


def test_the_firewall_is_strict(baseline: Baseline) -> None:
    """A segment of a connection that it saw no SYN of is dropped, not picked up."""
    firewall = baseline.topology.hosts["firewall"]
    before = boxes.counters(firewall).dropped
    client = baseline.topology.hosts["client"]
    # The kernel answers a RST-less, unknown segment of ours to port 80 with nothing at all.
    client.run(["nft", "-f", "-"], stdin=_NO_SYN)
    with pytest.raises(ProcessError, match="status 28"):
        traffic.download(client, "http://10.0.5.2/who", baseline.directory / "none", seconds=1)
    client.run(["nft", "delete", "table", "inet", "mangle"])
    assert boxes.counters(firewall).dropped > before


_NO_SYN = """
table inet mangle {
  chain output {
    type filter hook output priority mangle;
    tcp dport 80 tcp flags & syn == syn tcp flags set ack
  }
}
"""


def test_conntrack_of_the_nat_is_read(baseline: Baseline) -> None:
    topology = baseline.topology
    traffic.download(topology.hosts["client"], "http://10.0.5.2/who", baseline.directory / "who")
    found = boxes.connections(topology.hosts["nat"])
    client, nat = topology.spec.host("client"), topology.spec.host("nat")
    assert any(c.original.src == client.ipv4 and c.reply.dst == nat.ipv4 for c in found)


def test_wrk_has_no_errors(baseline: Baseline) -> None:
    load = traffic.load(baseline.topology.hosts["client"], "http://10.0.5.2/who", seconds=1)
    assert load.errors == 0
    assert load.requests > 100


def test_iperf_moves_bytes(baseline: Baseline) -> None:
    server = traffic.start_iperf_server(baseline.topology.hosts["server"])
    report = traffic.iperf(baseline.topology.hosts["client"], "10.0.5.2", seconds=1)
    server.stop()
    assert report["end"]["sum_received"]["bytes"] > 1_000_000


def test_a_failing_process_shows_its_log(baseline: Baseline) -> None:
    process = baseline.topology.hosts["client"].start("loser", ["sh", "-c", "echo oh no; exit 3"])
    with pytest.raises(ProcessError, match=r"(?s)status 3 .*oh no"):
        process.wait_ready(lambda: False, "it was ready")


def test_hosts_behind_one_interface_have_no_static_chain(tmp_path: Path) -> None:
    hosts = (HostSpec("a", 1), HostSpec("b", 2), HostSpec("c", 3))
    with Topology(TopologySpec(hosts), tmp_path) as topology:
        route_through(topology, ["a", "b", "c"], 80)
        with pytest.raises(SpecError, match="shares"):
            route_through(topology, ["a", "b", "a"], 80)


def test_routers_in_a_row_with_a_small_mtu(tmp_path: Path) -> None:
    """Hosts left and right of a link of 1300 bytes: ICMP tells the sender, the bytes arrive."""
    hosts = (HostSpec("a", 1, router="left"), HostSpec("b", 2, router="right"))
    spec = TopologySpec(hosts, routers=("left", "right"), backbone_mtu=1300)
    with Topology(spec, tmp_path) as topology:
        web = traffic.WebServer(topology.hosts["b"], tmp_path / "nginx")
        sha256 = web.publish("file", os.urandom(200_000))
        for address in ("10.0.2.2", "[fd00:2::2]"):
            got = traffic.download(topology.hosts["a"], f"http://{address}/file", tmp_path / "got")
            assert got.sha256 == sha256
        assert "mtu 1300" in topology.hosts["b"].run(["ip", "route", "get", "10.0.1.2"])
        assert "mtu 1300" in topology.hosts["b"].run(["ip", "-6", "route", "get", "fd00:1::2"])
