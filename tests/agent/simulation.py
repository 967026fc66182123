"""A network in memory: agents, hosts and middleboxes, with time that jumps from event to event.

    Host stack <-- frames --> Node (data plane as a dict of mappings, agent) <-- frames --> Network

The data plane does what the P4 program's contract says; the network loses, repeats and reorders
what its `Weather` tells it to. Everything is repeatable from one seed.
"""

from __future__ import annotations

import heapq
import random
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from ipaddress import ip_address
from typing import Protocol

from dysco.agent.agent import Agent
from dysco.agent.events import (
    Action,
    CancelTimer,
    Event,
    Install,
    InstallFailed,
    PacketIn,
    Reason,
    Recovered,
    Remove,
    Send,
    SetTimer,
    Submit,
    Tell,
    TimerFired,
    TimerId,
)
from dysco.agent.model import (
    Address,
    FiveTuple,
    Host,
    Interface,
    Mapping,
    MappingKey,
    OnFailure,
    Peer,
    Policy,
    Side,
)
from dysco.agent.options import take_tag
from dysco.agent.packet import ACK, FIN, RST, SYN, Segment, parse
from dysco.agent.settings import Settings
from dysco.agent.trust import TrustGroup

GROUP = TrustGroup("test", b"k" * 32)
HOST_PORT = 1
OPTIONS = bytes.fromhex("020405b40402080a000000010000000001030307")


def make_host(number: int, name: str, kind: str | None = None, *addresses: str) -> Host:
    own = addresses or (f"10.0.0.{number}", f"fd00::{number:x}")
    mac = bytes((2, 0, 0, 0, 0, number))
    return Host(1, name, kind, (Interface(HOST_PORT, mac, tuple(map(ip_address, own))),))


def peer_of(host: Host) -> Peer:
    return Peer(host.name, host.kind, tuple(a for i in host.interfaces for a in i.addresses))


def make_segment(
    ends: FiveTuple,
    flags: int,
    seq: int = 1000,
    ack: int = 0,
    options: bytes = OPTIONS,
    payload: bytes = b"",
) -> Segment:
    network = bytearray(20 if ends.src.version == 4 else 40)
    if ends.src.version == 4:
        network[0], network[8], network[9] = 0x45, 64, 6
    else:
        network[0], network[6], network[7] = 0x60, 6, 64
    return Segment(
        b"\x02\0\0\0\0\xfe",
        b"\x02\0\0\0\0\xfd",
        bytes(network),
        ends,
        seq,
        ack,
        flags,
        64240,
        0,
        options,
        payload,
    )


@dataclass
class Weather:
    """What the network does to a frame, in shares of all frames; latency in seconds."""

    lose: float = 0.0
    repeat: float = 0.0
    delay: float = 0.0
    """Share that takes up to 20 times as long, and so is overtaken."""
    latency: float = 0.001


class World:
    """The clock, the network, and all nodes."""

    def __init__(self, seed: int = 1, weather: Weather | None = None) -> None:
        self.now = 0.0
        self.random = random.Random(seed)
        self.weather = weather or Weather()
        self.nodes: dict[Address, Node] = {}
        self.wire: list[Segment] = []
        """Every SYN that crossed the network, and every RST."""
        self._queue: list[tuple[float, int, Callable[[], None]]] = []
        self._order = 0

    def add(self, node: Node) -> Node:
        for interface in node.host.interfaces:
            for address in interface.addresses:
                self.nodes[address] = node
        return node

    def introduce(self) -> None:
        """Every agent learns of all hosts."""
        peers = [peer_of(node.host) for node in dict.fromkeys(self.nodes.values())]
        for node in self.nodes.values():
            if node.agent is not None:
                node.agent.set_peers(peers)

    def after(self, delay: float, what: Callable[[], None]) -> None:
        self._order += 1
        heapq.heappush(self._queue, (self.now + delay, self._order, what))

    def run(self, until: float) -> None:
        while self._queue and self._queue[0][0] <= until:
            self.now, _, what = heapq.heappop(self._queue)
            what()
        self.now = until

    def transmit(self, frame: bytes) -> None:
        segment = parse(frame)
        if segment.flags & (SYN | RST):
            self.wire.append(segment)
        node = self.nodes.get(segment.tuple.dst)
        weather = self.weather
        copies = 1 + (self.random.random() < weather.repeat)
        if node is None or self.random.random() < weather.lose:
            return
        for _ in range(copies):
            late = self.random.random() < weather.delay
            factor = self.random.uniform(1, 20) if late else 1
            self.after(weather.latency * factor, lambda: node.from_network(frame))


