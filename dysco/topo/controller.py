"""Dysco on a topology: `dyscod` with a configuration made from the spec, and `dysco-ctl`."""

from __future__ import annotations

import json
import os
import secrets
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from dysco.controller.client import Client
from dysco.topo.devices import Device, can_connect, tool_path
from dysco.topo.namespace import Namespace
from dysco.topo.process import Process, ProcessError
from dysco.topo.spec import NETWORK_PORT, HostSpec, TopologySpec
from dysco.topo.topology import Topology
from dysco.topo.waiting import DeadlineError, wait_until

_FIRST_API_PORT = 8700
_MAX_LISTED = 1000
_READY_SECONDS = 60.0
"""The first start on a machine compiles the P4 program for softnic."""


HostState = Mapping[str, str | float | Sequence[str]]
"""Keys of a host's `[device.host.state]`."""


def conntrack_helper(namespace: Namespace) -> HostState:
    """For a box in a namespace, as long as this process holds it."""
    netns = f"--net=/proc/{os.getpid()}/fd/{namespace.fd}"
    return {
        "helper": ["nsenter", netns, sys.executable, "-m", "dysco.state.conntrack", "serve"],
    }


def group_key() -> str:
    """A new key of a trust group."""
    return secrets.token_hex(32)


class Controller:
    """A `dyscod` for some or all of a topology's devices; hosts on others are its peers."""

    def __init__(
        self,
        topology: Topology,
        devices: Mapping[str, Device],
        key: str,
        *,
        number: int = 0,
        settings: Mapping[str, int | float] | None = None,
        pipeline: Path | None = None,
        states: Mapping[str, HostState] | None = None,
    ) -> None:
        """Write its configuration; `number` tells apart several on one topology.

        `states`, by host: how its own state of a session is got at.
        `pipeline` is a folder with another P4 program than the one that comes with `dyscod`.
        """
        self.name = f"dyscod{number or ''}"
        self._topology = topology
        self._devices = devices
        self._api = f"127.0.0.1:{_FIRST_API_PORT + number}"
        directory = topology.directory / self.name
        directory.mkdir(parents=True, exist_ok=True)
        for old in directory.glob("dyscod.sqlite*"):
            old.unlink()
        key_file = directory / "group.key"
        key_file.touch(mode=0o600)
        key_file.write_text(key + "\n")
        self._config = directory / "dyscod.toml"
        text = config_text(topology.spec, devices, self._api, settings or {}, states or {})
        self._config.write_text(text)
        self._arguments = [] if pipeline is None else ["--pipeline", str(pipeline)]
        self._process: Process | None = None

    @property
    def process(self) -> Process:
        """The running daemon. Raises ProcessError if it was not started."""
        if self._process is None:
            raise ProcessError(f"{self.name} isn't started")
        return self._process

    @property
    def url(self) -> str:
        """Of its API, in the topology's namespace `devices`."""
        return f"http://{self._api}"

    def start(self) -> None:
        """Start it and wait until all its devices are ready. Raises ProcessError."""
        self.launch()
        self.wait_ready()

    def launch(self) -> None:
        """Start it. Raises ProcessError."""
        program = tool_path("dyscod")
        if program is None:
            raise ProcessError("dyscod isn't installed")
        argv = [program, "--config", str(self._config), *self._arguments]
        self._process = self._topology.devices.start(self.name, argv)

    def wait_ready(self) -> None:
        """Wait until it answers and all its devices are ready. Raises ProcessError."""
        self.process.wait_ready(
            lambda: can_connect(self._topology.devices, self._api),
            f"its API answered at {self._api}",
            _READY_SECONDS,
        )
        self.process.wait_ready(self._devices_ready, "its devices were ready", _READY_SECONDS)

    def ctl(self, *arguments: str, seconds: float = 20.0, check: bool = True) -> Any:
        """Run `dysco-ctl -o json` with these arguments; what it printed. Raises ProcessError.

        With `check` unset an exit code other than 0 is no error.
        """
        program = tool_path("dysco-ctl")
        if program is None:
            raise ProcessError("dysco-ctl isn't installed")
        argv = [program, "--server", self.url, "-o", "json", *arguments]
        out = self._topology.devices.run(argv, seconds=seconds, check=check)
        return json.loads(out) if out.strip() else None

    def add_policy(self, match: str, chain: Sequence[str], options: Sequence[str] = ()) -> Any:
        """Load a policy with `dysco-ctl` and more `options`; what that answered."""
        return self.ctl("policy", "add", "--match", match, "--chain", ",".join(chain), *options)

    @contextmanager
    def api(self) -> Iterator[Client]:
        """Ask its API without starting a program: for who asks often."""
        with self._topology.devices.entered():
            yield Client(self._api)

    def sessions(self) -> list[dict[str, Any]]:
        """The sessions that it lists, the youngest first."""
        with self.api() as client:
            return list(client.get("v1", "sessions", limit=_MAX_LISTED)["sessions"])

    def entries(self) -> dict[str, int]:
        """Session entries in each of its devices."""
        with self.api() as client:
            return {d["name"]: int(d["entries"]) for d in client.get("v1", "devices")}

    def wait_no_sessions(self, seconds: float) -> bool:
        """True once no session is listed; False if some still are after `seconds`."""
        try:
            wait_until(lambda: not self.sessions(), "sessions to be gone", seconds, every=0.1)
        except DeadlineError:
            return False
        return True

    def _devices_ready(self) -> bool:
        with self.api() as client:
            devices = client.get("v1", "devices")
        return len(devices) == len(self._devices) and all(d["ready"] for d in devices)


