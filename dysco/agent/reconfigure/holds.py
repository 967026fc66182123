"""What legs hold while state moves, and how it goes on its way.

    SetEntry(HELD) --> begin; HELD packet-ins --> a queue: at most MAX_HELD bytes a leg, MAX_ALL at
                                                  this host, `Patience.hold` seconds
    LetGo --> registers read, so the entry is in --> edges, the queue in order --> END_HOLD --+
                            what was held meanwhile, in order <-- something was --------------'
                                                     the gate opens <-- nothing was ----'

What is not held any longer is dropped and counted; TCP repeats it, all but a RST, which is kept. A
super-segment is cut to what the other host takes: its packet-in does not tell any more that it may
be cut on the way.
"""

from __future__ import annotations

from dataclasses import replace

from dysco.agent import packet
from dysco.agent.core import Core
from dysco.agent.counters import Count
from dysco.agent.events import Action, EndHold, LegNews, QueryLeg, Send, SetTimer, Submit
from dysco.agent.reconfigure.frames import to_frame
from dysco.agent.reconfigure.held import Held, Hold, Phase, cut
from dysco.agent.reconfigure.here import Here
from dysco.agent.reconfigure.left import Patience
from dysco.agent.reconfigure.legs import Legs
from dysco.agent.reconfigure.member import Role
from dysco.agent.reconfigure.segment import ACK, Segment
from dysco.agent.reconfigure.serial import diff
from dysco.agent.reconfigure.state import MAX_WINDOW, Gate
from dysco.agent.reconfigure.timers import Timer

MAX_HELD = 4 << 20
"""Bytes of one leg: what a host sends within its window."""
MAX_ALL = 64 << 20
"""Bytes of all legs of one host."""
MAX_TRIES = 40
"""How often the data plane is asked to end a hold in order, before the gate is opened anyhow."""


