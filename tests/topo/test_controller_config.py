from __future__ import annotations

from pathlib import Path

from dysco.controller.config import StateConfig, load, load_key
from dysco.topo.controller import config_text, group_key
from dysco.topo.devices import Device
from dysco.topo.spec import DeviceSpec, HostSpec, TopologySpec, demo_spec

STATES = {"nat": {"export": ["tool", "a b"], "drop": ["tool"]}, "server": {"helper": "unix:/s"}}


def written(tmp_path: Path, spec: TopologySpec, names: list[str]) -> Path:
    devices = {d.name: Device(d, None) for d in spec.devices if d.name in names}
    (tmp_path / "group.key").write_text(group_key())
    path = tmp_path / "dyscod.toml"
    path.write_text(config_text(spec, devices, "127.0.0.1:8700", {"closing_linger": 2.5}, STATES))
    return path


def test_dyscod_takes_the_demo_s_configuration(tmp_path: Path) -> None:
    config = load(written(tmp_path, demo_spec(), [f"nic{n}" for n in range(1, 6)]))
    assert [device.device_id for device in config.devices] == [1, 2, 3, 4, 5]
    assert {peer.name: peer.kind for peer in config.all_peers()} == {
        "client": None,
        "firewall": "firewall",
        "nat": "nat",
        "counter": "counter",
        "server": None,
    }
    nat = config.devices[2].hosts[0]
    assert [str(address) for address in nat.addresses] == ["10.0.3.2", "fd00:3::2"]
    assert [str(route.via) for route in config.devices[2].routes] == ["10.0.3.1", "fd00:3::1"]
    assert nat.state is not None
    assert nat.state.export == ("tool", "a b")
    assert config.devices[4].hosts[0].state == StateConfig(helper=Path("/s"))
    assert config.settings.closing_linger == 2.5
    assert len(load_key(config)) == 32


def test_hosts_of_other_daemons_are_peers(tmp_path: Path) -> None:
    config = load(written(tmp_path, demo_spec(), ["nic1", "nic5"]))
    assert [device.name for device in config.devices] == ["nic1", "nic5"]
    assert [peer.name for peer in config.peers] == ["firewall", "nat", "counter"]


def test_several_hosts_and_no_network_port(tmp_path: Path) -> None:
    hosts = (HostSpec("a", 1, device="tor"), HostSpec("b", 1, device="tor", number=3))
    spec = TopologySpec(hosts, (DeviceSpec("tor", 7, router=None),))
    (device,) = load(written(tmp_path, spec, ["tor"])).devices
    assert device.network_ports == ()
    assert device.ports == (2, 3)
    assert device.routes == ()
