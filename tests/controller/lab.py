"""A device with wires at its ports, and a `dyscod` for it: real processes, real frames.

test --frames--> veth -- port [softnic] <--P4Runtime--> dyscod (a process, or a Service here)

port 1  network: 02:00:00:00:00:fe is the router of all routes
port 2  client   10.0.1.2 fd00:1::2   02:00:00:00:01:02
port 3  fw       10.0.1.3 fd00:1::3   02:00:00:00:01:03   a firewall
"""

from __future__ import annotations

import os
import queue
import select
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import grpc
from finsy.proto import p4r, p4r_grpc

from dysco.agent.model import FiveTuple
from dysco.agent.packet import PacketError, Segment, parse
from dysco.controller.client import Client
from dysco.topo.links import End, connect
from dysco.topo.namespace import Namespace
from dysco.topo.waiting import wait_until

BIN = Path(sys.executable).parent
KEY = b"\x0f" * 32
ROUTER_MAC = bytes.fromhex("0200000000fe")
CLIENT_MAC = bytes.fromhex("020000000102")
FW_MAC = bytes.fromhex("020000000103")
NETWORK, CLIENT, FW = 1, 2, 3
CPU_PORT = 255
SECONDS = 20.0
"""Deadline of everything that is waited for."""
START_SECONDS = 60.0
"""The first start of a program on a machine compiles it."""

SETTINGS = {
    "closing_linger": 0.2,
    "reset_linger": 0.1,
    "port_quarantine": 1.0,
    "syn_spacing": 0.0,
    "pending_timeout": 1.0,
    "setup_timeout": 2.0,
}

CONFIG = """\
[daemon]
listen = "{listen}"
state = "{state}"

[group]
name = "lab"
key_file = "group.key"

[settings]
{settings}

[[device]]
name = "nic1"
address = "{address}"
device_id = {device_id}
network_ports = [1]
  [[device.host]]
  name = "client"
  port = 2
  mac = "02:00:00:00:01:02"
  addresses = ["10.0.1.2", "fd00:1::2"]
  [[device.host]]
  name = "fw"
  kind = "firewall"
  port = 3
  mac = "02:00:00:00:01:03"
  addresses = ["10.0.1.3", "fd00:1::3"]
{route}

[[peer]]
name = "server"
addresses = ["10.0.5.2", "fd00:5::2"]

[[peer]]
name = "scrub"
kind = "scrubber"
addresses = ["10.0.4.2", "fd00:4::2"]
"""

FIXED_ROUTE = """
  [[device.route]]
  prefix = "0.0.0.0/0"
  port = 1
  mac = "02:00:00:00:00:fe"
  [[device.route]]
  prefix = "::/0"
  port = 1
  mac = "02:00:00:00:00:fe"
"""


def ends(
    sport: int = 40000, dport: int = 80, src: str = "10.0.1.2", dst: str = "10.0.5.2"
) -> FiveTuple:
    return FiveTuple(ip_address(src), sport, ip_address(dst), dport)


@dataclass
class Running:
    """A process of ours."""

    process: subprocess.Popen[str]
    log: Path

    def text(self) -> str:
        return self.log.read_text(errors="replace")

    def wait_for(self, text: str, times: int = 1, seconds: float = SECONDS) -> None:
        def there() -> bool:
            if self.text().count(text) >= times:
                return True
            assert self.process.poll() is None, f"it ended:\n{self.text()}"
            return False

        wait_until(there, f"{text!r} in:\n{self.text()}", seconds)

    def stop(self) -> int:
        self.process.terminate()
        return self.process.wait(SECONDS)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(SECONDS)


