"""Action profiles and selectors, value sets, direct meters and what the program says."""

from __future__ import annotations

import logging
import struct

import pytest
from conftest import Loader
from test_features import crc16

from softnic.dataplane import (
    GROUP,
    MEMBER,
    CounterValue,
    Entry,
    GroupMember,
    Match,
    MeterConfig,
    Op,
    Status,
    Update,
)
from softnic.native import NativeDataPlane

HOPS, FATES = "I.hops", "I.fates"


def frame(kind: int = 0, tag: int = 0, flow: int = 0, dst: int = 0) -> bytes:
    return struct.pack(">HHBB", kind, tag << 12 | flow, dst, 0)


def route(op: Op, dst: int, action: str, number: int) -> Update:
    match = Match(bytes([dst]), b"\xff")
    return Update(op, "I.route", Entry(match, action, number.to_bytes(4, "big")))


def via(port: int) -> bytes:
    return port.to_bytes(2, "big")


def with_members(load: Loader, count: int = 4) -> NativeDataPlane:
    """Member n sends to port 10 + n."""
    plane = load("groups")
    for n in range(1, count + 1):
        assert plane.set_member(HOPS, n, "I.via", via(10 + n)) == Status.OK
    return plane


def test_members_are_shared_and_changed_in_place(load: Loader) -> None:
    plane = with_members(load)
    assert plane.write([route(Op.INSERT, d, MEMBER, 2) for d in (1, 2)]) == [0, 0]
    assert [plane.inject(1, frame(dst=d))[0][0] for d in (1, 2)] == [12, 12]
    assert plane.set_member(HOPS, 2, "I.drop", b"") == Status.OK
    assert [plane.inject(1, frame(dst=d)) for d in (1, 2)] == [[], []]
    found = plane.entry("I.route", Match(b"\1", b"\xff"))
    assert found is not None
    assert found[0] == Entry(Match(b"\1", b"\xff"), MEMBER, b"\0\0\0\2")


def test_a_group_chooses_by_its_hash(load: Loader) -> None:
    plane = with_members(load)
    assert plane.set_group(HOPS, 7, [GroupMember(3), GroupMember(1, weight=2)]) == Status.OK
    assert plane.write([route(Op.INSERT, 1, GROUP, 7)]) == [0]
    slots = [11, 11, 13]  # by the order of the members' numbers, as bmv2
    seen = set()
    for flow in range(64):
        ((port, _),) = plane.inject(1, frame(flow=flow, dst=1))
        # 12 bits fill two bytes from the left
        assert port == slots[crc16(struct.pack(">H", flow << 4)) % 3]
        seen.add(port)
    assert seen == {11, 13}


def test_what_is_referred_to_stays(load: Loader) -> None:
    plane = with_members(load)
    assert plane.set_group(HOPS, 7, [GroupMember(1)]) == Status.OK
    assert plane.write([route(Op.INSERT, 1, GROUP, 7), route(Op.INSERT, 2, MEMBER, 2)]) == [0, 0]
    assert plane.delete_group(HOPS, 7) == Status.IN_USE
    assert [plane.delete_member(HOPS, n) for n in (1, 2, 3)] == [5, 5, 0]
    assert plane.write([route(Op.MODIFY, 2, GROUP, 7), route(Op.DELETE, 1, GROUP, 7)]) == [0, 0]
    assert plane.delete_member(HOPS, 2) == Status.OK
    assert plane.delete_group(HOPS, 7) == Status.IN_USE
    assert plane.write([route(Op.DELETE, 2, GROUP, 7)]) == [0]
    assert plane.delete_group(HOPS, 7) == Status.OK
    assert plane.delete_member(HOPS, 1) == Status.OK
    assert plane.delete_member(HOPS, 1) == plane.delete_group(HOPS, 7) == Status.NOT_FOUND


def test_references_must_exist(load: Loader) -> None:
    plane = with_members(load)
    assert plane.write([route(Op.INSERT, 1, MEMBER, 9), route(Op.INSERT, 1, GROUP, 1)]) == [4, 4]
    assert plane.write([route(Op.INSERT, 1, "I.drop", 0)]) == [Status.INVALID]
    assert plane.set_group(HOPS, 1, [GroupMember(9)]) == Status.INVALID
    assert plane.set_group(HOPS, 1, [GroupMember(1, weight=0)]) == Status.INVALID
    assert plane.set_group(FATES, 1, []) == Status.INVALID  # it has no selector
    assert plane.set_member(HOPS, 1, "I.note", b"\1") == Status.INVALID
    assert plane.set_member(HOPS, 1, "I.via", b"\1") == Status.INVALID


