"""One session, its chain, its reconfigurations, and what must hold; everything from one seed."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from itertools import pairwise

from dysco.agent.reconfigure import messages
from dysco.agent.reconfigure.left import LeftState
from dysco.agent.reconfigure.locking import LockState
from dysco.agent.reconfigure.segment import ACK, SYN, Segment
from dysco.agent.reconfigure.serial import add
from dysco.agent.reconfigure.state import Entry
from tests.reconfigure.simulation.boxes import LEFT, RIGHT, Box, Firewall, Proxy, Shifter
from tests.reconfigure.simulation.complaint import ComplaintError
from tests.reconfigure.simulation.network import Clock, Fate, Link, Mishap, Weather
from tests.reconfigure.simulation.node import Hop, Leg, Node
from tests.reconfigure.simulation.tcp import Endpoint, Options

CALM = Weather()
_LEFT_STATES = {state.value for state in LeftState}


@dataclass(frozen=True)
class Step:
    """One reconfiguration: at a time, between two hosts of the chain as it then is."""

    at: float
    left: int
    """Index on the chain of that time, 0 the client."""
    right: int
    boxes: tuple[str, ...] = ()
    cancel_after: float | None = None
    dead: bool = False
    """The new path's first box drops everything."""


@dataclass(frozen=True)
class Scenario:
    """What happens in a world."""

    boxes: tuple[str, ...] = ("pass",)
    steps: tuple[Step, ...] = (Step(0.02, 0, 2),)
    sizes: tuple[int, int] = (6000, 6000)
    data: Weather = CALM
    control: Weather = CALM
    punt_loss: float = 0.0
    options: tuple[Options, Options] = (Options(), Options())
    near_wrap: bool = False
    stalled: tuple[float, float] = (0.0, 0.0)
    """Until when each application reads nothing."""
    pause: float = 0.0
    """Between an application's writes."""
    piece: int = 700
    linger: float = 0.0
    """Between an application's last write and its FIN."""
    reset_at: float | None = None
    """When the client aborts."""
    crashes: tuple[tuple[int, int, float], ...] = ()
    """Hosts of the first chain whose controller dies: index, after how many actions, how long."""
    close: bool = True
    limit: float = 60.0
    mishaps: tuple[Mishap, ...] | None = None
    """All that goes wrong on the network and with packet-ins; None: as chance has it."""


@dataclass
class Application:
    """One end's program: writes a stream in pieces, and checks what it reads."""

    endpoint: Endpoint
    to_write: bytes
    expected: bytes
    written: int = 0
    checked: int = 0
    stalled_until: float = 0.0


