"""The legs of one device: which has which slot, and what of each is in the device.

    Mapping --> with_slot --> Mapping with a slot       removed --> its rows go, the slot is free
    SetLeg  --> routes there? --> mappings, second, token --> leg --> what is over out --> then
    QueryLeg, Announce, SplitAt, EndHold, SeedLeg --> packet-outs
    packet-in (Reason.LEG) --> LegReport

What one leg is asked for is done in the order of the asking, one after the other.
"""

from __future__ import annotations

import logging
from collections import Counter, deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Protocol

from finsy.proto import p4r, rpc_code

from dysco.agent.events import (
    Action,
    Announce,
    EndHold,
    HeldLeg,
    LegNews,
    LegRefused,
    LegReport,
    QueryLeg,
    SeedLeg,
    SetLeg,
    SplitAt,
    Submit,
)
from dysco.agent.model import Address, FiveTuple, Mapping, MappingKey, Side
from dysco.agent.packet import PacketError
from dysco.agent.reconfigure.state import Entry
from dysco.controller import legs
from dysco.controller.legs import SLOTS, LegCodec
from dysco.controller.p4device import P4Device
from dysco.controller.pipeline import Pipeline
from dysco.controller.routes import Routes
from dysco.controller.writer import Errors

log = logging.getLogger(__name__)

MAX_WAITING = 32
"""Changes of one leg; more are refused."""


LegAction = SetLeg | QueryLeg | Announce | SplitAt | EndHold | SeedLeg
"""What agents ask for of legs."""


class Owner(Protocol):
    """Who runs the agents."""

    def mapping_update(self, mapping: Mapping) -> p4r.Update:
        """Inserts or replaces a mapping."""

    def remove(self, keys: Sequence[MappingKey]) -> None:
        """Takes mappings out."""

    def execute(self, host: int, actions: Iterable[Action]) -> None:
        """Does what an agent asks for."""

    def deliver(self, host: int, event: LegReport | LegRefused) -> object:
        """Hands an event to an agent."""


@dataclass(slots=True, eq=False)
class _Rows:
    """What the device holds of a leg, beside its mappings."""

    key: MappingKey
    has_leg: bool = False
    second: FiveTuple | None = None
    token: int | None = None
    waiting: deque[SetLeg] = field(default_factory=deque)
    """The first one is under way."""
    undo: list[p4r.Update] = field(default_factory=list)
    """Takes out the rows that it may have put in, and that are not noted above yet."""