class Stack(Protocol):
    """What is behind a host port."""

    def receive(self, node: Node, segment: Segment) -> None: ...


Match = Callable[[FiveTuple], int]


class Node:
    """One host with its device and its agent; `agent` None: a host without Dysco."""

    def __init__(
        self,
        world: World,
        host: Host,
        stack: Stack,
        *,
        policies: Sequence[Policy] = (),
        match: Match = lambda ends: 0,
        settings: Settings | None = None,
        has_agent: bool = True,
        table_size: int = 100_000,
    ) -> None:
        self.world, self.host, self.stack, self.match = world, host, stack, match
        self.policies, self.settings = policies, settings or Settings()
        self.table_size = table_size
        self.mappings: dict[MappingKey, Mapping] = {}
        self.agent: Agent | None = None
        self.told: list[Tell] = []
        self.seen: list[Segment] = []
        """What the host got."""
        self._timers: dict[TimerId, int] = {}
        self._timer_number = 0
        self._starts = 0
        world.add(self)
        if has_agent:
            self.start_agent()

    @property
    def interface(self) -> Interface:
        return self.host.interfaces[0]

    def start_agent(self) -> None:
        """A new agent, as after a restart of its daemon: timers are forgotten."""
        self._starts += 1
        self._timers.clear()
        self.agent = Agent(
            self.host,
            GROUP,
            self.settings,
            epoch=self._starts,
            random=random.Random(f"{self.host.name}{self._starts}"),
        )
        self.agent.set_policies({policy.id: policy for policy in self.policies})
        self.world.introduce()

    def restart(self) -> None:
        self.start_agent()
        self.tell(Recovered(tuple(self.mappings.values())))

    # Data plane

    def from_host(self, segment: Segment) -> None:
        segment.src_mac = self.interface.mac
        ends = segment.tuple
        hit = self.mappings.get(MappingKey(Side.OUTBOUND, self.host.id, ends))
        policy = self.match(ends)
        is_syn = segment.is_syn
        if self.agent is not None and is_syn and (hit or policy or self.host.is_middlebox):
            self._punt(Reason.HOST_SYN, segment, 0 if hit else policy)
        elif hit is not None:
            if segment.flags & (RST | FIN) or segment.flags & SYN:
                self._punt(Reason.SENT, segment, 0)
            segment = segment.copy()
            segment.tuple = hit.mapped
            self.world.transmit(segment.build())
        else:
            self.world.transmit(segment.build())

    def from_network(self, frame: bytes) -> None:
        segment = parse(frame)
        segment.dst_mac = self.interface.mac
        if self.agent is not None:
            if segment.is_syn and segment.payload[:4] == b"DySC" and len(segment.payload) >= 48:
                self._punt(Reason.DYSCO_SYN, segment, 0)
                return
            hit = self.mappings.get(MappingKey(Side.INBOUND, self.host.id, segment.tuple))
            if hit is not None:
                segment.tuple = hit.mapped
                if segment.flags & (RST | FIN) or segment.flags & SYN:
                    self._punt(Reason.RECEIVED, segment, 0)
        self._to_host(segment)

    def _to_host(self, segment: Segment) -> None:
        self.seen.append(segment.copy())
        self.stack.receive(self, segment)

    def _punt(self, reason: Reason, segment: Segment, policy: int) -> None:
        port = HOST_PORT if reason in (Reason.HOST_SYN, Reason.SENT) else 9
        packet = PacketIn(reason, port, self.host.id, policy, segment.build())
        self.world.after(0.0001, lambda: self.tell(packet))

    # Controller

    def tell(self, event: Event) -> list[Action]:
        assert self.agent is not None
        actions = self.agent.handle(event, self.world.now)
        for action in actions:
            self._do(action)
        return actions

    def _do(self, action: Action) -> None:
        match action:
            case Send(frame, Submit.PORT, port):
                assert port == HOST_PORT
                segment = parse(frame)
                assert segment.dst_mac == self.interface.mac
                self._to_host(segment)
            case Send(frame):
                self.world.transmit(frame)
            case Install():
                self._install(action)
            case Remove(keys):
                for key in keys:
                    self.mappings.pop(key, None)
            case SetTimer(timer, after):
                self._timer_number += 1
                number = self._timers[timer] = self._timer_number
                self.world.after(after, lambda: self._fire(timer, number))
            case CancelTimer(timer):
                self._timers.pop(timer, None)
            case Tell():
                self.told.append(action)

    def _install(self, action: Install) -> None:
        new = [m for m in action.mappings if m.key not in self.mappings]
        if len(self.mappings) + len(new) > self.table_size:
            failed = InstallFailed(action.token, "table full")
            self.world.after(0, lambda: self.tell(failed))
            return
        for mapping in action.mappings:
            self.mappings[mapping.key] = mapping
        for then in action.then:
            self._do(then)

    def _fire(self, timer: TimerId, number: int) -> None:
        if self._timers.get(timer) == number:
            del self._timers[timer]
            self.tell(TimerFired(timer))


