"""The configuration of `dyscod`: a TOML file, checked whole before anything starts.

    [daemon]                where the API listens, where policies are kept
    [group]                 the trust group's name and key
    [settings]              overrides of the agents' settings
    [[device]]              a P4 device,
      [[device.host]]         the hosts behind it,
        [device.host.state]     how their own state of a session is got at,
      [[device.route]]        and how it reaches other hosts
    [[peer]]                hosts of the group behind other daemons' devices

Every error names the file, the line and the key.
"""

from __future__ import annotations

import logging
import tomllib
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import fields
from ipaddress import (
    IPv4Address,
    IPv4Network,
    IPv6Address,
    IPv6Network,
    ip_address,
    ip_network,
)
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    TypeAdapter,
    ValidationError,
    field_validator,
    model_validator,
)

from dysco.agent.events import StateVerb
from dysco.agent.model import Address, Host, Interface, Peer
from dysco.agent.settings import Settings
from dysco.controller import toml_lines

log = logging.getLogger(__name__)

CPU_PORT = 255
NO_UPLINK = 511
"""v1model's drop port: a device without network ports has nowhere else to send."""


class ConfigError(ValueError):
    """The configuration can't be used; one line for each thing that is wrong."""


def parse_mac(value: object) -> bytes:
    """Six bytes of a MAC address written as 02:00:00:00:01:02."""
    if isinstance(value, bytes) and len(value) == 6:
        return value
    parts = value.split(":") if isinstance(value, str) else []
    try:
        mac = bytes(int(part, 16) for part in parts if len(part) == 2)
    except ValueError:
        mac = b""
    if len(mac) != 6 or len(parts) != 6:
        raise ValueError("a MAC address is six pairs of hex digits, like 02:00:00:00:01:02")
    if mac[0] & 1:
        raise ValueError("a multicast MAC address can't belong to one host")
    return mac


def endpoint(text: str) -> tuple[str, int] | Path:
    """Host and port, or the path of a Unix socket. Raises ValueError."""
    if text.startswith("unix:") and text != "unix:":
        return Path(text.removeprefix("unix:"))
    host, _, port = text.rpartition(":")
    if not host or not port.isdecimal() or int(port) > 65535:
        raise ValueError('write "ADDRESS:PORT" or "unix:/path/to/socket"')
    return host.strip("[]"), int(port)


def _parse_prefix(value: object) -> IPv4Network | IPv6Network:
    if isinstance(value, IPv4Network | IPv6Network):
        return value
    if not isinstance(value, str):
        raise ValueError('a prefix is written like "10.0.0.0/8" or "fd00::/8"')
    return ip_network(value, strict=True)


def _parse_address(value: object) -> Address:
    if isinstance(value, IPv4Address | IPv6Address):
        return value
    try:
        return ip_address(str(value))
    except ValueError:
        raise ValueError(f"{value!r} is neither an IPv4 nor an IPv6 address") from None


def _no_text(value: object) -> object:
    if isinstance(value, str):
        raise ValueError("write a list: the command and its arguments; no shell takes it apart")
    return value


IpAddress = Annotated[Address, BeforeValidator(_parse_address)]
Mac = Annotated[bytes, BeforeValidator(parse_mac)]
Prefix = Annotated[IPv4Network | IPv6Network, BeforeValidator(_parse_prefix)]
Port = Annotated[int, Field(ge=0, le=510)]
Name = Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9_.-]{0,62}$")]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)


class DaemonConfig(_Section):
    """`[daemon]`."""

    listen: str = "127.0.0.1:8700"
    state: Path = Path("dyscod.sqlite")
    log_level: Literal["debug", "info", "warning", "error"] = "info"

    @field_validator("listen")
    @classmethod
    def _check_listen(cls, value: str) -> str:
        endpoint(value)
        return value

    @property
    def endpoint(self) -> tuple[str, int] | Path:
        """Where to listen: an address and port, or the path of a Unix socket."""
        return endpoint(self.listen)


class GroupConfig(_Section):
    """`[group]`."""

    name: Name
    key_file: Path


