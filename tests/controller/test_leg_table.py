"""Slots, rows and their order: what the table of legs writes, and what it leaves behind."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from ipaddress import ip_address
from typing import Any

import pytest
from finsy.proto import p4r, rpc_code

from dysco.agent.events import (
    Action,
    Announce,
    LegNews,
    LegRefused,
    LegReport,
    QueryLeg,
    Send,
    SetLeg,
    SplitAt,
    Submit,
)
from dysco.agent.model import Address, FiveTuple, Mapping, MappingKey, Side
from dysco.agent.reconfigure.frames import to_frame
from dysco.agent.reconfigure.segment import ACK, Segment
from dysco.agent.reconfigure.state import Entry, NewWay
from dysco.controller import pipeline
from dysco.controller.leg_table import MAX_WAITING, LegTable
from dysco.controller.legs import SLOTS, LegCodec, query
from dysco.controller.writer import Errors

HOST = 1
PIPELINE = pipeline.load()
CODEC = LegCodec(PIPELINE)
NAMES = {table.id: name for name, table in PIPELINE.tables.items()}
ENTRY = Entry(new=NewWay(7, 1, 2, 3, 0, 0, 0, None, 0))
EXISTS, FULL = int(rpc_code.ALREADY_EXISTS), int(rpc_code.RESOURCE_EXHAUSTED)


def ends(number: int, version: int = 4) -> FiveTuple:
    start = "10.0.0." if version == 4 else "fd00::"
    return FiveTuple(ip_address(f"{start}1"), number, ip_address(f"{start}2"), number)


def mapping(number: int = 1) -> Mapping:
    return Mapping(MappingKey(Side.OUTBOUND, HOST, ends(number)), ends(1000 + number), b"", 1.0)


def inbound(number: int) -> Mapping:
    """Of a second path of the leg that `mapping()` begins."""
    key = MappingKey(Side.INBOUND, HOST, ends(number).reversed)
    return Mapping(key, ends(1).reversed, b"", 1.0, path=1)


class World:
    """A device that is told when to answer, its routes, and who runs the agents."""

    def __init__(self) -> None:
        self.rows: set[tuple[str, bytes]] = set()
        """What the device holds: tables' names and keys."""
        self.pending: list[tuple[list[p4r.Update], Callable[[Errors], None]]] = []
        self.sent: list[tuple[Submit, bytes]] = []
        self.events: list[LegReport | LegRefused] = []
        self.removed: list[MappingKey] = []
        self.done: list[Action] = []
        self.unrouted: list[Callable[[str], None]] = []
        self.has_routes = True
        self.writer = self
        self.table = LegTable(PIPELINE, self, self, self)  # type: ignore[arg-type]
        self.key = self.add(1)

    def add(self, number: int) -> MappingKey:
        """A leg gets its outbound mapping."""
        self.slot = self.table.with_slot(mapping(number)).slot
        return mapping(number).key

    # The device, its writer.

    def packet_out(self, port: int, submit: Submit, frame: bytes) -> None:
        self.sent.append((submit, frame))

    def submit(
        self,
        updates: list[p4r.Update],
        keys: frozenset[Any],
        done: Callable[[Errors], None],
        *,
        patient: bool = False,
    ) -> None:
        self.pending.append((updates, done))

    def answer(self, errors: Errors | None = None) -> list[str]:
        """The oldest write is carried out; what it changed."""
        updates, done = self.pending.pop(0)
        names = []
        for index, update in enumerate(updates):
            entry = update.entity.table_entry
            name = NAMES[entry.table_id]
            row = (name, entry.match[0].SerializeToString())
            kind = p4r.Update.Type.Name(update.type).lower()
            names.append(f"{kind} {name}")
            if index in (errors or {}):
                continue
            if update.type == p4r.Update.DELETE:
                self.rows.discard(row)
            else:
                self.rows.add(row)
        done(errors or {})
        return names

    def settle(self) -> None:
        """All writes are carried out."""
        while self.pending:
            self.answer()

    # Routes.

    def ensure(self, address: Address, then: Callable[[str], None]) -> None:
        if self.has_routes:
            then("")
        else:
            self.unrouted.append(then)

    # Who runs the agents.

    def mapping_update(self, mapping: Mapping) -> p4r.Update:
        table = PIPELINE.tables["inbound_v4"]
        number = mapping.key.tuple.sport.to_bytes(2, "big")
        match = [p4r.FieldMatch(field_id=1, exact=p4r.FieldMatch.Exact(value=number))]
        entry = p4r.TableEntry(table_id=table.id, match=match)
        return p4r.Update(type=p4r.Update.INSERT, entity=p4r.Entity(table_entry=entry))

    def remove(self, keys: Sequence[MappingKey]) -> None:
        self.removed += keys

    def execute(self, host: int, actions: Iterable[Action]) -> None:
        self.done += actions

    def deliver(self, host: int, event: LegReport | LegRefused) -> None:
        self.events.append(event)

    # Shorthand.

    def set(self, **changes: Any) -> None:
        self.table.do(HOST, replace(SetLeg(self.key, ENTRY), **changes))

    @property
    def held(self) -> list[str]:
        """Names of the tables that hold rows, once for each row."""
        return sorted(name for name, _ in self.rows)


