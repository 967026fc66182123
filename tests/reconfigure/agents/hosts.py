"""What stands behind the agents: the ends' programs; the hosts of boxes and of servers."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from dysco.agent.events import (
    StateCall,
    StateVerb,
)
from dysco.agent.model import FiveTuple
from dysco.agent.options import Negotiated, negotiated
from dysco.agent.packet import ACK, RST, SYN
from dysco.agent.reconfigure.frames import to_frame
from dysco.agent.reconfigure.segment import Segment
from dysco.agent.reconfigure.serial import add
from tests.reconfigure.agents.plane import Packet, Plane
from tests.reconfigure.agents.story import (
    HEADER,
    NAT_PORT,
)
from tests.reconfigure.simulation.boxes import Box, Firewall, Inserter, Proxy, Shifter
from tests.reconfigure.simulation.complaint import ComplaintError
from tests.reconfigure.simulation.tcp import Endpoint, Options

if TYPE_CHECKING:
    from tests.reconfigure.agents.world import World


@dataclass
class Application:
    """One end's program."""

    plane: Plane
    options: Options
    to_write: bytes
    expected: bytes
    isn: int
    stamp: int
    endpoint: Endpoint | None = None
    written: int = 0
    checked: int = 0
    is_open: bool = False
    ends: FiveTuple | None = None
    from_peer: FiveTuple | None = None
    frozen: bool = False
    """Its socket's state is copied: it does nothing until it is used again, here or there."""


class BoxHost:
    """A middlebox's host: one box for each five-tuple that it forwards."""

    def __init__(self, world: World, plane: Plane, kind: str) -> None:
        self.world, self.plane, self.kind = world, plane, kind
        self.box: Box = self._make()
        self.forward: FiveTuple | None = None
        self.back: FiveTuple | None = None
        self.sends: tuple[FiveTuple, FiveTuple] | None = None
        """Leftwards, and rightwards."""
        self.is_copied = False
        """Its state is copied: nothing may pass it."""
        self._shown: Packet | None = None

    def _make(self) -> Box:
        box: Box
        if self.kind == "firewall":
            box = Firewall((0, 0), self.plane.host.name)
        elif self.kind == "shift":
            source = self.world.source
            box = Shifter(source.getrandbits(32), source.getrandbits(32))
        elif self.kind == "header":
            box = Inserter(HEADER)
        else:
            box = Box()
            box.dead = self.kind == "dead"
        box.emit = self._emit
        return box

    def receive(self, shown: Packet) -> None:
        """What its network stack is given."""
        segment = shown.segment
        if self.is_copied and not segment.flags & RST:
            raise ComplaintError(f"{self.plane.host.name}: a segment after the copy")
        if shown.is_syn and shown.ends != self.forward:
            self._begin(shown.ends)
        elif shown.is_syn and isinstance(self.box, Firewall):
            isn = self.box.sides[0].isn
            if isn is not None and isn != segment.seq:
                self._begin(shown.ends)
        if shown.ends == self.forward:
            side = 0
        elif shown.ends == self.back:
            side = 1
        else:
            return
        if shown.raw is not None and isinstance(self.box, Firewall):
            offered = negotiated(shown.raw.options)
            self.box.sides[side].scale = offered.window_scale or 0
        self._shown = shown
        self.box.receive(side, segment)

    def _begin(self, ends: FiveTuple) -> None:
        self.box = self._make()
        self.forward, out = ends, ends
        if self.kind == "nat":
            own = self.plane.host.interfaces[0].addresses[0]
            out = FiveTuple(own, NAT_PORT, ends.dst, ends.dport)
        self.back = out.reversed
        self.sends = (ends.reversed, out)

    def carry_out(self, call: StateCall) -> bytes:
        """Something with its state of the session. Raises LookupError."""
        box = self.box
        match call.verb:
            case StateVerb.EXPORT:
                if self.forward is None or self.forward != call.sides.received:
                    raise LookupError("it knows no such session")
                self.is_copied = True
                box.emit = _nobody
                copy = pickle.dumps((box, self.forward, self.back, self.sends))
                box.emit = self._emit
                return copy
            case StateVerb.IMPORT:
                self.box, self.forward, self.back, self.sends = pickle.loads(call.state)
                if self.sends is None or (self.forward, self.sends[1]) != call.sides:
                    raise LookupError("mappings of another session")
                self.box.emit = self._emit
                if isinstance(self.box, Firewall):
                    self.box.forget_edges()
            case StateVerb.RESUME:
                self.is_copied = False
            case StateVerb.DROP:
                self.is_copied = False
                self.forward = self.back = None
        return b""

    def _emit(self, side: int, segment: Segment) -> None:
        assert self.sends is not None
        assert self._shown is not None
        self.plane.from_host(self._shown.changed(self.sends[side], segment))