class InterfaceConfig(_Section):
    """One element of `interfaces`."""

    port: Port
    mac: Mac
    addresses: tuple[IpAddress, ...] = Field(min_length=1)
    uplink: Port | None = None

    @field_validator("port")
    @classmethod
    def _not_cpu(cls, value: int) -> int:
        if value == CPU_PORT:
            raise ValueError(f"port {CPU_PORT} is the device's CPU port")
        return value


def _parse_helper(value: object) -> tuple[str, ...] | Path:
    if isinstance(value, Path):
        return value
    if isinstance(value, str) and value.startswith("unix:") and value != "unix:":
        return Path(value.removeprefix("unix:"))
    if isinstance(value, str):
        raise ValueError('write "unix:/path/to/socket", or a list: the command and its arguments')
    return _ARGV.validate_python(value)


Argv = Annotated[
    tuple[Annotated[str, Field(min_length=1)], ...], Field(min_length=1), BeforeValidator(_no_text)
]
"""A command and its arguments; no shell sees them."""
_ARGV: TypeAdapter[tuple[str, ...]] = TypeAdapter(Argv)


class StateConfig(_Section):
    """`[device.host.state]`: how the host's own state of a session is got at."""

    export: Argv | None = None
    import_: Argv | None = Field(None, alias="import")
    resume: Argv | None = None
    drop: Argv | None = None
    helper: Annotated[tuple[str, ...] | Path, BeforeValidator(_parse_helper)] | None = None
    timeout: float = Field(default=2.0, gt=0, le=60)

    @model_validator(mode="after")
    def _check(self) -> Self:
        commands = [verb.value for verb in StateVerb if self.command(verb) is not None]
        if (self.helper is None) == (not commands):
            raise ValueError("give either a helper, or commands: export, import, resume, drop")
        if StateVerb.DROP.value not in commands and self.helper is None:
            raise ValueError("drop is missing: what was copied must be forgotten on one side")
        return self

    def command(self, verb: StateVerb) -> tuple[str, ...] | None:
        """What is run for a verb."""
        match verb:
            case StateVerb.EXPORT:
                return self.export
            case StateVerb.IMPORT:
                return self.import_
            case StateVerb.RESUME:
                return self.resume
            case StateVerb.DROP:
                return self.drop

    def has(self, verb: StateVerb) -> bool:
        """True if a call of this verb can be carried out."""
        return self.helper is not None or self.command(verb) is not None