class Holds:
    """The queues of this host's legs."""

    def __init__(self, core: Core, legs: Legs, patience: Patience) -> None:
        self._core = core
        self._legs = legs
        self._patience = patience
        self._size = 0

    def begin(self, here: Here, role: Role, now: float) -> list[Action]:
        """The leg's gate is being closed."""
        if role in here.holds:
            return []
        here.holds[role] = Hold(now + self._patience.hold)
        return [_timer(here, self._patience.hold)]

    def add(
        self, here: Here, role: Role, segment: packet.Segment, port: int, now: float
    ) -> list[Action]:
        """The host sent a segment."""
        hold = here.holds.get(role)
        if hold is not None and segment.flags & ACK:
            hold.saw(segment.ack, segment.window)
        pieces = [piece.build() for piece in cut(segment, here.ends(role).sends)]
        if hold is not None and hold.phase is Phase.LETTING_GO:
            return [Send(piece, Submit.RELEASED, port) for piece in pieces]
        size, is_reset = sum(map(len, pieces)), bool(segment.flags & packet.RST)
        if (
            hold is None
            or (now >= hold.until and not is_reset)
            or hold.size + size > MAX_HELD
            or self._size + size > MAX_ALL
        ):
            self._core.counters[Count.HOLD_DROPPED] += 1
            return []
        self._core.counters[Count.HELD] += 1
        hold.queue += [Held(piece, port, is_reset) for piece in pieces]
        hold.size += size
        self._size += size
        return []

    def let_go(self, here: Here, role: Role, now: float, *, switched: bool = False) -> list[Action]:
        """Once the leg's entry is in the device, what is held leaves.

        `switched`: the edges are told on the new path, even if nothing is held.
        """
        hold = here.holds.get(role)
        if hold is None:
            if not switched and here.leg(role).entry.gate is not Gate.HELD:
                return []
            # The agent was restarted meanwhile, or its patience was over.
            hold = here.holds[role] = Hold(now + self._patience.hold)
        if hold.phase is not Phase.HOLDING:
            return []
        hold.phase = Phase.WANTED

        def go(now: float) -> list[Action]:
            if here.holds.get(role) is not hold:
                return []
            hold.phase = Phase.LETTING_GO
            leaves = [Send(held.frame, Submit.RELEASED, held.port) for held in hold.queue]
            self._forget(hold)
            return [*self._edges(here, role, hold), *leaves, *self._ask(here, role, hold, now)]

        query = self._legs.with_registers(here, role, go, now)
        return [*query, _timer(here, self._patience.first)]

    def _edges(self, here: Here, role: Role, hold: Hold) -> list[Action]:
        """An ACK without data: how far the host has sent and got, ahead of all that was held.

        conntrack can't be told the edges of windows: it takes them from the first segment of
        each direction. Were that a retransmission, it would never believe an ACK of what the old
        box has let through after it, and neither host would hear the other any more.
        """
        leg, view = here.session_leg(role), here.leg(role)
        registers, entry = view.registers, view.entry
        if leg is None or registers.fin_sent:
            return []
        room = max(0, diff(registers.edge_in, registers.rcv_ack)) >> entry.scale_own
        ack, window = registers.rcv_ack, min(MAX_WINDOW, room)
        if hold.ack is not None and diff(hold.ack, ack) > 0:
            ack, window = hold.ack, hold.window
        stamps = here.ends(role).timestamps
        word = Segment(
            registers.snd_max,
            ack,
            ACK,
            window,
            tsval=registers.ts_sent if stamps else None,
            tsecr=registers.ts_given if stamps else 0,
        )
        interface = self._core.interface_for(leg.sent.src, b"")
        frame = to_frame(word, leg.emitted, interface.mac)
        return [Send(frame.build(), Submit.RELEASED, interface.port)]

    def _forget(self, hold: Hold) -> None:
        self._size -= hold.size
        hold.queue.clear()
        hold.size = 0

    def _ask(self, here: Here, role: Role, hold: Hold, now: float) -> list[Action]:
        """The data plane is to let pass what comes from now on, if it has held nothing since."""
        leg, entry = here.session_leg(role), here.leg(role).entry
        hold.tries += 1
        if leg is None or entry.gate is not Gate.HELD or hold.tries > MAX_TRIES:
            return self._open(here, role, now)
        return [EndHold(leg.outbound_key, entry.hold)]

    def news(self, here: Here, role: Role, news: LegNews, now: float) -> list[Action]:
        """What the data plane said to that."""
        hold = here.holds.get(role)
        if hold is None or hold.phase is not Phase.LETTING_GO:
            return []
        if news & LegNews.HOLD_OVER:
            return self._open(here, role, now)
        return self._ask(here, role, hold, now) if news & LegNews.STILL_HELD else []

    def timer(self, here: Here, now: float) -> list[Action]:
        """Something was held for as long as may be, or an answer is missing."""
        actions: list[Action] = []
        for role, hold in list(here.holds.items()):
            leg = here.session_leg(role)
            if now >= hold.until:
                self._too_late(hold)
            if hold.phase is Phase.WANTED and leg is not None:
                actions.append(QueryLeg(leg.outbound_key))
            elif hold.phase is Phase.LETTING_GO:
                actions += self._ask(here, role, hold, now)
        if any(hold.phase is not Phase.HOLDING for hold in here.holds.values()):
            actions.append(_timer(here, self._patience.first))
        elif here.holds:
            actions.append(_timer(here, self._patience.hold))
        return actions

    def _too_late(self, hold: Hold) -> None:
        """What was held for as long as may be is dropped."""
        resets = [held for held in hold.queue if held.is_reset]
        self._core.counters[Count.HOLD_DROPPED] += len(hold.queue) - len(resets)
        self._forget(hold)
        hold.queue += resets
        hold.size = sum(len(held.frame) for held in resets)
        self._size += hold.size

    def _open(self, here: Here, role: Role, now: float) -> list[Action]:
        """The gate opens, in the device too."""
        hold = here.holds.pop(role, None)
        if hold is not None:
            self._forget(hold)
        entry = here.leg(role).entry
        if entry.gate is not Gate.HELD:
            return []
        entry = replace(entry, gate=Gate.OPEN, hold=0)
        return self._legs.set(here, role, entry, now, keep_spare=True)

    def drop(self, here: Here) -> None:
        """The session is over."""
        for hold in here.holds.values():
            self._forget(hold)
        here.holds.clear()


def _timer(here: Here, after: float) -> SetTimer:
    return SetTimer(Timer.HOLD.of(here.session.id), after)
