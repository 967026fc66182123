"""The configuration: what it means, and errors that name file, line and key."""

from __future__ import annotations

from pathlib import Path

import pytest

from dysco.agent.events import StateVerb
from dysco.controller.config import Config, ConfigError, load, load_key

HEAD = """\
[daemon]
listen = "127.0.0.1:8700"

[group]
name = "demo"
key_file = "group.key"
"""

NIC = """
[[device]]
name = "nic1"
address = "127.0.0.1:9559"
device_id = 1
network_ports = [1]
  [[device.host]]
  name = "client"
  port = 2
  mac = "02:00:00:00:01:02"
  addresses = ["10.0.1.2", "fd00:1::2"]
  [[device.host]]
  name = "fw"
  kind = "firewall"
  id = 7
  interfaces = [
    { port = 3, mac = "02:00:00:00:01:03", addresses = ["10.0.1.3"], uplink = 1 },
    { port = 4, mac = "02:00:00:00:01:04", addresses = ["10.0.2.3"] },
  ]
  [[device.route]]
  prefix = "0.0.0.0/0"
  port = 1
  via = "10.0.1.1"

[[peer]]
name = "server"
addresses = ["10.0.5.2"]
"""


def read(tmp_path: Path, text: str) -> Config:
    path = tmp_path / "dyscod.toml"
    path.write_text(text)
    return load(path)


def refused(tmp_path: Path, text: str) -> str:
    with pytest.raises(ConfigError) as error:
        read(tmp_path, text)
    return str(error.value).replace(str(tmp_path) + "/", "")


def test_a_whole_file(tmp_path: Path) -> None:
    config = read(tmp_path, HEAD + NIC + "\n[settings]\nidle_timeout = 60\n")
    (device,) = config.devices
    client, firewall = device.hosts
    assert config.daemon.endpoint == ("127.0.0.1", 8700)
    assert config.daemon.state == tmp_path / "dyscod.sqlite"
    assert config.group.key_file == tmp_path / "group.key"
    assert config.settings.idle_timeout == 60
    assert device.ports == (1, 2, 3, 4)
    assert device.default_uplink == 1
    assert firewall.host_id == 7
    assert 1 <= client.host_id <= 65535
    assert client.host().interfaces[0].mac == bytes.fromhex("020000000102")
    assert [str(a) for a in firewall.addresses] == ["10.0.1.3", "10.0.2.3"]
    assert [peer.name for peer in config.all_peers()] == ["client", "fw", "server"]


def test_a_host_keeps_its_id_however_the_file_is_edited(tmp_path: Path) -> None:
    before = read(tmp_path, HEAD + NIC).devices[0].hosts[0].host_id
    other = '  [[device.host]]\n  name = "other"\n  port = 9\n'
    other += '  mac = "02:00:00:00:01:09"\n  addresses = ["10.0.1.9"]\n'
    edited = NIC.replace("  [[device.host]]\n", other + "  [[device.host]]\n", 1)
    hosts = read(tmp_path, HEAD + edited).devices[0].hosts
    assert [h.name for h in hosts] == ["other", "client", "fw"]
    assert hosts[1].host_id == before


STATE = """
    [device.host.state]
    export = ["tool", "export"]
    import = ["tool", "import"]
    drop = ["tool", "drop"]
    timeout = 0.5
"""


def with_state(state: str) -> str:
    """The host client has this."""
    addresses = 'addresses = ["10.0.1.2", "fd00:1::2"]\n'
    return (HEAD + NIC).replace(addresses, addresses + state, 1)


def test_state_commands(tmp_path: Path) -> None:
    host = read(tmp_path, with_state(STATE)).devices[0].hosts[0]
    assert host.name == "client"
    assert host.state is not None
    assert host.state.command(StateVerb.IMPORT) == ("tool", "import")
    assert host.state.timeout == 0.5
    assert host.state.has(StateVerb.EXPORT)
    assert not host.state.has(StateVerb.RESUME)
    helper = "    [device.host.state]\n    helper = "
    there = read(tmp_path, with_state(helper + '["tool", "serve"]\n')).devices[0].hosts[0].state
    assert there is not None
    assert there.helper == ("tool", "serve")
    assert all(there.has(verb) for verb in StateVerb)
    there = read(tmp_path, with_state(helper + '"unix:app.sock"\n')).devices[0].hosts[0].state
    assert there is not None
    assert there.helper == tmp_path / "app.sock"