class HostConfig(_Section):
    """`[[device.host]]`: with `interfaces`, or with port, mac and addresses of its only one."""

    name: Name
    kind: Name | None = None
    id: int = Field(default=0, ge=0, le=65535)
    interfaces: tuple[InterfaceConfig, ...] = Field(min_length=1)
    state: StateConfig | None = None
    changes_stream: bool = False
    ends_connections: bool = False

    @model_validator(mode="after")
    def _only_boxes_change(self) -> Self:
        if self.changes_stream and self.kind is None:
            raise ValueError("changes_stream: an end host changes nothing of what others send")
        if self.ends_connections and self.kind is None:
            raise ValueError("ends_connections: is said of middleboxes; an end host always does")
        return self

    @model_validator(mode="before")
    @classmethod
    def _short_form(cls, value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        short = {key: value[key] for key in ("port", "mac", "addresses", "uplink") if key in value}
        if not short:
            return value
        if "interfaces" in value:
            raise ValueError(f"give either interfaces or {', '.join(short)}, not both")
        rest = {key: item for key, item in value.items() if key not in short}
        return {**rest, "interfaces": [short]}

    @property
    def host_id(self) -> int:
        """As given, or made from the name: the same however the file is edited."""
        return self.id or 1 + zlib.crc32(self.name.encode()) % 65535

    @property
    def addresses(self) -> tuple[Address, ...]:
        """Of all interfaces."""
        return tuple(a for i in self.interfaces for a in i.addresses)

    def host(self) -> Host:
        """What the agent is told."""
        return Host(
            self.host_id,
            self.name,
            self.kind,
            tuple(Interface(i.port, i.mac, i.addresses) for i in self.interfaces),
            self.changes_stream,
        )


class RouteConfig(_Section):
    """`[[device.route]]`; with neither `via` nor `mac`, hosts in `prefix` are on the link."""

    prefix: Prefix
    port: Port
    via: IpAddress | None = None
    mac: Mac | None = None

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.via is not None and self.mac is not None:
            raise ValueError("give either via or mac, not both")
        if self.via is not None and self.via.version != self.prefix.version:
            raise ValueError(f"via {self.via} is not of the address family of {self.prefix}")
        return self


class DeviceConfig(_Section):
    """`[[device]]`."""

    name: Name
    address: str
    device_id: int = Field(default=1, ge=1, lt=2**64)
    network_ports: tuple[Port, ...] = ()
    hosts: tuple[HostConfig, ...] = Field(default=(), alias="host")
    routes: tuple[RouteConfig, ...] = Field(default=(), alias="route")

    @field_validator("address")
    @classmethod
    def _check_address(cls, value: str) -> str:
        endpoint(value)
        return value

    @model_validator(mode="after")
    def _check(self) -> Self:
        host_ports = [i.port for h in self.hosts for i in h.interfaces]
        _no_twice("port", [*self.network_ports, *host_ports])
        _no_twice("host id (give one of them an id)", [h.host_id for h in self.hosts])
        for route in self.routes:
            if route.port not in self.network_ports:
                raise ValueError(f"route {route.prefix}: port {route.port} is no network port")
        for host in self.hosts:
            for uplink in (i.uplink for i in host.interfaces if i.uplink is not None):
                if uplink not in self.network_ports:
                    raise ValueError(f"host {host.name}: uplink {uplink} is no network port")
        return self

    @property
    def default_uplink(self) -> int:
        """Where hosts' traffic leaves that is for no host of this device."""
        return self.network_ports[0] if self.network_ports else NO_UPLINK

    @property
    def ports(self) -> tuple[int, ...]:
        """All of them, in order."""
        return tuple(
            sorted({*self.network_ports, *(i.port for h in self.hosts for i in h.interfaces)})
        )


class PeerConfig(_Section):
    """`[[peer]]`."""

    name: Name
    kind: Name | None = None
    addresses: tuple[IpAddress, ...] = Field(min_length=1)
    ends_connections: bool = False


def _check_settings(value: object) -> Settings:
    if isinstance(value, Settings):
        return value
    known = [field.name for field in fields(Settings)]
    for name in value if isinstance(value, dict) else ():
        if name not in known:
            raise ValueError(f"no setting is named {name!r}; there are: {', '.join(known)}")
    return _SETTINGS.validate_python(value)


_SETTINGS: TypeAdapter[Settings] = TypeAdapter(Settings)


class Config(_Section):
    """The whole file."""

    daemon: DaemonConfig = DaemonConfig()
    group: GroupConfig
    settings: Annotated[Settings, BeforeValidator(_check_settings)] = Settings()
    devices: tuple[DeviceConfig, ...] = Field(default=(), alias="device")
    peers: tuple[PeerConfig, ...] = Field(default=(), alias="peer")

    @model_validator(mode="after")
    def _check(self) -> Self:
        hosts = [h for d in self.devices for h in d.hosts]
        _no_twice("device", [d.name for d in self.devices])
        _no_twice("P4Runtime device", [f"{d.address} id {d.device_id}" for d in self.devices])
        _no_twice("host or peer", [*(h.name for h in hosts), *(p.name for p in self.peers)])
        _no_twice("MAC address", [i.mac.hex(":") for h in hosts for i in h.interfaces])
        _no_twice(
            "address",
            [
                *(a for h in hosts for a in h.addresses),
                *(a for p in self.peers for a in p.addresses),
            ],
        )
        return self

    def all_peers(self) -> tuple[Peer, ...]:
        """Every host that a chain may name: those of our devices and the `[[peer]]`s."""
        return (
            *(
                Peer(h.name, h.kind, h.addresses, h.ends_connections)
                for d in self.devices
                for h in d.hosts
            ),
            *(Peer(p.name, p.kind, p.addresses, p.ends_connections) for p in self.peers),
        )


def _no_twice(what: str, values: Iterable[object]) -> None:
    for value, times in Counter(values).items():
        if times > 1:
            raise ValueError(f"{what} {value} is given {times} times")


def load(path: Path) -> Config:
    """Read and check a configuration file; paths in it become relative to it.

    Raises ConfigError with one line for every error.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise ConfigError(f"{path}: there is no such file; give another one with -c") from error
    except OSError as error:
        raise ConfigError(f"{path}: can't be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: is no text in UTF-8: {error.reason}") from error
    try:
        tree = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path}: {error}") from error
    try:
        config = Config.model_validate(tree)
    except ValidationError as error:
        raise ConfigError("\n".join(_explain(path, text, tree, error))) from error
    return _absolute(config, path.parent)


def _absolute(config: Config, folder: Path) -> Config:
    def state(host: HostConfig) -> StateConfig | None:
        if host.state is None or not isinstance(host.state.helper, Path):
            return host.state
        return host.state.model_copy(update={"helper": folder / host.state.helper})

    def device(given: DeviceConfig) -> DeviceConfig:
        hosts = tuple(h.model_copy(update={"state": state(h)}) for h in given.hosts)
        return given.model_copy(update={"hosts": hosts})

    return config.model_copy(
        update={
            "devices": tuple(map(device, config.devices)),
            "daemon": config.daemon.model_copy(update={"state": folder / config.daemon.state}),
            "group": config.group.model_copy(update={"key_file": folder / config.group.key_file}),
        }
    )


def _explain(path: Path, text: str, tree: dict[str, Any], error: ValidationError) -> Iterator[str]:
    lines = toml_lines.index(text)
    faults = error.errors(include_url=False)
    for item in faults:
        # A list whose elements are all refused is not short: the elements' errors say it all.
        within = (other for other in faults if other is not item)
        if any(other["loc"][: len(item["loc"])] == item["loc"] for other in within):
            continue
        place = _place(tree, item["loc"])
        line = toml_lines.locate(lines, place)
        what = item["msg"].removeprefix("Value error, ")
        if item["type"] in ("extra_forbidden", "unexpected_keyword_argument"):
            what = "no such key"
        elif item["type"] == "missing":
            what = "is missing"
        where = f"{path}:{line}" if line else f"{path}"
        yield ": ".join(filter(None, (where, _dotted(tree, place), what)))


def _place(tree: Any, location: tuple[str | int, ...]) -> tuple[str | int, ...]:
    """The part of a pydantic location that names keys of the file, not types of a union."""
    place: list[str | int] = []
    for step, part in enumerate(location):
        inside = _item(tree, part)
        if inside is not None:
            tree = inside
        elif isinstance(tree, dict) and isinstance(part, str) and step == len(location) - 1:
            place.append(part)
            break
        else:
            continue
        place.append(part)
    return tuple(place)


def _dotted(tree: Any, place: tuple[str | int, ...]) -> str:
    """`device nic1, host client, mac`: sections by their names where they have one."""
    words: list[str] = []
    for part in place:
        tree = _item(tree, part)
        if isinstance(part, str):
            words.append(part)
        else:
            name = tree.get("name") if isinstance(tree, dict) else None
            words[-1] += f" {name}" if isinstance(name, str) else f"[{part}]"
    return ", ".join(words)


def _item(tree: Any, part: str | int) -> Any:
    if isinstance(tree, dict):
        return tree.get(part)
    if isinstance(tree, list) and isinstance(part, int) and part < len(tree):
        return tree[part]
    return None


def load_key(config: Config) -> bytes:
    """The trust group's key: 64 hex digits in a file. Raises ConfigError."""
    path = config.group.key_file
    hint = f"make one with: openssl rand -hex 32 > {path} && chmod 600 {path}"
    try:
        text = path.read_text(encoding="ascii").strip()
        key = bytes.fromhex(text)
        if path.stat().st_mode & 0o077:
            log.warning("%s: others can read the group's key: chmod 600 %s", path, path)
    except OSError as error:
        raise ConfigError(
            f"{path}: the group's key can't be read: {error.strerror}; {hint}"
        ) from error
    except ValueError as error:
        raise ConfigError(f"{path}: the group's key is not 64 hex digits; {hint}") from error
    if len(key) != 32:
        raise ConfigError(f"{path}: the group's key has {len(key)} bytes, not 32; {hint}")
    return key