@dataclass
class Lab:
    """Where it all happens."""

    directory: Path
    namespace: Namespace
    wires: dict[int, socket.socket] = field(default_factory=dict)
    device_id: int = 1
    running: list[Running] = field(default_factory=list)

    # Processes

    def start(self, name: str, *argv: str | Path, ready: str) -> Running:
        log = self.directory / f"{name}-{len(self.running)}.log"
        with log.open("w") as out, self.namespace.entered():
            process = subprocess.Popen(
                [str(a) for a in argv], stdout=out, stderr=subprocess.STDOUT, text=True
            )
        started = Running(process, log)
        self.running.append(started)
        started.wait_for(ready, seconds=START_SECONDS)
        return started

    def close(self) -> None:
        for running in reversed(self.running):
            if running.process.poll() is None:
                running.kill()
        self.running.clear()
        for wire in self.wires.values():
            wire.close()
        self.namespace.close()

    @property
    def device_address(self) -> str:
        return f"unix:{self.directory}/p4.sock"

    @property
    def api(self) -> str:
        return f"unix:{self.directory}/dyscod.sock"

    def softnic(self) -> Running:
        ports = [word for port in self.wires for word in ("-i", f"{port}@p{port}")]
        return self.start(
            "softnic",
            BIN / "softnic",
            "--no-p4",
            "--device-id",
            str(self.device_id),
            *ports,
            "--",
            "--cpu-port",
            str(CPU_PORT),
            "--grpc-server-addr",
            self.device_address,
            ready="serves P4Runtime",
        )

    def config(
        self,
        *,
        route: str = FIXED_ROUTE,
        edit: Callable[[str], str] = str,
        name: str = "dyscod",
        **settings: float,
    ) -> Path:
        """Write a configuration; `name` tells apart several daemons of one lab."""
        (self.directory / "group.key").write_text(KEY.hex())
        (self.directory / "group.key").chmod(0o600)
        path = self.directory / f"{name}.toml"
        lines = (f"{key} = {value}" for key, value in {**SETTINGS, **settings}.items())
        text = CONFIG.format(
            listen=f"unix:{self.directory}/{name}.sock",
            state=f"{name}.sqlite",
            settings="\n".join(lines),
            address=self.device_address,
            device_id=self.device_id,
            route=route,
        )
        path.write_text(edit(text))
        return path

    def dyscod(
        self, *options: str, name: str = "dyscod", ready: str = "dyscod is ready"
    ) -> Running:
        config = self.directory / f"{name}.toml"
        return self.start(name, BIN / "dyscod", "-c", config, *options, ready=ready)

    def ctl(self, *words: str, code: int = 0) -> str:
        """Run `dysco-ctl`; what it said, on both outputs."""
        return self.ctl_of("dyscod", *words, code=code)

    def ctl_of(self, name: str, *words: str, code: int = 0) -> str:
        """The same for the daemon of that name."""
        done = subprocess.run(
            [BIN / "dysco-ctl", "--server", f"unix:{self.directory}/{name}.sock", *words],
            capture_output=True,
            text=True,
            timeout=SECONDS,
            check=False,
        )
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout + done.stderr

    @property
    def client(self) -> Client:
        """The API, without a process for each question."""
        return Client(self.api)

    def sessions(self) -> dict[int, dict[str, Any]]:
        """The sessions by their source ports."""
        listed = self.client.get("v1", "sessions")["sessions"]
        return {s["session"]["sport"]: s for s in listed}

    def session(self, sport: int, state: str) -> dict[str, Any]:
        """The session with that source port, once it is in that state."""

        def there() -> bool:
            return self.sessions().get(sport, {}).get("state") == state

        wait_until(there, f"session {sport} to be {state}", SECONDS)
        return self.sessions()[sport]

    def gone(self, *sports: int) -> None:
        """Waits until these sessions are over."""
        wait_until(lambda: not set(sports) & set(self.sessions()), f"{sports} to be gone", SECONDS)

    def counter(self, group: str, name: str, counter: str) -> int:
        return int(self.client.get("v1", "counters")[group][name].get(counter, 0))

    def counted(self, host: str, counter: str, times: int = 1) -> None:
        """Waits until an agent has counted that."""
        wait_until(
            lambda: self.counter("hosts", host, counter) >= times, f"{counter} at {host}", SECONDS
        )

    # Frames

    def add_wire(self, port: int) -> None:
        mine, its = f"h{port}", f"p{port}"
        a = End(self.namespace, mine, f"02:00:00:00:ff:0{port}")
        connect(a, End(self.namespace, its, f"02:00:00:00:fe:0{port}"))
        with self.namespace.entered():
            wire = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
            wire.bind((mine, 0))
        wire.setblocking(False)
        self.wires[port] = wire

    def send(self, port: int, segment: Segment | bytes) -> None:
        frame = segment if isinstance(segment, bytes) else segment.build()
        self.wires[port].send(frame.ljust(60, b"\0"))

    def receive(
        self, port: int, wanted: Callable[[Segment], bool], seconds: float = SECONDS
    ) -> Segment:
        """The first segment that comes out of a port and is wanted."""
        seen = []
        for frame in self._frames(port, seconds):
            try:
                segment = parse(frame)
            except PacketError:
                continue
            if wanted(segment):
                return segment
            seen.append(f"{segment.tuple} flags {segment.flags:#x}")
        raise AssertionError(f"nothing of that kind came out of port {port}, but: {seen}")

    def receive_frame(self, port: int, wanted: Callable[[bytes], bool]) -> bytes:
        for frame in self._frames(port, SECONDS):
            if wanted(frame):
                return frame
        raise AssertionError(f"no such frame came out of port {port}")

    def receive_frame_now(self, port: int, wanted: Callable[[bytes], bool]) -> bytes | None:
        """Such a frame among those that have come out of a port by now."""
        return next(filter(wanted, self._frames(port, 0)), None)

    def silent(self, port: int, unwanted: Callable[[Segment], bool]) -> None:
        """Nothing of that kind has come out of a port by now."""
        for frame in self._frames(port, 0):
            assert not _fits(frame, unwanted), frame.hex()

    def drain(self) -> None:
        """Forget what came until now."""
        for port in self.wires:
            for _ in self._frames(port, 0):
                pass

    def _frames(self, port: int, seconds: float) -> Iterator[bytes]:
        wire, end = self.wires[port], time.monotonic() + seconds
        while True:
            left = max(0.0, end - time.monotonic())
            if not select.select([wire], [], [], left)[0]:
                return
            frame, (_, _, kind, *_) = wire.recvfrom(65535)
            if kind != socket.PACKET_OUTGOING:
                yield frame