class ProxyHost(BoxHost):
    """A terminating proxy that keeps the client's address: two connections of one five-tuple."""

    def __init__(self, world: World, plane: Plane, options: Options) -> None:
        super().__init__(world, plane, "proxy")
        self.options = options
        self.left: Endpoint | None = None
        self.right: Endpoint | None = None
        self.numbers = (0, 0)

    def receive(self, shown: Packet) -> None:
        segment = shown.segment
        if shown.is_syn:
            if self.left is None or self.forward != shown.ends or self.left.peer_isn != segment.seq:
                self._accept(shown)
            self._handshake(self.left, SYN | ACK, add(segment.seq, 1), segment.tsval or 0)
        elif shown.ends == self.forward:
            if self.left is not None:
                self.left.receive(segment)
        elif segment.flags & SYN:
            self._connected(shown)
        elif segment.flags & RST and self.right is None:
            if self.left is not None:
                self.left.abort()
        elif self.right is not None:
            self.right.receive(segment)

    def _accept(self, shown: Packet) -> None:
        self.forward, self.right = shown.ends, None
        self.numbers = (self.world.source.getrandbits(32), self.world.source.getrandbits(32))
        self.left = self._endpoint(shown, shown.ends.reversed, self.numbers[0])
        # It knows of the client when that has acknowledged the answer.
        self.world.clock.after(0.003, self._connect, self.left)

    def _connect(self, left: Endpoint) -> None:
        if self.left is left and self.right is None and not left.reset:
            self._handshake(None, SYN, 0, 0)
            self.world.clock.after(0.3, self._connect, left)

    def _connected(self, shown: Packet) -> None:
        if self.right is None and self.left is not None:
            assert self.forward is not None
            self.right = self._endpoint(shown, self.forward, self.numbers[1])
            proxy = Proxy(self.world.clock)
            proxy.attach(self.left, self.right)
            self.left.readable()
        if self.right is not None:
            self.right._ack()

    def _endpoint(self, shown: Packet, ends: FiveTuple, isn: int) -> Endpoint:
        assert shown.raw is not None
        return Endpoint(
            self.world.clock,
            self.plane.host.name,
            options=self.options,
            peer_scale=negotiated(shown.raw.options).window_scale or 0,
            isn=isn,
            peer_isn=shown.segment.seq,
            ts_base=isn,
            peer_ts=shown.segment.tsval or 0,
            peer_window=shown.segment.window,
            send=lambda segment: self.plane.from_host(Packet(ends, segment)),
        )

    def _handshake(self, end: Endpoint | None, flags: int, ack: int, tsecr: int) -> None:
        """SYN-ACK leftwards, or SYN rightwards."""
        assert self.forward is not None
        ends = self.forward if end is None else self.forward.reversed
        isn, options = self.numbers[end is None], self.options
        stamp = isn if options.timestamps else None
        offer = Negotiated(options.mss, options.scale, options.sack, options.timestamps)
        window = min(options.buffer, 0xFFFF)
        said = Segment(isn, ack, flags, window, tsval=stamp, tsecr=tsecr)
        self.plane.from_host(Packet.of(to_frame(said, ends, self.plane.mac, offered=offer)))


def _nobody(side: int, segment: Segment) -> None:
    """Where a copied box sends."""


class EndHost:
    """A host that the server may be at: its program, its socket, or neither."""

    def __init__(
        self, app: Application, plane: Plane, show: Callable[[Application, Packet], None]
    ) -> None:
        self.app, self.plane = app, plane
        self.show = partial(show, app)
        self._waits: Endpoint | None = None
        self._ends: FiveTuple | None = None

    def receive(self, shown: Packet) -> None:
        """What its network stack is given."""
        app = self.app
        if app.plane is not self.plane:
            # A socket that is made already, and not thawed; or none at all.
            return
        if app.frozen and not shown.segment.flags & RST:
            raise ComplaintError(f"{self.plane.host.name}: a segment after the copy")
        self.show(shown)

    def carry_out(self, call: StateCall) -> bytes:
        """Something with its state of the session. Raises LookupError."""
        app, ends = self.app, call.sides.received
        assert ends is not None
        match call.verb:
            case StateVerb.EXPORT:
                if app.plane is not self.plane or app.endpoint is None or app.ends != ends.reversed:
                    raise LookupError("it knows no such session")
                app.frozen = True
                app.endpoint.freeze()
                return app.endpoint.copy()
            case StateVerb.IMPORT:
                assert app.endpoint is not None
                plane, away = self.plane, ends.reversed
                self._ends = away
                self._waits = app.endpoint.revived(
                    call.state, lambda s: plane.from_host(Packet(away, s))
                )
            case StateVerb.RESUME:
                if self._waits is not None:
                    app.endpoint, app.plane = self._waits, self.plane
                    app.ends, app.from_peer = self._ends, ends
                    self._waits = None
                if app.plane is self.plane and app.frozen and app.endpoint is not None:
                    app.frozen = False
                    app.endpoint.thaw()
            case StateVerb.DROP:
                self._waits = None
        return b""