# What is behind host ports


@dataclass
class Connection:
    """One end of a TCP connection, enough of it: handshake, one FIN each way, retransmissions."""

    ends: FiveTuple
    isn: int
    state: str
    peer_isn: int = 0
    tries: int = 0
    fin_acked: bool = False
    got_fin: bool = False


class Client:
    """Opens connections, and closes each as soon as it is open, or when told."""

    def __init__(self, *, close: bool = True, retries: int = 6) -> None:
        self.connections: dict[FiveTuple, Connection] = {}
        self.outcomes: Counter[str] = Counter()
        self.close_at_once = close
        self.retries = retries

    def connect(self, node: Node, ends: FiveTuple, isn: int = 1000, data: bytes = b"") -> None:
        connection = self.connections[ends] = Connection(ends, isn, "syn_sent")
        self._syn(node, connection, data)

    def _syn(self, node: Node, connection: Connection, data: bytes = b"") -> None:
        if connection.state != "syn_sent":
            return
        if connection.tries > self.retries:
            connection.state = "timed_out"
            self.outcomes["timed_out"] += 1
            return
        node.from_host(make_segment(connection.ends, SYN, connection.isn, payload=data))
        node.world.after(2.0**connection.tries, lambda: self._syn(node, connection))
        connection.tries += 1

    def receive(self, node: Node, segment: Segment) -> None:
        connection = self.connections.get(segment.tuple.reversed)
        if connection is None:
            return
        if segment.flags & RST:
            if connection.state == "syn_sent" and segment.ack == connection.isn + 1:
                connection.state = "refused"
                self.outcomes["refused"] += 1
            return
        if segment.flags & SYN:
            if segment.ack != connection.isn + 1:
                return
            if connection.state == "syn_sent":
                connection.state, connection.peer_isn = "established", segment.seq
                self.outcomes["established"] += 1
                if self.close_at_once:
                    self.finish(node, connection)
            self._ack(node, connection, 1)
        elif segment.flags & FIN:
            connection.got_fin = connection.fin_acked = True
            self._ack(node, connection, 2)

    @staticmethod
    def _ack(node: Node, connection: Connection, offset: int) -> None:
        seq, ack = connection.isn + 1, connection.peer_isn + offset
        node.from_host(make_segment(connection.ends, ACK, seq, ack, options=b""))

    def finish(self, node: Node, connection: Connection, tries: int = 0) -> None:
        if connection.fin_acked or tries > 8:
            return
        seq, ack = connection.isn + 1, connection.peer_isn + 1
        node.from_host(make_segment(connection.ends, FIN | ACK, seq, ack, options=b""))
        node.world.after(0.2 * 2**tries, lambda: self.finish(node, connection, tries + 1))


class Server:
    """Answers SYNs, and FINs with FINs; refuses what is not for its port."""

    def __init__(self, port: int = 80) -> None:
        self.port = port
        self.accepted: dict[FiveTuple, int] = {}
        """Sequence numbers of SYNs by five-tuple."""
        self.data: dict[FiveTuple, bytes] = {}

    def receive(self, node: Node, segment: Segment) -> None:
        back = segment.tuple.reversed
        if segment.is_syn:
            assert take_tag(segment.options)[1] is None, "a tag reached an end host"
            assert segment.payload[:4] != b"DySC", "a header reached a host"
            if segment.tuple.dport != self.port:
                node.from_host(make_segment(back, RST | ACK, 0, segment.seq + 1, b""))
                return
            self.accepted[segment.tuple] = segment.seq
            self.data.setdefault(segment.tuple, segment.payload)
            node.from_host(make_segment(back, SYN | ACK, 7000, segment.seq + 1))
        elif segment.flags & FIN:
            node.from_host(make_segment(back, FIN | ACK, 7001, segment.seq + 1, b""))


