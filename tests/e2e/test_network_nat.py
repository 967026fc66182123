"""A NAT of the network between the client's agent and all others: strict, and deaf from outside.

client ── device ── [inside: masquerade, ct state invalid drop] ── outside ── devices ── boxes
"""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from chained import Network, PolicyArgs, box, running
from streams import Stream

from dysco.topo.spec import DeviceSpec, TopologySpec

POLICIES = [
    PolicyArgs("tcp and dst port 90", ("counter",)),
    PolicyArgs("tcp and dst port 91", ()),
]

RULES = """
table inet network {
  counter invalid { }
  counter refused { }
  counter datagrams { }
  chain forward {
    type filter hook forward priority filter; policy drop;
    meta l4proto udp counter name datagrams @UDP
    ct state invalid counter name invalid drop
    ct state established,related accept
    iifname "to-outside" counter name refused drop
    accept
  }
  chain postrouting {
    type nat hook postrouting priority srcnat; policy accept;
    oifname "to-outside" meta l4proto { tcp, udp } masquerade to :20000-29999
  }
}
"""

REST = {"port_quarantine": 60.0}
"""As usual: longer than the NAT remembers a connection that was reset."""

STRICT = {
    "netfilter/nf_conntrack_tcp_be_liberal": 0,
    "netfilter/nf_conntrack_tcp_loose": 0,
}


@pytest.fixture(scope="module", params=[("", 6), ("drop", 4)], ids=["masquerade", "no-udp"])
def network(
    request: pytest.FixtureRequest, caged: None, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Network]:
    """The client behind the NAT, which lets UDP through, or none."""
    verdict, _ = request.param
    hosts = (
        box("client", 1),
        box("counter", 2, "counter"),
        box("firewall", 3, "firewall"),
        box("firewall2", 4, "firewall"),
        box("server", 5),
    )
    devices = tuple(
        DeviceSpec(f"nic{h.subnet}", h.subnet, "inside" if h.name == "client" else "outside")
        for h in hosts
    )
    spec = TopologySpec(hosts, devices, ("inside", "outside"))
    with running(spec, tmp_path_factory.mktemp("nat"), POLICIES, settings=REST) as network:
        router = network.topology.routers["inside"]
        router.run(["nft", "-f", "-"], stdin=RULES.replace("@UDP", verdict))
        router.sysctl(STRICT)
        yield network


def dropped(network: Network, counter: str) -> int:
    """Packets that the NAT counted."""
    router = network.topology.routers["inside"]
    listing = json.loads(router.run(["nft", "--json", "list", "counters"]))
    (found,) = [
        part["counter"]["packets"]
        for part in listing["nftables"]
        if "counter" in part and part["counter"]["name"] == counter
    ]
    return int(found)


@pytest.fixture
def version(request: pytest.FixtureRequest, network: Network) -> int:
    """Of IP: one for each NAT."""
    _, number = request.node.callspec.params["network"]
    return int(number)


def test_a_chain_changes_behind_a_nat(network: Network, version: int) -> None:
    """Put in, replaced, taken out; and the NAT believes every segment of ours."""
    stream = Stream(network, 91, version)
    before = network.counted("client", "control_in_band")
    stream.change("--insert", "firewall", "--after", "client")
    assert stream.chain() == ["client", "firewall", "server"]
    stream.change("--replace", "firewall=firewall2")
    assert stream.chain() == ["client", "firewall2", "server"]
    assert dropped(network, "invalid") == 0
    stream.change("--delete", "firewall2")
    assert stream.chain() == ["client", "server"]
    assert network.counted("client", "control_in_band") > before + 3
    assert network.dropped("firewall") == network.dropped("firewall2") == 0
    stream.finish()


def test_a_box_of_the_chain_leaves(network: Network, version: int) -> None:
    stream = Stream(network, 90, version)
    stream.change("--delete", "counter")
    assert stream.chain() == ["client", "server"]
    stream.change("--insert", "counter", "--after", "client")
    stream.finish()
    for host in ("client", "counter", "firewall", "server"):
        assert network.counted(host, "control_forged") == 0
        assert network.counted(host, "control_malformed") == 0


def test_the_nat_is_one(network: Network) -> None:
    """Of what it lets through and what not: else the other tests test nothing."""
    assert dropped(network, "datagrams") > 0
    assert network.counted("server", "network_nat") > 0
