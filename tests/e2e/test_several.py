"""Several hosts on one device, and links of different MTU between devices.

  client ─┐                                           ┌─ nat
          ├─ left device ── left ══ 1400 ══ right ── right device ─┤
firewall ─┘                                           ├─ counter
                                                      ├─ server
                                                      └─ inner (a client on the same device)
  alone ─┬─ a device without a network port: pass, goal
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from chained import SIZE, Conversation, Network, PolicyArgs, running

from dysco.topo import boxes
from dysco.topo.capture import Capture, Frame, Tap, icmp_errors, segments
from dysco.topo.spec import DeviceSpec, HostSpec, TopologySpec

MTU = 1400
POLICIES = [
    PolicyArgs("tcp and dst port 80", ("firewall", "nat", "counter")),
    PolicyArgs("tcp and dst port 81", ("counter",)),
    PolicyArgs("tcp and dst port 90", ("nat", "counter")),
    PolicyArgs("tcp and dst port 91", ("pass",)),
    PolicyArgs("tcp and dst port 92", ("firewall", "nat", "counter")),
]


@pytest.fixture(scope="module")
def racks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Network]:
    hosts = (
        HostSpec("client", 1, device="leftnic", number=2),
        HostSpec("firewall", 1, "firewall", device="leftnic", number=3),
        HostSpec("nat", 2, "nat", device="rightnic", number=2),
        HostSpec("counter", 2, "counter", device="rightnic", number=3),
        HostSpec("server", 2, device="rightnic", number=4),
        HostSpec("inner", 3, device="rightnic", number=2),
        HostSpec("alone", 4, device="island", number=2),
        HostSpec("pass", 4, "counter", device="island", number=3),
        HostSpec("goal", 4, device="island", number=4),
    )
    devices = (
        DeviceSpec("leftnic", 1, "left"),
        DeviceSpec("rightnic", 2, "right"),
        DeviceSpec("island", 3, None),
    )
    spec = TopologySpec(hosts, devices, routers=("left", "right"), backbone_mtu=MTU)
    with running(spec, tmp_path_factory.mktemp("racks"), POLICIES, web=(80, 81)) as network:
        yield network


def counters(network: Network) -> list[int]:
    return [boxes.counters(network.host(box)).to_server for box in ("firewall", "nat", "counter")]


@pytest.mark.parametrize("version", [4, 6])
def test_consecutive_hosts_on_one_device(racks: Network, version: int) -> None:
    before = counters(racks)
    got = racks.fetch(80, version)
    assert (got.status, got.size, got.sha256) == (200, SIZE, racks.sha256)
    after = counters(racks)
    assert all(now > then + 3 for then, now in zip(before, after, strict=True))
    assert racks.who(80, version) == racks.address("nat", version)
    talk = Conversation(racks, 92, version)
    (chain,) = racks.controller.ctl("chain", "show", f"tcp and src port {talk.local_port}")
    talk.finish()
    hops = [(hop["host"], hop["device"]) for hop in chain["hops"]]
    assert hops == [
        ("client", "leftnic"),
        ("firewall", "leftnic"),
        ("nat", "rightnic"),
        ("counter", "rightnic"),
        ("server", "rightnic"),
    ]
    for box in ("firewall", "nat", "counter"):
        assert racks.dropped(box) == 0


@pytest.mark.parametrize("version", [4, 6])
def test_a_chain_within_one_device(racks: Network, version: int) -> None:
    """Client, both middleboxes and server on one device, which has a network port too."""
    talk = Conversation(racks, 90, version, client="inner")
    talk.exchange(100_000)
    assert talk.server_sees[0] == racks.address("nat", version)
    talk.finish()


@pytest.mark.parametrize("version", [4, 6])
def test_a_device_without_a_network(racks: Network, version: int) -> None:
    before = boxes.counters(racks.host("pass")).to_server
    talk = Conversation(racks, 91, version, client="alone", server="goal")
    talk.exchange(100_000)
    talk.finish()
    assert boxes.counters(racks.host("pass")).to_server > before + 3


# Path MTU discovery: the link between the routers is smaller than all others


def forget_mtu(network: Network) -> None:
    for host in network.topology.hosts.values():
        host.run(["ip", "route", "flush", "cache"])
        host.run(["ip", "-6", "route", "flush", "cache"])


@pytest.mark.parametrize("version", [4, 6])
def test_path_mtu_of_a_download(racks: Network, version: int) -> None:
    """The server's full segments don't fit; the router's ICMP error finds its way to its TCP."""
    forget_mtu(racks)
    server = Tap("server", racks.host("server"), "eth0")
    with Capture([server]) as capture:
        got = racks.fetch(81, version)
    assert (got.size, got.sha256) == (SIZE, racks.sha256)
    check_errors(racks, capture.frames, "server", version)


@pytest.mark.parametrize("version", [4, 6])
def test_path_mtu_of_an_upload(racks: Network, version: int) -> None:
    forget_mtu(racks)
    with Capture([Tap("client", racks.host("client"), "eth0")]) as capture:
        talk = Conversation(racks, 90, version)
        talk.exchange(400_000)
    check_errors(racks, capture.frames, "client", version)
    talk.finish()


def check_errors(network: Network, frames: list[Frame], host: str, version: int) -> None:
    """ICMP errors came to `host`, about packets that it sent, in the words that it knows."""
    errors = [error for _, error in icmp_errors(frames, host)]
    assert errors, f"no ICMP error came to {host}: the test tests nothing"
    kind = (3, 4) if version == 4 else (2, 0)
    assert {(error.type, error.code, error.mtu) for error in errors} == {(*kind, MTU)}
    sent = {s.tuple for f, s in segments(frames, host) if f.outgoing}
    assert {error.quoted for error in errors} <= sent
    route = network.host(host).run(["ip", f"-{version}", "route", "show", "cache"])
    assert f"mtu {MTU}" in route


@pytest.mark.parametrize("version", [4, 6])
def test_path_mtu_through_the_whole_chain(racks: Network, version: int) -> None:
    """Back through NAT and firewall, each of which hands the error on in its own words."""
    forget_mtu(racks)
    ends = [Tap(name, racks.host(name), "eth0") for name in ("client", "server")]
    with Capture(ends) as capture:
        talk = Conversation(racks, 92, version)
        talk.exchange(400_000)
    for end in ("client", "server"):
        check_errors(racks, capture.frames, end, version)
    talk.finish()
    assert racks.dropped("firewall") == 0