class Box:
    """A middlebox that forwards; counts what it saw of each SYN. `swallow`: drops all SYNs."""

    def __init__(self, *, swallow: bool = False) -> None:
        self.swallow = swallow
        self.syns: Counter[FiveTuple] = Counter()

    def receive(self, node: Node, segment: Segment) -> None:
        if segment.is_syn:
            assert segment.payload[:4] != b"DySC", "a header reached a host"
            self.syns[segment.tuple] += 1
            if self.swallow:
                return
        out = segment.copy()
        out.tuple = self.translate(segment)
        if out.tuple.dst in {a for i in node.host.interfaces for a in i.addresses}:
            return
        node.from_host(out)

    def translate(self, segment: Segment) -> FiveTuple:
        return segment.tuple


class Nat(Box):
    """Masquerades: another source address and port for what comes from `inside`."""

    def __init__(self, outside: str, first_port: int = 40000) -> None:
        super().__init__()
        self.outside = ip_address(outside)
        self._port = first_port
        self.out: dict[FiveTuple, FiveTuple] = {}
        self._back: dict[FiveTuple, FiveTuple] = {}

    def translate(self, segment: Segment) -> FiveTuple:
        ends = segment.tuple
        if ends in self._back:
            return self._back[ends]
        if ends not in self.out:
            if not segment.is_syn:
                return ends
            self._port += 1
            out = FiveTuple(self.outside, self._port, ends.dst, ends.dport)
            self.out[ends] = out
            self._back[out.reversed] = ends.reversed
        return self.out[ends]


@dataclass
class Setup:
    """The usual world: a client, middleboxes by kind, a server."""

    chain: tuple[str, ...] = ("fw", "nat", "count")
    weather: Weather = field(default_factory=Weather)
    on_failure: OnFailure = OnFailure.REFUSE
    settings: Settings = field(default_factory=Settings)
    seed: int = 1
    version: int = 4
    close: bool = True

    def __post_init__(self) -> None:
        self.world = World(self.seed, self.weather)
        policy = Policy(5, self.chain, self.on_failure)
        self.client = Client(close=self.close)
        self.server = Server()
        self.boxes = {
            "fw": Box(),
            "nat": Nat("10.0.0.3" if self.version == 4 else "fd00::3"),
            "count": Box(),
        }
        self.client_node = Node(
            self.world,
            make_host(1, "client"),
            self.client,
            policies=[policy],
            match=lambda ends: 5 if ends.dport in (80, 81) else 0,
            settings=self.settings,
        )
        kinds = {"fw": "firewall", "nat": "nat", "count": "counter"}
        self.box_nodes = {
            name: Node(self.world, make_host(2 + i, name, kinds[name]), box, settings=self.settings)
            for i, (name, box) in enumerate(self.boxes.items())
        }
        self.server_node = Node(
            self.world, make_host(9, "server"), self.server, settings=self.settings
        )
        self.nodes = [self.client_node, *self.box_nodes.values(), self.server_node]

    def ends(self, sport: int = 33000, dport: int = 80) -> FiveTuple:
        prefix = "10.0.0." if self.version == 4 else "fd00::"
        return FiveTuple(ip_address(f"{prefix}1"), sport, ip_address(f"{prefix}9"), dport)

    def connect(
        self, sport: int = 33000, dport: int = 80, isn: int = 1000, data: bytes = b""
    ) -> FiveTuple:
        ends = self.ends(sport, dport)
        self.client.connect(self.client_node, ends, isn, data)
        return ends

    def assert_nothing_left(self) -> None:
        for node in self.nodes:
            assert not node.mappings, node.host.name
            assert node.agent is not None
            assert not node.agent.sessions, node.host.name
            table = node.agent._core.table
            assert not table.by_emitted
            assert not table.by_arriving
            assert not table.by_tag
            assert not table.awaited
            assert table.setting_up == 0
            assert not node.agent._core._installing
            pools = node.agent._core.ports._pools.values()
            assert not any(in_use for pool in pools for in_use in pool.known.values())