def test_a_refused_entry_holds_no_reference(load: Loader) -> None:
    plane = with_members(load)
    assert plane.write([route(Op.INSERT, 1, MEMBER, 1), route(Op.INSERT, 1, MEMBER, 2)]) == [0, 1]
    assert plane.write([route(Op.MODIFY, 9, MEMBER, 2)]) == [Status.NOT_FOUND]
    assert plane.delete_member(HOPS, 2) == Status.OK


def test_members_of_ports_that_are_down_are_not_chosen(load: Loader) -> None:
    plane = with_members(load)
    rows = [GroupMember(1, watch_port=40), GroupMember(2)]  # there is no port 40
    assert plane.set_group(HOPS, 7, rows) == Status.OK
    assert plane.write([route(Op.INSERT, 1, GROUP, 7)]) == [0]
    assert {plane.inject(1, frame(flow=f, dst=1))[0][0] for f in range(16)} == {12}
    assert plane.set_group(HOPS, 7, []) == Status.OK
    # Nobody to choose: a hit that does nothing.
    assert {plane.inject(1, frame(flow=f, dst=1))[0][0] for f in range(16)} == {0}


def test_a_full_profile(load: Loader) -> None:
    plane = load("groups")
    status = [plane.set_member(FATES, 100 - n, "I.note", bytes([n])) for n in range(10)]
    assert status == [Status.OK] * 8 + [Status.FULL] * 2


def test_a_profile_without_selector_tells_hits(load: Loader) -> None:
    plane = load("groups")
    assert plane.set_member(FATES, 5, "I.note", b"\x42") == Status.OK
    entry = Entry(Match(b"\3", b"\xff"), MEMBER, b"\0\0\0\5")
    assert plane.write([Update(Op.INSERT, "I.fate", entry)]) == [0]
    assert plane.inject(1, frame(kind=1, dst=3)) == [(0, struct.pack(">HHBB", 1, 0xF000, 3, 0x42))]
    assert plane.inject(1, frame(kind=1, dst=4)) == [(0, struct.pack(">HHBB", 1, 0, 4, 0xEE))]


def test_value_sets(load: Loader) -> None:
    plane = load("groups")

    def seen(kind: int, tag: int) -> int:
        return plane.inject(1, frame(kind=kind, tag=tag))[0][1][-1]

    assert [seen(0, 0), seen(7, 1), seen(0x1234, 5)] == [0, 0xEE, 0xEE]
    members = [(b"\0\7\1", b"\xff\xff\xff"), (b"\x12\0\5", b"\xff\0\xff")]
    assert plane.set_value_set("P.kinds", members) == Status.OK
    assert [seen(0, 0), seen(7, 1), seen(0x1234, 5), seen(0x1234, 6)] == [0, 0x55, 0x55, 0xEE]
    assert plane.set_value_set("P.kinds", members * 3) == Status.FULL
    assert plane.set_value_set("P.kinds", [(b"\0", b"\0")]) == Status.INVALID
    assert plane.set_value_set("P.kinds", []) == Status.OK
    assert seen(7, 1) == 0xEE


def test_direct_meters_and_counters(load: Loader) -> None:
    plane = load("groups")
    match = Match(b"\0", b"\0", 3)
    assert plane.write([Update(Op.INSERT, "I.limit", Entry(match, "I.paint", b""))]) == [0]
    assert plane.direct_meter("I.limit", match) is None
    config = MeterConfig(cir=0, cburst=12, pir=0, pburst=18)  # frames of 6 bytes
    assert plane.set_direct_meter("I.limit", match, config) == Status.OK
    assert plane.direct_meter("I.limit", match) == config
    assert [plane.inject(1, frame())[0][1][-1] for _ in range(5)] == [0, 0, 1, 2, 2]
    found = plane.entry("I.limit", match)
    assert found is not None
    assert found[1].packets == CounterValue(5, 30).packets
    assert plane.set_direct_meter("I.limit", Match(b"\1", b"\1", 3), config) == Status.NOT_FOUND
    assert plane.set_direct_meter("I.route", match, config) == Status.INVALID
    # An entry that takes the place of another starts without rates.
    gone = Update(Op.DELETE, "I.limit", Entry(match, "I.paint", b""))
    assert plane.write([gone, Update(Op.INSERT, "I.limit", gone.entry)]) == [0, 0]
    assert plane.direct_meter("I.limit", match) is None


def test_messages_and_failed_assertions_are_logged(
    load: Loader, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "softnic.program"):
        plane = load("sums")
        plane.inject(1, b"\x2a\xff" + bytes(4) + b"\0\0\0\0\1\0")
        assert plane.events(0.0) == []
    said = [r.getMessage() for r in caplog.records]
    assert said[0] == "softnic: op 42 of x 256"
    assert said[1].startswith("softnic: assert failed (sums.p4:")


def test_nobody_listens_by_default(load: Loader, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "softnic.program"):
        plane = load("sums")
        plane.inject(1, b"\x2a\xff" + bytes(10))
        plane.events(0.0)
    assert not caplog.records