def config_text(
    spec: TopologySpec,
    devices: Mapping[str, Device],
    api: str,
    settings: Mapping[str, int | float],
    states: Mapping[str, HostState],
) -> str:
    """The TOML file that tells a `dyscod` about these devices and, as peers, about the others."""
    return "\n".join(_config_lines(spec, devices, api, settings, states)) + "\n"


def _config_lines(
    spec: TopologySpec,
    devices: Mapping[str, Device],
    api: str,
    settings: Mapping[str, int | float],
    states: Mapping[str, HostState],
) -> Iterator[str]:
    yield from ("[daemon]", f'listen = "{api}"', 'state = "dyscod.sqlite"', "")
    yield from ("[group]", 'name = "demo"', 'key_file = "group.key"', "")
    if settings:
        yield "[settings]"
        yield from (f"{key} = {value}" for key, value in settings.items())
        yield ""
    for device in devices.values():
        yield from _device_lines(spec, device, states)
    for host in spec.hosts:
        if host.device is not None and host.device not in devices:
            yield from ("[[peer]]", *_name_lines(host), f"addresses = {_addresses(host)}", "")


def _device_lines(
    spec: TopologySpec, device: Device, states: Mapping[str, HostState]
) -> Iterator[str]:
    has_network = device.spec.router is not None
    yield "[[device]]"
    yield f'name = "{device.spec.name}"'
    yield f'address = "{device.grpc_address}"'
    yield f"device_id = {device.spec.id}"
    yield f"network_ports = [{NETWORK_PORT if has_network else ''}]"
    hosts = spec.hosts_on(device.spec.name)
    for host in hosts:
        yield from ("  [[device.host]]", *_indented(_name_lines(host)))
        yield f"  port = {spec.port_of(host)}"
        yield f'  mac = "{host.mac}"'
        yield f"  addresses = {_addresses(host)}"
        if host.kind == "proxy":
            yield "  ends_connections = true"
        if host.changes_stream:
            yield "  changes_stream = true"
        if host.name in states:
            yield "    [device.host.state]"
            yield from (f"    {k} = {json.dumps(v)}" for k, v in states[host.name].items())
    if has_network and hosts:
        for prefix, via in zip(("0.0.0.0/0", "::/0"), hosts[0].gateways, strict=True):
            yield from ("  [[device.route]]", f'  prefix = "{prefix}"')
            yield from (f"  port = {NETWORK_PORT}", f'  via = "{via}"')
    yield ""


def _name_lines(host: HostSpec) -> list[str]:
    lines = [f'name = "{host.name}"']
    if host.kind is not None:
        lines.append(f'kind = "{host.kind}"')
    return lines


def _indented(lines: Iterable[str]) -> Iterator[str]:
    return (f"  {line}" for line in lines)


def _addresses(host: HostSpec) -> str:
    return json.dumps([str(host.ipv4), str(host.ipv6)])