@pytest.fixture
def world() -> World:
    return World()


AFTER = (Send(b"frame", Submit.ROUTE),)


def test_what_a_new_way_needs_comes_before_its_constants_and_the_rest_after(world: World) -> None:
    world.set(second=ends(5), token=7, mappings=(inbound(5),), then=AFTER)
    assert world.answer() == ["insert inbound_v4", "insert second_path_v4", "insert token"]
    assert not world.done
    assert world.answer() == ["insert leg"]
    assert tuple(world.done) == AFTER
    world.set(entry=Entry(), second=ends(5), remove=(inbound(5).key,))
    assert world.answer() == ["modify leg"]
    assert world.answer() == ["delete token"]
    assert world.removed == [inbound(5).key]
    assert world.held == ["inbound_v4", "leg", "second_path_v4"]


def test_changes_of_a_leg_keep_their_order(world: World) -> None:
    world.set(second=ends(5))
    world.set(entry=Entry(), then=AFTER)
    assert len(world.pending) == 1
    assert world.answer() == ["insert second_path_v4"]
    assert world.answer() == ["insert leg"]
    assert world.answer() == ["modify leg"]
    assert world.answer() == ["delete second_path_v4"]
    assert world.held == ["leg"]


def test_the_second_path_is_replaced_in_place_or_in_the_other_table(world: World) -> None:
    world.set(second=ends(5))
    world.settle()
    world.set(second=ends(6))
    assert world.answer() == ["modify second_path_v4"]
    world.settle()
    world.set(second=ends(6, 6))
    assert world.answer() == ["insert second_path_v6"]
    world.settle()
    assert world.held == ["leg", "second_path_v6"]


@pytest.mark.parametrize("written", [0, 1, 2])
def test_a_leg_that_is_over_while_it_changes_leaves_nothing(world: World, written: int) -> None:
    """Its slot is another leg's next: a row that stayed would send that one's bytes elsewhere."""
    world.set(second=ends(5), token=7)
    for _ in range(written):
        world.answer()
    world.table.removed([world.key])
    world.settle()
    assert world.held == []
    assert world.table.tracked == 0
    slot = world.slot
    world.add(2)
    assert world.slot == slot


def test_a_leg_that_is_over_takes_what_still_waits_to_be_taken_out_along(world: World) -> None:
    world.set(second=ends(5), mappings=(inbound(5),))
    world.set(entry=None, remove=(inbound(5).key,))
    world.table.removed([world.key])
    assert world.removed == [inbound(5).key]
    world.settle()
    assert "leg" not in world.held
    assert "second_path_v4" not in world.held


def test_a_slot_is_free_only_when_its_rows_are_gone(world: World) -> None:
    first = world.slot
    world.set(second=ends(5))
    world.settle()
    world.table.removed([world.key])
    world.add(2)
    assert world.slot != first
    world.settle()
    world.add(3)
    assert world.slot == first


@pytest.mark.parametrize("refused", [0, 1])
def test_what_the_device_refuses_is_told_and_undone(world: World, refused: int) -> None:
    world.set(second=ends(5), token=7, then=AFTER)
    if refused:
        world.answer()
    world.answer({0: (FULL, "the table is full")})
    assert world.events == [LegRefused(world.key, "the table is full")]
    world.settle()
    assert world.held == []
    assert not world.done
    assert world.table.counters["leg_refused"] == 1
    world.set(second=ends(5), token=7)
    world.settle()
    assert world.held == ["leg", "second_path_v4", "token"]