class LegTable:
    """The legs of one device."""

    def __init__(self, pipeline: Pipeline, device: P4Device, routes: Routes, owner: Owner) -> None:
        self.counters: Counter[str] = Counter()
        self._codec = LegCodec(pipeline)
        self._device, self._routes, self._owner = device, routes, owner
        self._slots: dict[MappingKey, int] = {}
        self._rows: dict[int, _Rows] = {}
        self._free: deque[int] = deque()
        self._unused = 1

    @property
    def table_ids(self) -> tuple[int, ...]:
        """Ids of the tables that hold rows of legs."""
        return self._codec.table_ids

    @property
    def tracked(self) -> int:
        """Legs that have a slot."""
        return len(self._slots)

    # Beginning.

    def start(
        self, mappings: Iterable[Mapping], entries: Iterable[p4r.TableEntry]
    ) -> dict[int, tuple[HeldLeg, ...]]:
        """Begin with what the device holds: the legs of each host. Rows of no leg are taken out."""
        self._slots = {m.key: m.slot for m in mappings if m.slot and m.key.side is Side.OUTBOUND}
        used = set(self._slots.values())
        self._rows = {slot: _Rows(key) for key, slot in self._slots.items()}
        self._unused = max(used, default=0) + 1
        self._free = deque(slot for slot in range(1, self._unused) if slot not in used)
        constants: dict[int, Entry] = {}
        strays: list[p4r.TableEntry] = []
        leg_table, token_table, *_ = self._codec.table_ids
        for entry in entries:
            if entry.table_id == leg_table:
                slot, constant = self._codec.parse_leg(entry)
                if rows := self._rows.get(slot):
                    rows.has_leg = True
                    constants[slot] = constant
            elif entry.table_id == token_table:
                number, slot = self._codec.parse_token(entry)
                if rows := self._rows.get(slot):
                    rows.token = number
            else:
                slot, ends = self._codec.parse_second_path(entry)
                if rows := self._rows.get(slot):
                    rows.second = ends
            if slot not in self._rows:
                strays.append(p4r.TableEntry(table_id=entry.table_id, match=entry.match))
        if strays:
            self.counters["leg_strays"] += len(strays)
            self._device.writer.submit([_delete(s) for s in strays], frozenset({"strays"}), _ignore)
        held: dict[int, list[HeldLeg]] = {}
        for slot, constant in constants.items():
            rows = self._rows[slot]
            held.setdefault(rows.key.host, []).append(HeldLeg(rows.key, constant, rows.second))
        return {host: tuple(found) for host, found in held.items()}

    # Slots.

    def with_slot(self, mapping: Mapping) -> Mapping:
        """The mapping as it goes to the device: a leg gets a slot with its outbound mapping."""
        key = mapping.key
        if key.side is Side.INBOUND:
            key = MappingKey(Side.OUTBOUND, key.host, mapping.mapped.reversed)
        return replace(mapping, slot=self._slots.get(key) or self._new_slot(key))

    def _new_slot(self, key: MappingKey) -> int:
        if self._free:
            slot = self._free.popleft()
        elif self._unused < SLOTS:
            slot, self._unused = self._unused, self._unused + 1
        else:
            self.counters["legs_untracked"] += 1
            return 0
        self._slots[key] = slot
        self._rows[slot] = _Rows(key)
        return slot

    def removed(self, keys: Iterable[MappingKey]) -> None:
        """These mappings go: with its outbound mapping a leg is over."""
        for key in keys:
            slot = self._slots.pop(key, 0)
            if not slot:
                continue
            rows = self._rows.pop(slot)
            waiting = list(rows.waiting)
            rows.waiting.clear()
            updates = [*rows.undo, *self._deletes(slot, rows, None)]
            if rows.has_leg:
                updates.insert(0, _delete(self._codec.leg_key(slot)))
            for action in waiting:
                self._owner.remove(action.remove)
            if updates:
                freed = partial(_freed, self._free, slot)
                self._device.writer.submit(updates, _line(slot), freed)
            else:
                self._free.append(slot)

    # What agents ask for.

    def do(self, host: int, action: LegAction) -> None:
        """Carry it out."""
        match action:
            case SetLeg():
                self._set(host, action)
            case QueryLeg(key) | EndHold(key) | SeedLeg(key):
                if slot := self._slots.get(key):
                    self._ask(slot, action)
                else:
                    self.counters["query_without_leg"] += 1
            case Announce():
                a = action
                frame = legs.announcement(
                    *(a.token, a.epoch, a.src, a.dst, a.src_mac),
                    cutoff=a.cutoff,
                    edge=a.edge,
                    known=a.known,
                )
                self._device.packet_out(0, action.submit, frame)
            case SplitAt():
                self._split(action)

    def _ask(self, slot: int, action: QueryLeg | EndHold | SeedLeg) -> None:
        """What the data plane does with a leg's registers."""
        match action:
            case QueryLeg():
                self._device.packet_out(0, Submit.QUERY, legs.query(slot))
            case EndHold(_, hold):
                self._device.packet_out(0, Submit.END_HOLD, legs.end_hold(slot, hold))
            case SeedLeg(_, registers):
                self._device.packet_out(0, Submit.SEED, legs.seed(slot, registers))

    def _split(self, action: SplitAt) -> None:
        try:
            parts = legs.split(action.frame, action.cutoff)
        except (ValueError, PacketError) as error:
            # TCP sends it again, maybe in other pieces.
            self.counters["split_failed"] += 1
            log.info("a segment across a cutoff was dropped: %s", error)
            return
        for part in parts:
            self._device.packet_out(action.port, Submit.HOST, part)

    def report(self, frame: bytes) -> None:
        """A packet-in with Reason.LEG."""
        try:
            report = legs.parse_report(frame)
        except ValueError:
            self.counters["report_malformed"] += 1
            return
        rows = self._rows.get(report.slot)
        if rows is None:
            self.counters["report_without_leg"] += 1
            return
        news = LegNews(int(report.events))
        self._owner.deliver(rows.key.host, LegReport(rows.key, news, report.registers))

    def _set(self, host: int, action: SetLeg) -> None:
        slot = self._slots.get(action.key)
        if slot is None:
            self._owner.remove(action.remove)
            if action.entry is not None:
                why = f"the device tracks no more than {SLOTS - 1} legs, and not this one"
                self._owner.deliver(host, LegRefused(action.key, why))
            return
        rows = self._rows[slot]
        if len(rows.waiting) >= MAX_WAITING:
            self.counters["leg_overflow"] += 1
            self._owner.deliver(host, LegRefused(action.key, "too many changes are waiting"))
            return
        rows.waiting.append(action)
        if len(rows.waiting) == 1:
            self._next(slot, rows)

    def _next(self, slot: int, rows: _Rows) -> None:
        """The first change that waits: are there routes for what it sends?"""
        action = rows.waiting[0]
        wanted = {m.mapped.dst for m in action.mappings if m.key.side is Side.OUTBOUND}
        if action.second is not None:
            wanted.add(action.second.dst)
        left = len(wanted)

        def routed(problem: str) -> None:
            nonlocal left
            left -= 1
            if problem and left >= 0:
                left = -1
                self._refused(slot, rows, problem)
            elif left == 0:
                self._prepare(slot, rows)

        if not wanted:
            self._prepare(slot, rows)
        for address in wanted:
            self._ensure(address, routed)

    def _ensure(self, address: Address, then: Callable[[str], None]) -> None:
        self._routes.ensure(address, then)

    def _prepare(self, slot: int, rows: _Rows) -> None:
        """What must be there before the leg's constants."""
        if not rows.waiting or self._rows.get(slot) is not rows:
            return
        action = rows.waiting[0]
        updates = [self._owner.mapping_update(m) for m in action.mappings]
        if action.second is not None and action.second != rows.second:
            known = rows.second is not None and rows.second.src.version == action.second.src.version
            entry = self._codec.second_path(slot, action.second)
            updates.append(_write(entry, known=known))
            version = action.second.src.version
            rows.undo.append(_delete(self._codec.second_path_key(slot, version)))
        if action.token is not None and action.token != rows.token:
            updates.append(_write(self._codec.token(action.token, slot), known=False))
            rows.undo.append(_delete(self._codec.token_key(action.token)))
        keys = frozenset(m.key for m in action.mappings) | _line(slot)

        def written(errors: Errors) -> None:
            if why := _serious(errors):
                self._refused(slot, rows, why)
            else:
                self._constants(slot, rows)

        if updates:
            self._device.writer.submit(updates, keys, written)
        else:
            self._constants(slot, rows)

    def _constants(self, slot: int, rows: _Rows) -> None:
        if not rows.waiting or self._rows.get(slot) is not rows:
            return
        entry = rows.waiting[0].entry
        if entry is not None:
            update = _write(self._codec.leg(slot, entry), known=rows.has_leg)
            if not rows.has_leg:
                rows.undo.append(_delete(self._codec.leg_key(slot)))
        elif rows.has_leg:
            update = _delete(self._codec.leg_key(slot))
        else:
            self._settle(slot, rows)
            return

        def written(errors: Errors) -> None:
            if why := _serious(errors):
                self._refused(slot, rows, why)
            else:
                rows.has_leg = entry is not None
                self._settle(slot, rows)

        self._device.writer.submit([update], _line(slot), written)

    def _settle(self, slot: int, rows: _Rows) -> None:
        """The constants are in: what is over goes, what waited for them is done."""
        if not rows.waiting or self._rows.get(slot) is not rows:
            return
        action = rows.waiting.popleft()
        updates = self._deletes(slot, rows, action)
        rows.second, rows.token = action.second, action.token
        rows.undo.clear()
        if updates:
            self._device.writer.submit(updates, _line(slot), _ignore)
        self._owner.remove(action.remove)
        if rows.waiting:
            self._next(slot, rows)
        self._owner.execute(rows.key.host, action.then)

    def _deletes(self, slot: int, rows: _Rows, action: SetLeg | None) -> list[p4r.Update]:
        """Rows that are there and not wanted any more."""
        updates = []
        second = action.second if action is not None else None
        token = action.token if action is not None else None
        if rows.token is not None and rows.token != token:
            updates.append(_delete(self._codec.token_key(rows.token)))
        if rows.second is not None and (
            second is None or second.src.version != rows.second.src.version
        ):
            version = rows.second.src.version
            updates.append(_delete(self._codec.second_path_key(slot, version)))
        return updates

    def _refused(self, slot: int, rows: _Rows, why: str) -> None:
        if not rows.waiting or self._rows.get(slot) is not rows:
            return
        action = rows.waiting.popleft()
        self.counters["leg_refused"] += 1
        if rows.undo:
            self._device.writer.submit(list(rows.undo), _line(slot), _ignore)
            rows.undo.clear()
            if action.second != rows.second:
                rows.second = None
        if rows.waiting:
            self._next(slot, rows)
        self._owner.deliver(rows.key.host, LegRefused(rows.key, why))


def _freed(free: deque[int], slot: int, _errors: Errors) -> None:
    free.append(slot)


def _line(slot: int) -> frozenset[object]:
    """What keeps the writes of one leg in order."""
    return frozenset({("leg", slot)})


def _write(entry: p4r.TableEntry, *, known: bool) -> p4r.Update:
    kind = p4r.Update.MODIFY if known else p4r.Update.INSERT
    return p4r.Update(type=kind, entity=p4r.Entity(table_entry=entry))


def _delete(entry: p4r.TableEntry) -> p4r.Update:
    return p4r.Update(type=p4r.Update.DELETE, entity=p4r.Entity(table_entry=entry))


def _serious(errors: Errors) -> str:
    """Why a batch failed; a row that was there already, or not, is no reason."""
    fine = (rpc_code.ALREADY_EXISTS, rpc_code.NOT_FOUND)
    return "; ".join(sorted({text for code, text in errors.values() if code not in fine}))


def _ignore(errors: Errors) -> None:
    """What stays is found and taken out at the next reconciliation."""
    if why := _serious(errors):
        log.warning("rows of a leg could not be taken out: %s", why)