@dataclass
class World:
    """Everything of one run."""

    seed: int
    scenario: Scenario
    clock: Clock = field(default_factory=Clock)
    written: bool = False
    """Write down what goes wrong by chance."""

    def __post_init__(self) -> None:
        self.source = random.Random(self.seed)
        self.fate = Fate(self.scenario.mishaps, written=self.written)
        self.named: Counter[str] = Counter()
        self.links: dict[tuple[int, int], Link] = {}
        self.hops: list[Hop] = []
        self.anchors: list[tuple[Node, messages.ReconfigurationId]] = []
        self.everyone: list[Node] = []
        self.refused = 0
        self.ended_by_reset = False
        self._build()

    # Building.

    def _node(self) -> Node:
        number = len(self.everyone)
        node = Node(number, self.clock, self.source, self.scenario.punt_loss, self.fate)
        self.everyone.append(node)
        node.send_control = self._control
        node.on_settled = self._settled
        node.off_path = self._off_path
        for leg in node.legs:
            leg.entry = Entry()
        return node

    def _build(self) -> None:
        scenario = self.scenario
        client, server = self._node(), self._node()
        middle = [self._box_node(kind) for kind in scenario.boxes]
        chain = [client, *middle, server]
        for left, right in pairwise(chain):
            self._join(left, right)
        self.client, self.server = client, server
        hosts = [client, *(n for n in middle if isinstance(n.box, Proxy)), server]
        ends: list[Endpoint] = []
        for hop in self.hops:
            hop.instant = True
        for left, right in pairwise(hosts):
            ends += self._connect(chain, left, right)
        for hop in self.hops:
            hop.instant = False
        for index, node in enumerate(hosts[1:-1]):
            assert isinstance(node.box, Proxy)
            node.box.attach(ends[2 * index + 1], ends[2 * index + 2])
            node.deliver = node.box.receive
        for index, actions, outage in scenario.crashes:
            chain[index].crash_in, chain[index].outage = actions, outage
        self.apps = self._applications(ends[0], ends[-1])

    def _box_node(self, kind: str) -> Node:
        node = self._node()
        box: Box
        options = self.scenario.options
        match kind:
            case "pass":
                box = Box()
            case "shift":
                box = Shifter(self.source.getrandbits(32), self.source.getrandbits(32))
            case "firewall":
                box = Firewall((options[0].scale, options[1].scale), f"firewall {node.number}")
            case "proxy":
                box = Proxy(self.clock)
            case _:
                raise ValueError(f"no box is called {kind!r}")
        node.box = box
        node.box_deltas = box.deltas
        node.deliver = box.receive
        box.emit = lambda side, segment: node.legs[side].from_host(segment)
        for leg in node.legs:
            # What comes from the left has the left end's scale.
            scales = [options[0].scale, options[1].scale]
            leg.entry = Entry(
                scale_own=scales[1] if leg.side == LEFT else scales[0],
                scale_heard=scales[0] if leg.side == LEFT else scales[1],
            )
        return node

    def _hop(self, left: Node, right: Node) -> Hop:
        name = f"data {left.number}-{right.number}"
        self.named[name] += 1
        name += "" if self.named[name] == 1 else f" ({self.named[name]})"
        return Hop(self.clock, self.source, self.scenario.data, self.fate, name)

    def _join(self, left: Node, right: Node) -> Hop:
        hop = self._hop(left, right)
        hop.join(left.legs[RIGHT], right.legs[LEFT])
        left.legs[RIGHT].old_hop = right.legs[LEFT].old_hop = hop
        left.neighbours[RIGHT], right.neighbours[LEFT] = right, left
        self.hops.append(hop)
        return hop

    def _isn(self) -> int:
        if self.scenario.near_wrap:
            return add(0, -self.source.randrange(1, 6000))
        return self.source.getrandbits(32)

    def _options(self, node: Node) -> Options:
        if node is self.client:
            return self.scenario.options[0]
        if node is self.server:
            return self.scenario.options[1]
        base = self.scenario.options[0]
        return Options(self.source.randrange(0, 4), base.sack, base.timestamps, base.mss, 3000)

    def _connect(self, chain: list[Node], left: Node, right: Node) -> list[Endpoint]:
        """A connection between two hosts, established at once; boxes between see it open."""
        options = (self._options(left), self._options(right))
        first, last = chain.index(left), chain.index(right)
        for node in chain[first : last + 1]:
            for leg in node.legs:
                inside = (node is not left or leg.side == RIGHT) and (
                    node is not right or leg.side == LEFT
                )
                if inside:
                    own, heard = (0, 1) if leg.side == RIGHT else (1, 0)
                    leg.entry = Entry(
                        scale_own=options[own].scale, scale_heard=options[heard].scale
                    )
                    leg.entry = _with_scale_in(leg.entry)
            if isinstance(node.box, Firewall):
                node.box.sides[0].scale = options[0].scale
                node.box.sides[1].scale = options[1].scale
        seen: dict[str, Segment] = {}
        left_deliver, right_deliver = left.deliver, right.deliver
        left.deliver = lambda side, s: seen.__setitem__("left", s)
        right.deliver = lambda side, s: seen.__setitem__("right", s)
        isns = (self._isn(), self._isn())
        stamps = (self.source.getrandbits(32), self.source.getrandbits(32))
        on = options[0].timestamps
        windows = tuple(min(o.buffer, 0xFFFF) for o in options)
        leg, back = left.legs[RIGHT], right.legs[LEFT]
        leg.from_host(Segment(isns[0], 0, SYN, windows[0], tsval=stamps[0] if on else None))
        syn = seen["right"]
        back.from_host(
            Segment(
                isns[1],
                add(syn.seq, 1),
                SYN | ACK,
                windows[1],
                tsval=stamps[1] if on else None,
                tsecr=syn.tsval or 0,
            )
        )
        answer = seen["left"]
        leg.from_host(
            Segment(
                add(isns[0], 1),
                add(answer.seq, 1),
                ACK,
                options[0].buffer >> options[0].scale,
                tsval=stamps[0] if on else None,
                tsecr=answer.tsval or 0,
            )
        )
        left.deliver, right.deliver = left_deliver, right_deliver
        ends = []
        for me, node, at, peer_isn, peer_ts in (
            (0, left, leg, answer.seq, answer.tsval),
            (1, right, back, syn.seq, syn.tsval),
        ):
            endpoint = Endpoint(
                self.clock,
                f"{node.number}.{'left' if at.side == LEFT else 'right'}",
                options=options[me],
                peer_scale=options[1 - me].scale,
                isn=isns[me],
                peer_isn=peer_isn,
                ts_base=stamps[me],
                peer_ts=peer_ts or 0,
                peer_window=windows[1 - me],
                send=at.from_host,
            )
            if node in (self.client, self.server):
                node.deliver = lambda side, segment, e=endpoint: e.receive(segment)
            ends.append(endpoint)
        return ends

    def _applications(self, left: Endpoint, right: Endpoint) -> tuple[Application, Application]:
        sizes = self.scenario.sizes
        streams = [self.source.randbytes(size) for size in sizes]
        apps = (
            Application(left, streams[0], streams[1], stalled_until=self.scenario.stalled[0]),
            Application(right, streams[1], streams[0], stalled_until=self.scenario.stalled[1]),
        )
        for app in apps:
            app.endpoint.readable = lambda a=app: self._read(a)
            app.endpoint.ended = self._reset_seen
            self.clock.after(0.0, self._write, app)
            if app.stalled_until:
                self.clock.after(app.stalled_until, self._read, app)
        for at, step in sorted((s.at, i) for i, s in enumerate(self.scenario.steps)):
            self.clock.after(at, self._reconfigure, self.scenario.steps[step])
        if self.scenario.reset_at is not None:
            self.clock.after(self.scenario.reset_at, self._abort)
        return apps

    # Applications.

    def _write(self, app: Application) -> None:
        endpoint = app.endpoint
        if endpoint.reset:
            return
        pause = self.scenario.pause
        size = self.source.randrange(1, self.scenario.piece) if pause else len(app.to_write)
        if app.written < len(app.to_write):
            piece = app.to_write[app.written : app.written + size]
            app.written += len(piece)
            endpoint.write(piece)
        if app.written < len(app.to_write):
            self.clock.after(self.source.random() * pause, self._write, app)
        elif self.scenario.close:
            self.clock.after(self.scenario.linger, endpoint.close)

    def _read(self, app: Application) -> None:
        if self.clock.now < app.stalled_until:
            return
        data = app.endpoint.read()
        expected = app.expected[app.checked : app.checked + len(data)]
        if data != expected:
            raise ComplaintError(f"{app.endpoint.name} read wrong bytes at {app.checked}")
        app.checked += len(data)

    def _abort(self) -> None:
        self.ended_by_reset = True
        self.apps[0].endpoint.abort()
        self._reset_seen()

    def _reset_seen(self) -> None:
        if not self.ended_by_reset:
            raise ComplaintError("a host was reset")
        for node in self.everyone:
            node.session_over()

    # Reconfigurations.

    @property
    def chain(self) -> list[Node]:
        """The hosts as they follow each other now."""
        chain = [self.client]
        while (following := chain[-1].neighbours[RIGHT]) is not None:
            chain.append(following)
        return chain

    def _reconfigure(self, step: Step) -> None:
        chain = self.chain
        if any(not node.alive for node in chain):
            # The operator tries again later.
            self.clock.after(0.05, self._reconfigure, step)
            return
        if self.ended_by_reset or not 0 <= step.left < step.right < len(chain):
            return
        left, right = chain[step.left], chain[step.right]
        new = [self._box_node(kind) for kind in step.boxes]
        if step.dead and isinstance(new[0].box, Box):
            new[0].box.dead = True
        stops = [left, *new, right]
        hops = []
        for one, other in pairwise(stops):
            hop = self._hop(one, other)
            hop.join(one.legs[RIGHT], other.legs[LEFT])
            if one is not left:
                one.legs[RIGHT].old_hop = hop
                one.neighbours[RIGHT] = other
            if other is not right:
                other.legs[LEFT].old_hop = hop
                other.neighbours[LEFT] = one
            hops.append(hop)
        for node in new:
            for leg in node.legs:
                self._scales(leg, left, right)
        opened_at = hops[-1]
        leg, back = left.legs[RIGHT], right.legs[LEFT]
        leg_peer, back_peer = (
            Link(
                self.clock,
                self.source,
                self.scenario.control,
                to.announced,
                self.fate,
                f"announcement {at.node.number}-{to.node.number}",
            )
            for at, to in ((leg, back), (back, leg))
        )
        about = left.reconfigure(
            right,
            hops[0],
            self._prepare(left, right, new, opened_at, links=(leg_peer, back_peer)),
        )
        if about is None:
            self.refused += 1
            return
        self.anchors.append((left, about))
        if step.cancel_after is not None:
            self.clock.after(step.cancel_after, self._cancel, left, about)

    def _prepare(
        self, left: Node, right: Node, new: list[Node], last: Hop, *, links: tuple[Link, Link]
    ) -> Callable[[messages.RequestLock], None]:
        def prepare(request: messages.RequestLock) -> None:
            right.new_hops[request.token] = last
            left.legs[RIGHT].peer = links[0].send
            left.opened = lambda hop, opening: right.openings.__setitem__(last, opening)
            right.peers[request.token] = links[1].send

        return prepare

    def _scales(self, leg: Leg, left: Node, right: Node) -> None:
        scales = (left.legs[RIGHT].entry.scale_own, right.legs[LEFT].entry.scale_own)
        own, heard = (0, 1) if leg.side == RIGHT else (1, 0)
        leg.entry = _with_scale_in(Entry(scale_own=scales[own], scale_heard=scales[heard]))
        box = leg.node.box
        if isinstance(box, Firewall):
            box.sides[0].scale, box.sides[1].scale = scales

    def _cancel(self, node: Node, about: messages.ReconfigurationId) -> None:
        anchor = node.member.left
        if node.alive and anchor is not None and anchor.id == about:
            node.cancel("the operator cancelled")

    def _control(self, sender: Node, to: int, message: messages.Message) -> None:
        key = (sender.number, to)
        link = self.links.get(key)
        if link is None:
            link = self.links[key] = Link(
                self.clock,
                self.source,
                self.scenario.control,
                lambda pair: pair[0](*pair[1:]),
                self.fate,
                f"control {sender.number}-{to}",
            )
        link.send((self.everyone[to].message, sender.number, message))

    def _settled(self, leg: Leg) -> None:
        node = leg.node
        hop = leg.old_hop
        assert hop is not None
        if leg.side == RIGHT:
            node.neighbours[RIGHT] = hop.ends[1].node
        else:
            node.neighbours[LEFT] = hop.ends[0].node

    def _off_path(self, node: Node) -> None:
        if isinstance(node.box, Box):
            node.box.close()
        for leg in node.legs:
            leg.old_hop = leg.new_hop = None

    # Running.

    @property
    def settled(self) -> bool:
        """True if all reconfigurations are over and the applications have all."""
        for node, about in self.anchors:
            anchor = node.member.left
            if not node.alive or (anchor and anchor.id == about and not anchor.is_over):
                return False
        if self.ended_by_reset:
            return True
        return all(
            app.checked == len(app.expected)
            and (app.endpoint.done if self.scenario.close else app.endpoint.una == app.written)
            for app in self.apps
        )

    def run(self) -> World:
        """Until all is over; raises ComplaintError with the seed if something does not hold."""
        try:
            self._run()
        except AssertionError as error:
            raise ComplaintError(f"seed {self.seed}: {error}\n{self.story()}") from error
        return self

    def _run(self) -> None:
        last = max((s.at for s in self.scenario.steps), default=0.0)
        quiet = 0
        while True:
            if not self.clock.step():
                if not self.settled:
                    raise ComplaintError("nothing happens any more")
                break
            if self.clock.now > self.scenario.limit:
                raise ComplaintError(f"not over after {self.scenario.limit} s")
            if self.clock.steps % 16 == 0 and self.clock.now > last and self.settled:
                quiet += 1
                if quiet > 4:
                    break
        self._check_end()

    def _check_end(self) -> None:
        for node in self.everyone:
            if (
                node.lock.state in (LockState.PENDING, LockState.LOCKED)
                or node.lock.parked is not None
            ):
                raise ComplaintError(f"node {node.number}: lock is left {node.lock}")
            for leg in node.legs:
                if leg.entry.new is not None and not self.ended_by_reset:
                    raise ComplaintError(f"node {node.number}: new way is left")

    def story(self) -> str:
        """What happened, for people."""
        lines = [f"{self.scenario}", f"now {self.clock.now:.4f}"]
        for node in self.everyone:
            lines += [
                f"{at:.4f} node {node.number} {report.id.left}.{report.id.number} "
                f"{report.state} {report.why}"
                for at, report in node.reports
            ]
            for leg in node.legs:
                counts = {c.value: n for c, n in leg.registers.counts.items()}
                if counts:
                    lines.append(f"  node {node.number} leg {leg.side}: {counts}")
            if isinstance(node.box, Firewall) and node.box.invalid:
                lines.append(f"  {node.box.name}: {node.box.invalid} invalid")
                lines += node.box.invalid_because[:3]
        for app in self.apps:
            e = app.endpoint
            lines.append(
                f"  {e.name}: wrote {app.written}, una {e.una} nxt {e.nxt} top {e.top} "
                f"edge {e.edge} rcv {e.rcv} read {app.checked}, fin {e.fin_seen}, "
                f"again {e.retransmitted}, timeouts {e.timeouts}, paws {e.paws_drops}, "
                f"reset {e.reset}"
            )
        return "\n".join(lines)

    @property
    def outcomes(self) -> list[LeftState]:
        """How the reconfigurations ended."""
        last: dict[messages.ReconfigurationId, LeftState] = {}
        for node, about in self.anchors:
            for _, report in node.reports:
                if report.id == about and report.state in _LEFT_STATES:
                    last[about] = LeftState(report.state)
        return list(last.values())


def _with_scale_in(entry: Entry) -> Entry:
    return replace(entry, old=replace(entry.old, scale_in=entry.scale_heard))
