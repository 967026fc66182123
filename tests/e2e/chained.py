"""Running networks for the end-to-end tests, and connections that a test drives by hand."""

from __future__ import annotations

import contextlib
import os
import socket
import struct
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dysco.agent.model import FiveTuple
from dysco.topo import boxes, traffic
from dysco.topo.controller import Controller, HostState, group_key
from dysco.topo.devices import Device, Target, start_devices
from dysco.topo.namespace import Namespace
from dysco.topo.packets import Flags
from dysco.topo.spec import HOST_IFNAME, HostSpec, TopologySpec
from dysco.topo.topology import Topology
from dysco.topo.waiting import wait_until

SIZE = 2_000_000

_PIECE = 32_768
"""Bytes that any socket takes although nobody reads at the other end yet."""

QUICK: dict[str, int | float] = {
    "closing_linger": 0.5,
    "reset_linger": 0.3,
    "pending_timeout": 1.5,
    "setup_timeout": 3.0,
    "port_quarantine": 1.0,
}
"""Settings under which sessions that ended are gone at once."""


@dataclass(frozen=True)
class PolicyArgs:
    """A policy to load."""

    match: str
    chain: tuple[str, ...]
    options: tuple[str, ...] = ()


@dataclass
class Network:
    """A topology with devices, boxes, a web server and one or more `dyscod`."""

    topology: Topology
    devices: Mapping[str, Device]
    controllers: list[Controller]
    directory: Path
    web: traffic.WebServer
    sha256: str = ""

    @property
    def controller(self) -> Controller:
        """The first, or only one."""
        return self.controllers[0]

    def host(self, name: str) -> Namespace:
        """A host's namespace."""
        return self.topology.hosts[name]

    def address(self, name: str, version: int = 4) -> str:
        """A host's address."""
        host = self.topology.spec.host(name)
        return str(host.ipv4 if version == 4 else host.ipv6)

    def url(self, port: int, version: int, path: str, server: str = "server") -> str:
        """Of something at the server."""
        address = self.address(server, version)
        return f"http://{address if version == 4 else f'[{address}]'}:{port}/{path}"

    def fetch(
        self,
        port: int = 80,
        version: int = 4,
        *,
        path: str = "file",
        client: str = "client",
        options: tuple[str, ...] = (),
        seconds: int = 15,
    ) -> traffic.Download:
        """Download with curl."""
        url = self.url(port, version, path)
        file = self.directory / "got"
        file.unlink(missing_ok=True)
        return traffic.download(self.host(client), url, file, options=options, seconds=seconds)

    def works(self, port: int = 80, version: int = 4, client: str = "client") -> bool:
        """True if a new session carries the file."""
        got = self.fetch(port, version, client=client)
        return (got.status, got.sha256) == (200, self.sha256)

    def who(self, port: int, version: int = 4, client: str = "client") -> str:
        """As whom the server sees a client."""
        self.fetch(port, version, path="who", client=client)
        return (self.directory / "got").read_text().strip()

    def counted(self, host: str, counter: str) -> int:
        """What a host's agent counted."""
        for controller in self.controllers:
            with controller.api() as client:
                found = client.get("v1", "counters")["hosts"]
            if host in found:
                return int(found[host].get(counter, 0))
        raise KeyError(host)

    def wait_counted(self, host: str, counter: str, more_than: int) -> None:
        """Until a host's agent counted more than that."""
        what = f"{host} to count {counter}"
        wait_until(lambda: self.counted(host, counter) > more_than, what, every=0.1)

    def log(self) -> str:
        """What all `dyscod` logged so far."""
        return "".join(c.process.log.read_text() for c in self.controllers)

    def entries(self) -> dict[str, int]:
        """Session entries, by device."""
        return {
            device: entries
            for controller in self.controllers
            for device, entries in controller.entries().items()
        }

    def sessions(self) -> list[dict[str, Any]]:
        """Listed sessions, at each `dyscod`."""
        return [session for controller in self.controllers for session in controller.sessions()]

    def wait_empty(self, seconds: float = 10.0) -> None:
        """Until no session is listed and no device has an entry."""

        def empty() -> bool:
            return not any(self.entries().values()) and not self.sessions()

        wait_until(empty, "all sessions to be gone", seconds, every=0.1)

    def dropped(self, box: str) -> int:
        """Packets that a middlebox dropped."""
        return boxes.counters(self.host(box)).dropped


OPENED: list[Conversation] = []
"""Those of the test that runs: what it leaves open is closed after it."""


