"""Runs the agents of one device: events to the agent, its actions to the device.

    packet-in, idle, timer --> Agent.handle --> Send      --> packet-out
                                                Install   --> route there? --> Write --> then
                                                Remove    --> Write
                                                SetLeg, QueryLeg, Announce, SplitAt --> LegTable
                                                timers, lines for the operator

No task and no queue of its own stands between a packet-in and its actions.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Sequence
from functools import partial

from finsy import P4ClientError
from finsy.proto import p4r, rpc_code

from dysco.agent.agent import Agent
from dysco.agent.events import (
    Action,
    Announce,
    Answered,
    CancelTimer,
    EndHold,
    Event,
    Idle,
    Install,
    InstallFailed,
    Keep,
    PacketIn,
    Progress,
    QueryLeg,
    Reason,
    Remove,
    SeedLeg,
    Send,
    SetLeg,
    SetTimer,
    SplitAt,
    StateCall,
    StateFailed,
    Tell,
    TimerFired,
    TimerId,
)
from dysco.agent.model import Mapping, MappingKey, Side
from dysco.agent.session import SETTING_UP, Session
from dysco.controller.leg_table import LegTable
from dysco.controller.mappings import MappingCodec
from dysco.controller.p4device import DeviceError, P4Device
from dysco.controller.routes import Routes
from dysco.controller.spent import Spent
from dysco.controller.told import Told
from dysco.controller.writer import Errors

log = logging.getLogger(__name__)


MAX_ASKED = 128
"""Sessions whose counters are read in one request."""
_AHEAD = time.time() - time.monotonic()


def clock() -> float:
    """Seconds since 1970 by a clock that never goes back: what is kept means the same later."""
    return _AHEAD + time.monotonic()


class _Install:
    """An `Install` on its way: waiting for routes, then for the device."""

    __slots__ = ("action", "gone", "host", "missing")

    def __init__(self, host: int, action: Install, missing: int) -> None:
        self.host, self.action, self.missing = host, action, missing
        self.gone = False


Traffic = Callable[[Sequence[MappingKey]], Awaitable[dict[MappingKey, tuple[int, int]]]]


class Runner:
    """The agents of one device and what they have under way."""

    def __init__(
        self, device: P4Device, codec: MappingCodec, routes: Routes, traffic: Traffic
    ) -> None:
        """`traffic` reads the counters of entries."""
        self.agents: dict[int, Agent] = {}
        self.counters: Counter[str] = Counter()
        self.spent = Spent()
        """In the agents."""
        self._device, self._codec, self._routes = device, codec, routes
        self.legs = LegTable(device.pipeline, device, routes, self)
        self.keep: Callable[[int, int, bytes], None] = lambda host, session, record: None
        """Journals a session's record at a host."""
        self.progress: Callable[[int, Progress], None] = lambda host, step: None
        """Told of each step of a reconfiguration at a host."""
        self.call_state: Callable[[int, StateCall], None] = self._no_state
        """Does something with a host's state of a session; answers by `deliver`."""
        self._known: set[MappingKey] = set()
        """Entries that are in the device, or on their way there."""
        self._unrouted: dict[MappingKey, _Install] = {}
        self._timers: dict[tuple[int, TimerId], asyncio.TimerHandle] = {}
        self._traffic = traffic
        self._told = Told()
        self._asking: set[asyncio.Task[None]] = set()

    @property
    def entries(self) -> int:
        """Session entries in the device."""
        return len(self._known)

    def _no_state(self, host: int, call: StateCall) -> None:
        why = f"nothing is configured that could {call.verb.value} a session's state at this host"
        failed = StateFailed(call.call, call.session, why)
        asyncio.get_running_loop().call_soon(self.deliver, host, failed)

    def start(self, agents: dict[int, Agent], known: Iterable[MappingKey]) -> None:
        """Begin anew with these agents, and with the entries that the device holds."""
        self.stop()
        self.agents = agents
        self._known = set(known)

    def stop(self) -> None:
        """Drop what is under way. The agents stay, to be looked at."""
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()
        for task in self._asking:
            task.cancel()
        for install in self._unrouted.values():
            install.gone = True
        self._unrouted.clear()

    # Events in

    def packet_in(self, packet: PacketIn) -> None:
        """A packet for one of our agents."""
        if packet.reason is Reason.LEG:
            self.legs.report(packet.frame)
            return
        if packet.host not in self.agents:
            self.counters["packet_in_unknown_host"] += 1
            return
        self.deliver(packet.host, packet)

    def idle(self, key: MappingKey) -> None:
        """An entry's idle time-out ran out."""
        if key in self._known and key.host in self.agents:
            self.deliver(key.host, Idle(key))

    def deliver(self, host: int, event: Event) -> Sequence[Action]:
        """Hand an event to the agent of `host`, and do what it asks for: that is returned."""
        actions = self._handle(host, event)
        self.execute(host, actions)
        return actions

    def _handle(self, host: int, event: Event) -> Sequence[Action]:
        try:
            with self.spent.timed():
                return self.agents[host].handle(event, clock())
        except Exception:
            # The bulkhead: whatever one packet does to one agent, all other sessions go on.
            self.counters["agent_error"] += 1
            log.exception("agent of host %d failed on %s; please report this", host, event)
            return ()

    # Actions out

    def execute(self, host: int, actions: Iterable[Action]) -> None:
        """Do what an agent asks for, in order."""
        for action in actions:
            match action:
                case Send(frame, submit, port):
                    self._device.packet_out(port, submit, frame)
                case Install():
                    self._install(host, action)
                case Remove(keys):
                    self.remove(keys)
                case SetLeg() | QueryLeg() | Announce() | SplitAt() | EndHold() | SeedLeg():
                    self.legs.do(host, action)
                case Keep(session, record):
                    self.keep(host, session, record)
                case Progress():
                    self.progress(host, action)
                case SetTimer(timer, after):
                    self._set_timer(host, timer, after)
                case CancelTimer(timer):
                    if handle := self._timers.pop((host, timer), None):
                        handle.cancel()
                case Tell():
                    self._told.tell(action)
                case StateCall():
                    self.call_state(host, action)

    def _set_timer(self, host: int, timer: TimerId, after: float) -> None:
        if handle := self._timers.get((host, timer)):
            handle.cancel()
        loop = asyncio.get_running_loop()
        self._timers[host, timer] = loop.call_later(after, self._fire, host, timer)

    def _fire(self, host: int, timer: TimerId) -> None:
        del self._timers[host, timer]
        session = self.agents[host].sessions.get(timer.subject)
        if timer.kind != "session" or session is None or session.state not in SETTING_UP:
            self.deliver(host, TimerFired(timer))
            return
        task = asyncio.get_running_loop().create_task(self._set_up_in_time(host, timer, session))
        self._asking.add(task)
        task.add_done_callback(self._asking.discard)

    async def _set_up_in_time(self, host: int, timer: TimerId, session: Session) -> None:
        """Before a set-up is given up: copies of packets can be lost, the counters can't."""
        try:
            await self._look_for_answers(host, [session])
        except (DeviceError, P4ClientError):
            self.counters["answer_unknown"] += 1
        if (host, timer) not in self._timers and session.state in SETTING_UP:
            self.deliver(host, TimerFired(timer))

    async def look_for_answers(self) -> None:
        """After a restart: which set-ups were answered while no agent was there.

        Raises DeviceError and P4ClientError.
        """
        for host, agent in self.agents.items():
            found = [s for s in agent.sessions.values() if s.state in SETTING_UP]
            for start in range(0, len(found), MAX_ASKED):
                await self._look_for_answers(host, found[start : start + MAX_ASKED])

    async def _look_for_answers(self, host: int, sessions: Sequence[Session]) -> None:
        """Both ways count: a lone packet to the host may be an ICMP error about the SYN."""
        legs = {session.id: session.legs for session in sessions}
        counted = await self._traffic([k for of in legs.values() for leg in of for k in leg.keys])
        used = {key for key, (packets, _) in counted.items() if packets}
        for number, of in legs.items():
            keys = tuple(key for leg in of if used.issuperset(leg.keys) for key in leg.keys)
            if keys and host in self.agents:
                self.deliver(host, Answered(number, keys))

    # Install and remove

    def _install(self, host: int, action: Install) -> None:
        missing = {
            m.mapped.dst
            for m in action.mappings
            if m.key.side is Side.OUTBOUND and not self._routes.is_ready(m.mapped.dst)
        }
        install = _Install(host, action, len(missing))
        if not missing:
            self._write(install, action.mappings)
            return
        for mapping in action.mappings:
            self._unrouted[mapping.key] = install
        for address in missing:
            self._routes.ensure(address, partial(self._routed, install))

    def _routed(self, install: _Install, problem: str) -> None:
        if install.gone:
            return
        install.missing -= 1
        if problem or not install.missing:
            self._forget_unrouted(install)
            if problem:
                self._failed(install, problem)
            else:
                self._write(install, install.action.mappings)

    def _forget_unrouted(self, install: _Install) -> None:
        install.gone = True
        for mapping in install.action.mappings:
            if self._unrouted.get(mapping.key) is install:
                del self._unrouted[mapping.key]

    def _write(
        self, install: _Install, mappings: Sequence[Mapping], *, again: bool = False
    ) -> None:
        updates = []
        for mapping in mappings:
            updates.append(self.mapping_update(mapping))
        keys = frozenset(m.key for m in mappings)
        # Nothing waits for a record that is brought up to date.
        patient = not install.action.then
        done = partial(self._written, install, mappings, again)
        self._device.writer.submit(updates, keys, done, patient=patient)

    def mapping_update(self, mapping: Mapping) -> p4r.Update:
        """What inserts or replaces a mapping in the device."""
        known = mapping.key in self._known
        kind = p4r.Update.MODIFY if known else p4r.Update.INSERT
        entity = p4r.Entity(table_entry=self._codec.entry(self.legs.with_slot(mapping)))
        self._known.add(mapping.key)
        return p4r.Update(type=kind, entity=entity)

    def _written(
        self, install: _Install, mappings: Sequence[Mapping], again: bool, errors: Errors
    ) -> None:
        if not errors:
            self.execute(install.host, install.action.then)
            return
        codes = {code for code, _ in errors.values()}
        if codes <= {rpc_code.ALREADY_EXISTS, rpc_code.NOT_FOUND} and not again:
            # A Write whose answer was lost left the device otherwise than we thought.
            self.counters["install_corrected"] += 1
            for i, (code, _) in errors.items():
                if code == rpc_code.NOT_FOUND:
                    self._known.discard(mappings[i].key)
            self._write(install, [mappings[i] for i in errors], again=True)
            return
        self.counters["install_failed"] += 1
        self.remove([m.key for m in install.action.mappings])
        self._failed(install, "; ".join(sorted({text for _, text in errors.values()})))

    def _failed(self, install: _Install, why: str) -> None:
        if install.host in self.agents:
            self.deliver(install.host, InstallFailed(install.action.token, why))

    def remove(self, keys: Sequence[MappingKey]) -> None:
        """Take mappings out of the device."""
        for key in keys:
            if unrouted := self._unrouted.get(key):
                self._forget_unrouted(unrouted)
        known = [key for key in keys if key in self._known]
        if not known:
            return
        self._known.difference_update(known)
        self.legs.removed(known)
        updates = [
            p4r.Update(
                type=p4r.Update.DELETE, entity=p4r.Entity(table_entry=self._codec.key_entry(key))
            )
            for key in known
        ]
        self._device.writer.submit(updates, frozenset(known), partial(self._removed, known))

    def _removed(self, keys: Sequence[MappingKey], errors: Errors) -> None:
        for i, (code, text) in errors.items():
            if code != rpc_code.NOT_FOUND:
                # What stays is found and taken out at the next reconciliation.
                self.counters["remove_failed"] += 1
                log.warning("entry %s could not be taken out: %s", keys[i], text)