@pytest.mark.parametrize(
    ("old", "new", "where", "what"),
    [
        ('["tool", "drop"]', '"tool drop"', "client, state, drop", "no shell takes it apart"),
        ('["tool", "drop"]', "[]", "client, state, drop", "at least 1 item"),
        ('["tool", "drop"]', '[""]', "client, state, drop", "at least 1 character"),
        ('    drop = ["tool", "drop"]\n', "", "client, state", "drop is missing"),
        ("timeout = 0.5", "timeout = 0", "client, state, timeout", "greater than 0"),
        ("timeout = 0.5", "timeouts = 1", "client, state, timeouts", "no such key"),
        ("timeout = 0.5", 'helper = "unix:/x"', "client, state", "either a helper, or commands"),
        ("timeout = 0.5", 'helper = "tool"', "client, state, helper", "unix:/path/to/socket"),
        ("timeout = 0.5", "helper = [3]", "client, state, helper", "valid string"),
        (STATE, "    [device.host.state]\n", "client, state", "either a helper, or commands"),
    ],
)
def test_bad_state_commands(tmp_path: Path, old: str, new: str, where: str, what: str) -> None:
    assert old in STATE
    told = refused(tmp_path, with_state(STATE.replace(old, new)))
    (line,) = [line for line in told.splitlines() if what in line]
    assert where in line


def line_of(text: str, part: str) -> int:
    return text[: text.index(part)].count("\n") + 1


@pytest.mark.parametrize(
    ("old", "new", "where", "what"),
    [
        ('mac = "02:00:00:00:01:02"', 'mac = "02:00"', "host client", "six pairs of hex digits"),
        ('mac = "02:00:00:00:01:02"', 'mac = "03:00:00:00:01:02"', "host client", "multicast MAC"),
        ('addresses = ["10.0.1.2", "fd00:1::2"]', "addresses = []", "addresses", "at least 1 item"),
        ('["10.0.1.2", "fd00:1::2"]', '["10.0.1.256"]', "host client", "neither an IPv4"),
        ("port = 2\n", "port = 255\n", "host client, port", "is the device's CPU port"),
        ("port = 2\n", "port = 600\n", "host client, port", "less than or equal to 510"),
        ('kind = "firewall"', 'kinds = "firewall"', "kinds", "no such key"),
        ('address = "127.0.0.1:9559"\n', "", "device nic1", "is missing"),
        (
            'address = "127.0.0.1:9559"',
            'address = "nowhere"',
            "device nic1, address",
            "ADDRESS:PORT",
        ),
        ("device_id = 1\n", "device_id = 0\n", "device nic1, device_id", "greater than or equal"),
        ('via = "10.0.1.1"', 'via = "fd00::1"', "route[0]", "not of the address family"),
        ('via = "10.0.1.1"', 'via = "10.0.1.1"\n  mac = "02:00:00:00:00:01"', "route", "not both"),
        ('prefix = "0.0.0.0/0"', 'prefix = "10.0.0.1/8"', "prefix", "host bits set"),
        ("uplink = 1 }", "uplink = 2 }", "device nic1", "uplink 2 is no network port"),
        ("network_ports = [1]", "network_ports = [1, 2]", "device nic1", "port 2 is given 2 times"),
        ("network_ports = [1]", "network_ports = [5]", "device nic1", "port 1 is no network port"),
        ('name = "fw"', 'name = "client"', "", "host or peer client is given 2 times"),
        ('name = "fw"', 'name = "1fw"', "name", "match pattern"),
        ('["10.0.5.2"]', '["10.0.1.2"]', "", "address 10.0.1.2 is given 2 times"),
        ("id = 7\n", "id = 7\n  port = 9\n", "host fw", "either interfaces or port"),
        ('name = "demo"', "nome = 3", "group", "no such key"),
        ('listen = "127.0.0.1:8700"', 'listen = "8700"', "daemon, listen", "ADDRESS:PORT"),
        ('listen = "127.0.0.1:8700"', 'listen = "unix:"', "daemon, listen", "unix:/path"),
        ('address = "127.0.0.1:9559"', 'address = "127.0.0.1"', "nic1, address", "ADDRESS:PORT"),
        ('address = "127.0.0.1:9559"', 'address = "h:99999"', "nic1, address", "ADDRESS:PORT"),
    ],
)
def test_errors_name_line_key_and_reason(
    tmp_path: Path, old: str, new: str, where: str, what: str
) -> None:
    whole = HEAD + NIC
    assert old in whole
    text = whole.replace(old, new, 1)
    told = refused(tmp_path, text)
    (line,) = [line for line in told.splitlines() if what in line]
    assert line.startswith("dyscod.toml")
    assert where in line
    if where and new and line.count(":") > 2:
        number = int(line.split(":")[1])
        near = line_of(text, new.partition("\n")[0].strip())
        assert 0 <= near - number <= 16, "the line, or that of the section around it"