class Conversation:
    """A TCP connection with both of its ends in this test."""

    def __init__(
        self,
        network: Network,
        port: int,
        version: int = 4,
        *,
        client: str = "client",
        server: str = "server",
        local_port: int = 0,
        seconds: float = 8.0,
        isns: tuple[int, int] | None = None,
    ) -> None:
        """Connect. Raises OSError as connect() does.

        `isns`: the initial sequence numbers of client and server, with a `local_port`, over IPv4.
        """
        family = socket.AF_INET if version == 4 else socket.AF_INET6
        with network.host(server).entered():
            listener = socket.socket(family)
        with network.host(client).entered():
            self.client = socket.socket(family)
        OPENED.append(self)
        self.server: socket.socket | None = None
        with listener:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(("", port))
            listener.listen()
            listener.settimeout(seconds)
            self.client.settimeout(seconds)
            if local_port:
                self.client.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                self.client.bind((network.address(client, version), local_port))
            if isns is not None:
                prepare(network, (client, local_port), (server, port), isns)
                set_isn(self.client, isns[0])
            self.client.connect((network.address(server, version), port))
            self.server, self.server_sees = listener.accept()
            self.server.settimeout(seconds)

    @property
    def local_port(self) -> int:
        """The client's."""
        return int(self.client.getsockname()[1])

    def exchange(self, size: int = 1000) -> None:
        """Random bytes there and other ones back; an AssertionError if they are not the same."""
        assert self.server is not None
        for sender, receiver in ((self.client, self.server), (self.server, self.client)):
            for start in range(0, size, _PIECE):
                sent = os.urandom(min(_PIECE, size - start))
                sender.sendall(sent)
                assert _receive(receiver, len(sent)) == sent

    def finish(self) -> None:
        """FIN both ways."""
        assert self.server is not None
        self.client.shutdown(socket.SHUT_WR)
        assert self.server.recv(1) == b""
        self.server.shutdown(socket.SHUT_WR)
        assert self.client.recv(1) == b""
        self.close()

    def reset(self, *, by_server: bool = False) -> None:
        """RST by the client, or by the server."""
        self.abort(by_server=by_server)
        self.see_reset(by_server=by_server)

    def ends(self, *, by_server: bool) -> tuple[socket.socket, socket.socket]:
        """The end that does something, and the other one."""
        assert self.server is not None
        return (self.server, self.client) if by_server else (self.client, self.server)

    def abort(self, *, by_server: bool) -> None:
        """RST, which may be on its way for a while."""
        first, _ = self.ends(by_server=by_server)
        first.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        first.close()

    def see_reset(self, *, by_server: bool) -> None:
        """The RST of one end has come to the other."""
        _, other = self.ends(by_server=by_server)
        with contextlib.suppress(ConnectionResetError):
            assert other.recv(1) != b"", "a FIN came instead of a RST"

    def close(self) -> None:
        """Let go of both ends."""
        self.client.close()
        if self.server is not None:
            self.server.close()


_REPAIR, _REPAIR_QUEUE, _QUEUE_SEQ, _REPAIR_WINDOW = 19, 20, 21, 29
"""Options of TCP, by linux/tcp.h."""
_RECEIVES, _SENDS = 1, 2
_MODULUS = 1 << 32
_PAST_TIME_WAIT = 65538
"""A SYN that finds a TIME_WAIT is answered by a number so far past its last: Linux, RFC 6191."""


def set_isn(end: socket.socket, isn: int) -> None:
    """The initial sequence number of a socket that is yet to connect."""
    end.setsockopt(socket.IPPROTO_TCP, _REPAIR, 1)
    _set_next(end, _SENDS, isn)
    _end_repair(end)


def prepare(
    network: Network, client: tuple[str, int], server: tuple[str, int], isns: tuple[int, int]
) -> None:
    """Let the server's next answer to this client begin with a number: by a TIME_WAIT."""
    sent, received = isns[1] - _PAST_TIME_WAIT, isns[0] - 100_000
    ends = [(name, (network.address(name), port)) for name, port in (server, client)]
    pair = []
    for index, (mine, other) in enumerate(((sent, received), (received, sent))):
        (name, me), (_, peer) = ends[index], ends[1 - index]
        with network.host(name).entered():
            end = socket.socket()
        end.setsockopt(socket.IPPROTO_TCP, _REPAIR, 1)
        end.bind(me)
        _set_next(end, _SENDS, mine)
        _set_next(end, _RECEIVES, other)
        end.connect(peer)
        first = other % _MODULUS
        window = struct.pack("5I", first, 65535, 65535, 65535, first)
        end.setsockopt(socket.IPPROTO_TCP, _REPAIR_WINDOW, window)
        end.settimeout(5.0)
        pair.append(end)
    for end in pair:
        _end_repair(end)
    pair[0].close()
    assert pair[1].recv(1) == b""
    pair[1].close()
    state = ["ss", "-Htan", "state", "time-wait", f"dport = :{client[1]}"]
    wait_until(lambda: bool(network.host(server[0]).run(state).strip()), "a TIME_WAIT", 5.0)