def _fits(frame: bytes, wanted: Callable[[Segment], bool]) -> bool:
    try:
        return wanted(parse(frame))
    except PacketError:
        return False


@contextmanager
def lab(directory: Path, *, wires: bool = True) -> Iterator[Lab]:
    """A lab without a device or a daemon yet."""
    os.makedirs(directory, exist_ok=True)
    made = Lab(directory, Namespace("lab", directory))
    try:
        made.namespace.sysctl({"ipv6/conf/all/disable_ipv6": 1})
        for port in (NETWORK, CLIENT, FW) if wires else ():
            made.add_wire(port)
        yield made
    finally:
        made.close()


# Segments

SYN_OPTIONS = bytes.fromhex("020405b40402080a000000010000000001030307")


def segment(
    tuple_: FiveTuple,
    flags: int,
    seq: int = 1000,
    ack: int = 0,
    *,
    options: bytes = b"",
    payload: bytes = b"",
    src_mac: bytes = CLIENT_MAC,
    dst_mac: bytes = ROUTER_MAC,
) -> Segment:
    network = bytearray(20 if tuple_.src.version == 4 else 40)
    if tuple_.src.version == 4:
        network[0], network[8], network[9] = 0x45, 64, 6
    else:
        network[0], network[6], network[7] = 0x60, 6, 64
    return Segment(
        dst_mac, src_mac, bytes(network), tuple_, seq, ack, flags, 64240, 0, options, payload
    )


class P4Client:
    """Another controller, without finsy: primary for as long as the `with` lasts."""

    def __init__(self, made: Lab, election_id: int = 2**63) -> None:
        self._channel = grpc.insecure_channel(made.device_address)
        self._stub = p4r_grpc.P4RuntimeStub(self._channel)
        self._device_id = made.device_id
        self._election_id = p4r.Uint128(low=election_id)
        self._requests: queue.SimpleQueue[p4r.StreamMessageRequest | None] = queue.SimpleQueue()

    def __enter__(self) -> P4Client:
        bid = p4r.MasterArbitrationUpdate(device_id=self._device_id, election_id=self._election_id)
        self._requests.put(p4r.StreamMessageRequest(arbitration=bid))
        # Kept: the stream ends with the last reference to it, and the primacy with the stream.
        self._answers = self._stub.StreamChannel(iter(self._requests.get, None), timeout=30)
        assert next(self._answers).arbitration.status.code == 0
        return self

    def __exit__(self, *_: object) -> None:
        self._requests.put(None)
        self._channel.close()

    def told(self) -> p4r.StreamMessageResponse:
        """The next message that the device sends by itself."""
        return next(self._answers)

    def write(self, kind: p4r.Update.Type.ValueType, *entries: p4r.TableEntry) -> None:
        updates = [p4r.Update(type=kind, entity=p4r.Entity(table_entry=e)) for e in entries]
        self._stub.Write(
            p4r.WriteRequest(
                device_id=self._device_id, election_id=self._election_id, updates=updates
            ),
            timeout=SECONDS,
        )

    def entries(self, *table_ids: int) -> list[p4r.TableEntry]:
        wanted = [p4r.Entity(table_entry=p4r.TableEntry(table_id=n)) for n in table_ids]
        request = p4r.ReadRequest(device_id=self._device_id, entities=wanted)
        return [
            entity.table_entry
            for response in self._stub.Read(request, timeout=SECONDS)
            for entity in response.entities
            if not entity.table_entry.is_default_action
        ]