def test_a_row_that_is_there_already_is_no_reason_to_refuse(world: World) -> None:
    world.set(second=ends(5), token=7, then=AFTER)
    world.answer({0: (EXISTS, "it exists")})
    world.settle()
    assert tuple(world.done) == AFTER


def test_the_next_change_goes_on_after_one_that_was_refused(world: World) -> None:
    world.set(second=ends(5))
    world.set(entry=Entry(), then=AFTER)
    world.answer({0: (FULL, "the table is full")})
    world.settle()
    assert tuple(world.done) == AFTER
    assert world.held == ["leg"]


def test_nothing_is_written_before_there_is_a_route(world: World) -> None:
    world.has_routes = False
    world.set(second=ends(5))
    assert not world.pending
    world.unrouted.pop()("")
    assert world.answer() == ["insert second_path_v4"]
    world.settle()
    world.set(second=ends(6))
    world.unrouted.pop()("nobody answers for 10.0.0.2")
    assert world.events == [LegRefused(world.key, "nobody answers for 10.0.0.2")]


def test_changes_that_wait_are_bounded(world: World) -> None:
    for _ in range(MAX_WAITING + 1):
        world.set()
    (refused,) = world.events
    assert isinstance(refused, LegRefused)
    assert "waiting" in refused.why
    assert world.table.counters["leg_overflow"] == 1


def test_legs_without_a_slot_can_not_be_changed(world: World) -> None:
    for number in range(2, SLOTS):
        world.add(number)
    assert world.table.counters["legs_untracked"] == 0
    key = world.add(SLOTS)
    assert world.slot == 0
    assert world.table.counters["legs_untracked"] == 1
    world.table.do(HOST, SetLeg(key, ENTRY, remove=(key,)))
    (refused,) = world.events
    assert isinstance(refused, LegRefused)
    assert "tracks no more" in refused.why
    assert world.removed == [key]
    world.table.do(HOST, QueryLeg(key))
    assert world.table.counters["query_without_leg"] == 1


def test_queries_and_announcements_go_out(world: World) -> None:
    world.table.do(HOST, QueryLeg(world.key))
    one, other = ip_address("10.0.0.1"), ip_address("10.0.0.2")
    world.table.do(HOST, Announce(Submit.LATCH, 7, 1, one, other, bytes(6)))
    assert [submit for submit, _ in world.sent] == [Submit.QUERY, Submit.LATCH]
    assert world.sent[0][1] == query(world.slot)


def test_reports_go_to_the_leg_of_their_slot(world: World) -> None:
    world.table.report(query(world.slot))
    (report,) = world.events
    assert isinstance(report, LegReport)
    assert (report.key, report.news) == (world.key, LegNews(0))
    world.table.report(query(99))
    world.table.report(b"something else")
    assert world.table.counters["report_without_leg"] == 1
    assert world.table.counters["report_malformed"] == 1
    assert len(world.events) == 1


def test_a_segment_is_parted_at_the_cutoff_and_no_other(world: World) -> None:
    whole = to_frame(Segment(100, 0, ACK, 1000, b"abcdef"), ends(1), bytes(6)).build()
    world.table.do(HOST, SplitAt(whole, 103, 2))
    assert [submit for submit, _ in world.sent] == [Submit.HOST] * 2
    world.table.do(HOST, SplitAt(whole, 200, 2))
    assert world.table.counters["split_failed"] == 1
    assert len(world.sent) == 2


def test_a_restart_takes_up_what_the_device_holds(world: World) -> None:
    world.set(second=ends(5), token=7, mappings=(inbound(5),))
    entries = [
        CODEC.leg(4, ENTRY),
        CODEC.second_path(4, ends(5)),
        CODEC.token(7, 4),
        CODEC.leg(9, ENTRY),
        CODEC.token(8, 9),
    ]
    later = World()
    held = later.table.start([replace(mapping(), slot=4)], entries)
    (leg,) = held[HOST]
    assert (leg.key, leg.entry, leg.second) == (mapping().key, ENTRY, ends(5))
    assert later.table.counters["leg_strays"] == 2
    assert later.answer() == ["delete leg", "delete token"]
    later.key = mapping().key
    later.set(entry=Entry())
    assert later.answer() == ["modify leg"]
    assert sorted(later.answer()) == ["delete second_path_v4", "delete token"]