def _set_next(end: socket.socket, queue: int, number: int) -> None:
    end.setsockopt(socket.IPPROTO_TCP, _REPAIR_QUEUE, queue)
    end.setsockopt(socket.IPPROTO_TCP, _QUEUE_SEQ, struct.pack("I", number % _MODULUS))


def _end_repair(end: socket.socket) -> None:
    end.setsockopt(socket.IPPROTO_TCP, _REPAIR, -1)
    end.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)


def connect(
    network: Network, port: int, version: int = 4, *, client: str = "client", seconds: float = 8.0
) -> None:
    """Connect to the server and close again. Raises OSError as connect() does."""
    with network.host(client).entered():
        opened = socket.socket(socket.AF_INET if version == 4 else socket.AF_INET6)
    with opened:
        opened.settimeout(seconds)
        opened.connect((network.address("server", version), port))


def _receive(receiver: socket.socket, size: int) -> bytes:
    received = bytearray()
    while len(received) < size:
        part = receiver.recv(size - len(received))
        assert part, f"the connection ended after {len(received)} of {size} bytes"
        received += part
    return bytes(received)


@contextmanager
def running(
    spec: TopologySpec,
    directory: Path,
    policies: Sequence[PolicyArgs],
    *,
    settings: Mapping[str, int | float] | None = None,
    daemons: Sequence[Sequence[str]] = (),
    web: tuple[int, ...] = (80, 8080),
    server: str = "server",
    pipeline: Path | None = None,
    states: Callable[[Topology], Mapping[str, HostState]] | None = None,
) -> Iterator[Network]:
    """A network with its policies loaded; `daemons`: the devices of each `dyscod`.

    `states` says of a topology how its hosts' own state of a session is got at.
    TARGET in the environment says what runs the P4 program: softnic, or bmv2.
    """
    target = Target(os.environ.get("TARGET", Target.SOFTNIC.value))
    with Topology(spec, directory, offloads=target.offloads) as topology:
        boxes.set_up_boxes(topology, (*range(80, 100), 8080))
        nginx = traffic.WebServer(topology.hosts[server], directory / "nginx", web)
        devices = start_devices(topology, target)
        key = group_key()
        controllers = []
        for number, names in enumerate(daemons or [list(devices)]):
            own = {name: devices[name] for name in names}
            controller = Controller(
                topology,
                own,
                key,
                number=number,
                settings={**QUICK, **(settings or {})},
                pipeline=pipeline,
                states=states(topology) if states is not None else {},
            )
            controller.launch()
            controllers.append(controller)
        for controller in controllers:
            controller.wait_ready()
            for policy in policies:
                controller.add_policy(policy.match, policy.chain, policy.options)
        network = Network(topology, devices, controllers, directory, nginx)
        network.sha256 = nginx.publish("file", os.urandom(SIZE))
        yield network


def raw_socket(namespace: Namespace, ifname: str = HOST_IFNAME) -> socket.socket:
    """For whole frames, on an interface."""
    with namespace.entered():
        raw = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
    raw.bind((ifname, 0))
    return raw


@contextmanager
def nft(namespace: Namespace, hook: str, rule: str) -> Iterator[None]:
    """A rule in a host's netfilter for the length of a `with`."""
    table = f"test{time.monotonic_ns()}"
    head = f"type filter hook {hook} priority -300;"
    text = f"table inet {table} {{\n chain c {{\n {head}\n {rule}\n }}\n}}\n"
    namespace.run(["nft", "-f", "-"], stdin=text)
    try:
        yield
    finally:
        namespace.run(["nft", "delete", "table", "inet", table])


def box(name: str, subnet: int, kind: str | None = None, device: str | None = None) -> HostSpec:
    """A host behind a device of its own unless another one is named."""
    return HostSpec(name, subnet, kind, device=device or f"nic{subnet}")


__all__ = [
    "OPENED",
    "QUICK",
    "SIZE",
    "Conversation",
    "FiveTuple",
    "Flags",
    "Network",
    "PolicyArgs",
    "box",
    "nft",
    "raw_socket",
    "running",
]