def test_every_error_has_its_line_and_all_are_told_at_once(tmp_path: Path) -> None:
    text = (HEAD + NIC).replace("02:00:00:00:01:02", "zz").replace('["10.0.5.2"]', '["x"]')
    first, second = refused(tmp_path, text).splitlines()
    assert first.startswith(f"dyscod.toml:{line_of(text, 'zz')}: device nic1, host client")
    line = line_of(text, '["x"]')
    assert second.startswith(f"dyscod.toml:{line}: peer server, addresses")


def test_settings_are_checked_by_name_and_by_sense(tmp_path: Path) -> None:
    told = refused(tmp_path, HEAD + "[settings]\nidle = 5\n")
    assert "no setting is named 'idle'; there are: first_port, last_port" in told
    told = refused(tmp_path, HEAD + "[settings]\nfirst_port = 70000\n")
    assert "port range 70000-65535: needs two ports" in told
    assert "mtu must be above 0" in refused(tmp_path, HEAD + "[settings]\nmtu = 0\n")
    assert "idle_timeout" in refused(tmp_path, HEAD + '[settings]\nidle_timeout = "long"\n')
    for value in ("nan", "inf"):
        told = refused(tmp_path, HEAD + f"[settings]\nport_quarantine = {value}\n")
        assert f"port_quarantine must be a number, not {value}" in told


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("[daemon\n", "at line 1"),
        ("a = 1\na = 2\n", "at line 2"),
        ("", "group: is missing"),
        ("group = 3\n", "group"),
        (HEAD + "[[peer]]\n", "peer[0], name: is missing"),
        (HEAD + 'device = "nic1"\n'.replace("device", "[x]\ny"), "x: no such key"),
    ],
)
def test_broken_files(tmp_path: Path, text: str, what: str) -> None:
    assert what in refused(tmp_path, text)


def test_files_that_can_t_be_read(tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"none\.toml: there is no such file; give another one with -c"
    ):
        load(tmp_path / "none.toml")
    binary = tmp_path / "binary.toml"
    binary.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match="is no text in UTF-8"):
        load(binary)


@pytest.mark.parametrize(
    ("key", "what"),
    [
        (None, "No such file"),
        ("zz" * 32, "is not 64 hex digits"),
        ("00" * 16, "has 16 bytes, not 32"),
        ("é", "is not 64 hex digits"),
    ],
)
def test_a_bad_key_tells_how_to_make_one(tmp_path: Path, key: str | None, what: str) -> None:
    config = read(tmp_path, HEAD)
    if key is not None:
        (tmp_path / "group.key").write_text(key)
    with pytest.raises(ConfigError, match=what) as error:
        load_key(config)
    assert "openssl rand -hex 32" in str(error.value)


def test_a_good_key(tmp_path: Path) -> None:
    config = read(tmp_path, HEAD)
    (tmp_path / "group.key").write_text("0f" * 32 + "\n")
    assert load_key(config) == b"\x0f" * 32
