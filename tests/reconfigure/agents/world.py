"""A client, a server and boxes with real agents; one session, its reconfigurations, and what holds.

Everything from one seed. Frames are real where agents see them; the TCP endpoints, the boxes and
the network are those of the other simulation.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from ipaddress import IPv4Address, ip_address

from dysco.agent.events import (
    CancelReconfiguration,
    FixDeltas,
    Idle,
    MoveEnd,
    Reconfigure,
    StateCall,
    StateDone,
    StateFailed,
    StateVerb,
    Tell,
)
from dysco.agent.model import Address, FiveTuple, Host, Interface, Peer, Policy
from dysco.agent.options import negotiated, take_tag
from dysco.agent.packet import ACK, SYN
from dysco.agent.reconfigure.frames import to_frame, to_segment
from dysco.agent.reconfigure.locking import LockState
from dysco.agent.reconfigure.segment import Segment
from dysco.agent.reconfigure.serial import add
from dysco.agent.session import State
from tests.reconfigure.agents.hosts import Application, BoxHost, EndHost, ProxyHost
from tests.reconfigure.agents.network_nat import NetworkNat
from tests.reconfigure.agents.plane import Datagram, Frame, Packet, Plane
from tests.reconfigure.agents.story import (
    CLIENT_PORT,
    HEADER,
    SERVER_PORT,
    Change,
    Nat,
    Story,
)
from tests.reconfigure.simulation.boxes import Firewall
from tests.reconfigure.simulation.complaint import ComplaintError
from tests.reconfigure.simulation.network import Clock, Fate, Link
from tests.reconfigure.simulation.tcp import Endpoint


@dataclass
class World:
    """Everything of one run."""

    seed: int
    story: Story
    clock: Clock = field(default_factory=Clock)
    written: bool = False
    """Write down what goes wrong by chance."""

    def __post_init__(self) -> None:
        self.source = random.Random(self.seed)
        self.fate = Fate(self.story.mishaps, written=self.written)
        self.planes: dict[str, Plane] = {}
        self.at: dict[Address, Plane] = {}
        self.links: dict[tuple[str, Address, bool], Link] = {}
        self.boxes: dict[str, BoxHost] = {}
        self.nat: NetworkNat | None = None
        self.answers: list[str] = []
        self.was_reset = False
        self.ends: dict[str, EndHost] = {}
        names = ["client", *self.story.boxes, "server", *self.story.ends]
        for number, name in enumerate(names, start=1):
            self._add(number, name, self.story.boxes.get(name))
        if self.story.nat is not Nat.NONE:
            (inside,) = self.planes["client"].host.interfaces[0].addresses
            shown = IPv4Address("192.0.2.1")
            self.nat = NetworkNat(inside, shown, udp=self.story.nat is Nat.MASQUERADE)
        peers = tuple(
            Peer(
                p.host.name,
                p.host.kind,
                p.host.interfaces[0].addresses,
                self.story.declared and p.host.kind == "proxy",
            )
            for p in self.planes.values()
        )
        policy = Policy(5, self.story.chain)
        for plane in self.planes.values():
            plane.peers, plane.policies = peers, {5: policy}
            plane.start()
        client = self.planes["client"]
        client.policy_of = lambda ends: 5 if ends.dport == SERVER_PORT else 0
        self.apps = self._applications()
        self._connect()

    # Building.

    def _add(self, number: int, name: str, kind: str | None) -> None:
        address = ip_address(f"10.0.0.{number}")
        mac = bytes((2, 0, 0, 0, 0, number))
        host = Host(1, name, kind, (Interface(1, mac, (address,)),), kind == "header")
        plane = Plane(
            self.clock,
            self.source,
            host,
            partial(self._transmit, name),
            fate=self.fate,
            punt_loss=0.0,
            settings=self.story.settings,
        )
        self.planes[name] = self.at[address] = plane
        if kind is not None:
            if kind == "proxy":
                box: BoxHost = ProxyHost(self, plane, self.story.proxy)
            else:
                box = BoxHost(self, plane, kind)
            self.boxes[name] = box
            plane.deliver = box.receive
            plane.call_state = lambda call: self._call(plane, box, call)

    def _transmit(self, sender: str, what: Packet | Datagram | bytes, to: Address) -> None:
        if self.nat is not None and (sender == "client" or self._is_hidden(to)):
            mapped = self.nat.through(what, to, outwards=sender == "client")
            if mapped is None:
                return
            what, to = mapped
        is_data = isinstance(what, Packet)
        key = (sender, to, is_data)
        link = self.links.get(key)
        if link is None:
            plane = self.at.get(to)
            if plane is None:
                return
            weather = self.story.data if is_data else self.story.control
            kind = "data" if is_data else "control"
            where = f"{kind} {sender}-{plane.host.name}"
            link = Link(self.clock, self.source, weather, plane.arrive, self.fate, where)
            self.links[key] = link
        link.send(what)

    def _is_hidden(self, to: Address) -> bool:
        return self.nat is not None and to in (self.nat.inside, self.nat.address)

    def _applications(self) -> tuple[Application, Application]:
        sizes = self.story.sizes
        streams = [self.source.randbytes(size) for size in sizes]
        headers = HEADER * [self.story.boxes[name] for name in self.story.chain].count("header")
        apps = []
        for me, name in enumerate(("client", "server")):
            plane = self.planes[name]
            app = Application(
                plane,
                self.story.options[me],
                streams[me],
                headers * me + streams[1 - me],
                self.source.getrandbits(32),
                self.source.getrandbits(32),
            )
            plane.deliver = partial(self._to_app, app)
            apps.append(app)
        for name in ("server", *self.story.ends):
            plane = self.planes[name]
            end = EndHost(apps[1], plane, self._to_app)
            plane.deliver = end.receive
            plane.call_state = lambda call, p=plane, e=end: self._call(p, e, call)
            self.ends[name] = end
        return apps[0], apps[1]

    def _call(self, plane: Plane, host: BoxHost | EndHost, call: StateCall) -> None:
        """What whoever handles a host's state does about a call."""
        calls = self.story.calls
        name = f"{plane.host.name} {call.verb.value}"
        if name in calls.silent:
            return
        answer: StateDone | StateFailed
        if name in calls.fails:
            answer = StateFailed(call.call, call.session, "it does not want to")
        else:
            try:
                state = host.carry_out(call)
                if call.verb is StateVerb.EXPORT:
                    state += bytes(calls.size)
                answer = StateDone(call.call, call.session, state)
            except LookupError as error:
                answer = StateFailed(call.call, call.session, str(error))
        self.clock.after(calls.delay, plane._if_alive, answer, plane._life)

    # The TCP handshake, and then the endpoints of the other simulation.

    def _connect(self) -> None:
        client, server = self.apps
        src = client.plane.host.interfaces[0].addresses[0]
        dst = server.plane.host.interfaces[0].addresses[0]
        client.ends = FiveTuple(src, CLIENT_PORT, dst, SERVER_PORT)
        self._syn()

    def _syn(self) -> None:
        client = self.apps[0]
        if client.endpoint is None and client.ends is not None:
            self._open(client, client.ends, Segment(client.isn, 0, SYN, 1000))
            self.clock.after(0.3, self._syn)

    def _open(self, app: Application, ends: FiveTuple, segment: Segment, tsecr: int = 0) -> None:
        options = app.options
        stamp = app.stamp if options.timestamps else None
        shown = Segment(
            segment.seq,
            segment.ack,
            segment.flags,
            min(options.buffer, 0xFFFF),
            tsval=stamp,
            tsecr=tsecr,
        )
        offer = negotiated(b"")._replace(
            mss=options.mss, window_scale=options.scale, sack_permitted=options.sack
        )
        app.plane.from_host(Packet.of(to_frame(shown, ends, app.plane.mac, offered=offer)))

    def _to_app(self, app: Application, shown: Packet) -> None:
        if shown.segment.flags & SYN:
            self._handshake(app, shown.frame())
        elif app.endpoint is not None and shown.ends == app.from_peer:
            if not app.is_open:
                app.is_open = True
                self.clock.after(0.0, self._write, app)
            app.endpoint.receive(shown.segment)

    def _handshake(self, app: Application, frame: Frame) -> None:
        _, tag = take_tag(frame.options)
        if tag is not None or frame.payload:
            raise ComplaintError("a tag or a header reached an end host")
        segment = to_segment(frame)
        client = app is self.apps[0]
        if client != bool(frame.flags & ACK):
            raise ComplaintError(f"{app.plane.host.name} got the wrong kind of SYN")
        if app.ends is None:
            app.ends = frame.tuple.reversed
        app.from_peer = app.ends.reversed
        if not client:
            answer = Segment(app.isn, add(segment.seq, 1), SYN | ACK, 0)
            self._open(app, app.ends, answer, segment.tsval or 0)
        if app.endpoint is not None:
            if client:
                app.endpoint._ack()
            return
        peer = negotiated(frame.options)
        ends = app.ends
        app.endpoint = Endpoint(
            self.clock,
            app.plane.host.name,
            options=app.options,
            peer_scale=peer.window_scale or 0,
            isn=app.isn,
            peer_isn=segment.seq,
            ts_base=app.stamp,
            peer_ts=segment.tsval or 0,
            peer_window=segment.window,
            send=lambda s, e=ends, a=app: a.plane.from_host(Packet(e, s)),
        )
        app.endpoint.readable = lambda a=app: self._read(a)
        app.endpoint.ended = self._reset_seen
        if client:
            app.endpoint._ack()
            app.is_open = True
            self._begin()
            self.clock.after(0.0, self._write, app)

    def _begin(self) -> None:
        """The session is open: its story begins."""
        self.began = self.clock.now
        for plane in self.planes.values():
            plane.punt_loss = self.story.punt_loss
        for change in self.story.changes:
            self.clock.after(change.at, self._change, change)
        for name, actions, outage in self.story.crashes:
            self.clock.after(self.story.changes[0].at, self._doom, name, actions, outage)
        if self.story.fixed_at is not None:
            self.clock.after(self.story.fixed_at, self._fix)
        if self.story.reset_at is not None:
            self.clock.after(self.story.reset_at, self._abort)

    def _doom(self, name: str, actions: int, outage: float) -> None:
        self.planes[name].crash_in, self.planes[name].outage = actions, outage
        if self.story.together:
            self.planes[name].died = partial(self._all_die, outage)

    def _all_die(self, outage: float) -> None:
        for plane in self.planes.values():
            if plane.alive:
                plane.outage = outage
                plane.crash()

    # Applications.

    def _write(self, app: Application) -> None:
        endpoint = app.endpoint
        if endpoint is None or endpoint.reset:
            return
        if app.frozen:
            self.clock.after(0.001, self._write, app)
            return
        if app.written < len(app.to_write):
            piece = app.to_write[app.written : app.written + self.source.randrange(1, 500)]
            app.written += len(piece)
            endpoint.write(piece)
            self.clock.after(self.source.random() * self.story.pause, self._write, app)
        else:
            self.clock.after(self.story.linger, self._close, app)

    def _close(self, app: Application) -> None:
        if app.frozen:
            self.clock.after(0.001, self._close, app)
        elif app.endpoint is not None:
            app.endpoint.close()

    def _read(self, app: Application) -> None:
        assert app.endpoint is not None
        data = app.endpoint.read()
        if data != app.expected[app.checked : app.checked + len(data)]:
            raise ComplaintError(f"{app.plane.host.name} read wrong bytes at {app.checked}")
        app.checked += len(data)

    def _abort(self) -> None:
        self.was_reset = True
        if self.apps[0].endpoint is not None:
            self.apps[0].endpoint.abort()

    def _reset_seen(self) -> None:
        if not self.was_reset:
            raise ComplaintError("a host was reset")

    # Reconfigurations.

    def _fix(self) -> None:
        for box in self.boxes.values():
            for number in box.plane.agent.sessions if box.kind == "header" else ():
                box.plane.tell(FixDeltas(number, len(HEADER), 0))

    def _change(self, change: Change) -> None:
        plane = self.planes[change.left]
        if not plane.alive:
            self.clock.after(0.05, self._change, change)
            return
        for number in plane.agent.sessions:
            wish: Reconfigure | MoveEnd
            if change.moves_to is not None:
                wish = MoveEnd(number, change.right, change.moves_to)
            else:
                wish = Reconfigure(number, change.right, change.through, change.with_state)
            done = plane.tell(wish)
            self.answers += [tell.counter for tell in done if isinstance(tell, Tell)]
            if change.cancel_after is not None:
                self.clock.after(change.cancel_after, self._cancel, plane, number)

    @staticmethod
    def _cancel(plane: Plane, number: int) -> None:
        if plane.alive:
            plane.tell(CancelReconfiguration(number))

    @property
    def outcomes(self) -> list[tuple[str, str]]:
        """How each reconfiguration ended at its left anchor, and why."""
        last: dict[tuple[str, int], tuple[str, str]] = {}
        for plane in self.planes.values():
            for _, step in plane.progress:
                if step.role == "left anchor":
                    last[step.left, step.number] = (step.state, step.why)
        return list(last.values())

    # Running.

    @property
    def settled(self) -> bool:
        """True if the applications have everything and nothing is left of the session."""
        if not all(plane.alive for plane in self.planes.values()):
            return False
        if not self.was_reset:
            for app in self.apps:
                if app.endpoint is None or app.checked < len(app.expected):
                    return False
                if not app.endpoint.done:
                    return False
        return not any(
            plane.agent.sessions or plane.agent._reconfigurer.sessions
            for plane in self.planes.values()
        )

    def run(self) -> World:
        """Until all is over; raises ComplaintError with the seed if something does not hold."""
        try:
            self._run()
        except AssertionError as error:
            raise ComplaintError(f"seed {self.seed}: {error}\n{self.tale()}") from error
        return self

    def _run(self) -> None:
        look, limit = 0.0, self.story.limit
        while self.clock.step():
            if self.clock.now < look:
                continue
            if self.settled:
                break
            if self.clock.now > limit - 30 and self.story.crashes:
                # Who was dead when it ended learns of it two hours later.
                self._idle()
                limit = self.clock.now + 60
                look = self.clock.now + 1
                continue
            if self.clock.now > limit:
                raise ComplaintError(f"not over after {self.story.limit} s")
            look = self.clock.now + 0.1
        if not self.settled and self.story.crashes:
            self._idle()
            for _ in range(2000):
                self.clock.step()
        if not self.settled:
            raise ComplaintError("nothing happens any more")
        # What was asked of the devices last is still on its way.
        end = self.clock.now + 1
        while self.clock.now < end and self.clock.step():
            pass
        self._check_end()

    def _idle(self) -> None:
        for plane in self.planes.values():
            for key in list(plane.mappings):
                if plane.alive:
                    plane.tell(Idle(key))

    def _check_end(self) -> None:
        for name, plane in self.planes.items():
            if plane.mappings or plane.legs:
                raise ComplaintError(f"{name}: left in the device: {list(plane.mappings)}")
            if plane.journal:
                raise ComplaintError(f"{name}: left in the journal: {list(plane.journal)}")
            here = plane.agent._reconfigurer.sessions
            if here:
                raise ComplaintError(f"{name}: sessions left: {here}")
            pools = plane.agent._core.ports._pools.values()
            if any(used for pool in pools for used in pool.known.values()):
                raise ComplaintError(f"{name}: ports are left in use")

    def locked(self) -> list[str]:
        """Hosts whose session is locked."""
        return [
            name
            for name, plane in self.planes.items()
            for here in plane.agent._reconfigurer.sessions.values()
            if here.member.lock.state in (LockState.PENDING, LockState.LOCKED)
        ]

    def tale(self) -> str:
        """What happened, for people."""
        lines = [str(self.story), f"now {self.clock.now:.4f}", str(self.answers)]
        steps = [(at, name, p) for name, plane in self.planes.items() for at, p in plane.progress]
        lines += [
            f"{at:.4f} {n} {p.role} {p.number}: {p.state} {p.why}"
            for at, n, p in sorted(steps, key=lambda s: s[0])
        ]
        for name, plane in self.planes.items():
            counters = {k: v for k, v in plane.agent.counters.items() if v}
            lines.append(f"  {name}: {counters}")
            for leg in plane.legs.values():
                counts = {c.value: n for c, n in leg.registers.counts.items()}
                lines.append(f"    {leg.key.tuple} {leg.entry.path.name} {counts}")
            for session in plane.agent.sessions.values():
                lines.append(f"    {session} {session.state}")
        for name, box in self.boxes.items():
            if isinstance(box.box, Firewall) and box.box.invalid:
                lines.append(f"  {name}: {box.box.invalid} invalid {box.box.invalid_because[:2]}")
        for app in self.apps:
            e = app.endpoint
            if e is not None:
                lines.append(
                    f"  {e.name}: wrote {app.written} una {e.una} top {e.top} edge {e.edge} "
                    f"rcv {e.rcv} read {app.checked} again {e.retransmitted} paws {e.paws_drops}"
                )
        return "\n".join(lines)


def states(world: World, name: str) -> Sequence[State]:
    """The states of a host's sessions."""
    return [session.state for session in world.planes[name].agent.sessions.values()]
