from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address

import pytest

from dysco.topo.spec import DeviceSpec, HostSpec, SpecError, TopologySpec, demo_spec, with_spares


def test_address_plan() -> None:
    host = HostSpec("a", subnet=17, number=3)
    assert host.ipv4 == IPv4Address("10.0.17.3")
    assert host.ipv6 == IPv6Address("fd00:17::3")
    assert host.mac == "02:00:00:00:11:03"
    assert host.gateways == ("10.0.17.1", "fd00:17::1")


def test_demo_puts_each_host_behind_a_device_of_its_own_but_the_bystander() -> None:
    spec = demo_spec()
    assert [host.name for host in spec.hosts] == [
        "client", "firewall", "nat", "counter", "server", "bystander",
    ]  # fmt: skip
    assert [spec.port_of(host) for host in spec.hosts[:5]] == [2, 2, 2, 2, 2]
    assert spec.host("bystander").device is None
    assert spec.router_link(spec.host("bystander")) == "to-bystander"
    assert spec.router_link(spec.host("nat")) == "to-nic3"


def test_spares_come_behind_devices_of_their_own() -> None:
    spec = with_spares(demo_spec(), [("proxy", "proxy"), ("more", "scrubber")])
    assert [(h.name, h.subnet, h.device) for h in spec.hosts[-2:]] == [
        ("proxy", 7, "nic7"),
        ("more", 8, "nic8"),
    ]
    assert spec.device("nic8").id == 8


def test_hosts_on_one_device_have_ports_in_order() -> None:
    hosts = tuple(HostSpec(name, n, device="tor") for n, name in enumerate("abc", 1))
    spec = TopologySpec(hosts, (DeviceSpec("tor", 1),))
    assert [spec.port_of(host) for host in hosts] == [2, 3, 4]


@pytest.mark.parametrize(
    ("hosts", "devices", "word"),
    [
        ([HostSpec("a", 1), HostSpec("a", 2)], [], "named twice"),
        ([HostSpec("a", 1), HostSpec("b", 1)], [], "share an address"),
        ([HostSpec("a", 1, device="nic")], [], "no device nic"),
        ([HostSpec("a", 200)], [], "outside the address plan"),
        ([HostSpec("a-very-long-name", 1)], [], "at most"),
        ([], [DeviceSpec("nic", 1, router="elsewhere")], "no router elsewhere"),
    ],
)
def test_what_does_not_fit_is_refused(
    hosts: list[HostSpec], devices: list[DeviceSpec], word: str
) -> None:
    with pytest.raises(SpecError, match=word):
        TopologySpec(tuple(hosts), tuple(devices))
