"""Action profiles, meters and parser value sets (P4Runtime 1.4, 9.2 to 9.4 and 9.6)."""

from __future__ import annotations

import struct
from typing import Any

import grpc
import pytest
from finsy.proto import p4i, p4r
from p4rt import DELETE, INSERT, MODIFY, Client, Names, batch_codes, program_config
from target import Target

OK, INVALID, NOT_FOUND, EXISTS, FULL, PRECONDITION, RANGE = 0, 3, 5, 6, 8, 9, 11
NAMES = Names(program_config("groups").p4info)
PROFILES = {
    p.preamble.alias: p.preamble.id for p in program_config("groups").p4info.action_profiles
}
KINDS = program_config("groups").p4info.value_sets[0].preamble.id


@pytest.fixture
def client(bare: Target) -> Client:
    """The primary of a device that runs `groups`."""
    made = bare.client()
    made.names = NAMES
    made.primary()
    made.push(program_config("groups"))
    return made


def packet(kind: int = 0, tag: int = 0, flow: int = 0, dst: int = 1) -> bytes:
    return struct.pack(">HHBB", kind, tag << 12 | flow, dst, 0)


def member(number: int, port: int, profile: str = "hops") -> p4r.Entity:
    """A member of `hops` that sends to a port."""
    message = p4r.ActionProfileMember(action_profile_id=PROFILES[profile], member_id=number)
    message.action.CopyFrom(NAMES.action("via", bytes([port])).action)
    return p4r.Entity(action_profile_member=message)


def group(number: int, *members: tuple[int, int, bytes | None], **more: Any) -> p4r.Entity:
    """A group of `hops`: member, weight and watched port of each."""
    message = p4r.ActionProfileGroup(action_profile_id=PROFILES["hops"], group_id=number, **more)
    for member_id, weight, watch in members:
        message.members.add(member_id=member_id, weight=weight, watch_port=watch)
    return p4r.Entity(action_profile_group=message)


def route(**action: int) -> p4r.Entity:
    return NAMES.entry("route", {"h.data.dst": (b"\1", 8)}, p4r.TableAction(**action))


def code(client: Client, kind: Any, entity: p4r.Entity) -> int:
    with pytest.raises(grpc.RpcError) as error:
        client.write((kind, entity))
    return batch_codes(error.value)[0]


def ports(bare: Target) -> list[int]:
    """Where flows leave."""
    return [bare.plane.inject(1, packet(flow=flow))[0][0] for flow in range(0, 4096, 41)]


# -- profiles ------------------------------------------------------------------------------


def test_entries_share_members(client: Client, bare: Target) -> None:
    client.insert(member(1, 11), member(2, 12), route(action_profile_member_id=1))
    assert set(ports(bare)) == {11}
    client.write((MODIFY, member(1, 13)))
    assert set(ports(bare)) == {13}
    client.write((MODIFY, route(action_profile_member_id=2)))
    assert set(ports(bare)) == {12}
    assert client.read(NAMES.entry("route")) == [route(action_profile_member_id=2)]


def test_groups_share_flows_by_weight(client: Client, bare: Target) -> None:
    client.insert(member(1, 11), member(2, 12), group(7, (1, 3, None), (2, 1, None)))
    client.insert(route(action_profile_group_id=7))
    found = ports(bare)
    assert found == ports(bare)  # a flow stays where it is
    assert len(found) > found.count(11) > found.count(12) > 0
    client.write((MODIFY, group(7, (2, 1, None))))
    assert set(ports(bare)) == {12}
    assert client.read(NAMES.entry("route")) == [route(action_profile_group_id=7)]


def test_a_member_whose_port_is_down_is_not_chosen(client: Client, bare: Target) -> None:
    """Port 99 has no link."""
    client.insert(member(1, 11), member(2, 12), group(7, (1, 1, None), (2, 1, b"\x63")))
    client.insert(route(action_profile_group_id=7))
    assert set(ports(bare)) == {11}


def test_members_and_groups_are_read_as_written(client: Client) -> None:
    entities = [
        member(1, 11),
        member(2, 12),
        group(7, (1, 3, None), (2, 1, b"\5"), max_size=4),
        group(8),
    ]
    client.insert(*entities)
    every = p4r.Entity(action_profile_member=p4r.ActionProfileMember())
    assert client.read(every) == entities[:2]
    every = p4r.Entity(action_profile_group=p4r.ActionProfileGroup())
    assert client.read(every) == entities[2:]
    one = p4r.ActionProfileMember(action_profile_id=PROFILES["hops"], member_id=2)
    assert client.read(p4r.Entity(action_profile_member=one)) == [entities[1]]
    assert client.read(group(8)) == [entities[3]]
    other = p4r.ActionProfileMember(action_profile_id=PROFILES["fates"])
    assert client.read(p4r.Entity(action_profile_member=other)) == []


def test_what_is_in_use_stays(client: Client) -> None:
    client.insert(member(1, 11), member(2, 12), group(7, (1, 1, None)))
    client.insert(route(action_profile_group_id=7))
    assert code(client, DELETE, member(1, 0)) == PRECONDITION
    assert code(client, DELETE, group(7)) == PRECONDITION
    without = NAMES.entry("route", {"h.data.dst": (b"\1", 8)})
    client.write((DELETE, without), (DELETE, group(7)), (DELETE, member(1, 0)))
    assert code(client, DELETE, member(1, 0)) == NOT_FOUND


def no_action(entity: p4r.Entity) -> p4r.Entity:
    entity.action_profile_member.ClearField("action")
    return entity


@pytest.mark.parametrize(
    ("kind", "entity", "expected"),
    [
        (INSERT, member(1, 5), EXISTS),
        (MODIFY, member(3, 5), NOT_FOUND),
        (INSERT, member(0, 5), INVALID),
        (INSERT, no_action(member(3, 5)), INVALID),
        (INSERT, member(3, 5, "fates"), INVALID),  # an action of another profile
        (INSERT, group(0), INVALID),
        (MODIFY, group(9), NOT_FOUND),
        (INSERT, group(9, (3, 1, None)), NOT_FOUND),
        (INSERT, group(9, (1, 0, None)), INVALID),
        (INSERT, group(9, (1, 1, None), (1, 2, None)), INVALID),
        (INSERT, group(9, (1, 5, None), max_size=4), FULL),
        (INSERT, group(9, max_size=-1), INVALID),
        (INSERT, group(9, (1, 1, b"\1\0\0\0\0")), RANGE),
        (INSERT, route(action_profile_member_id=9), INVALID),
        (INSERT, route(action_profile_group_id=9), INVALID),
        (INSERT, p4r.Entity(action_profile_member=p4r.ActionProfileMember()), INVALID),
    ],
)
def test_what_makes_no_sense(client: Client, kind: Any, entity: p4r.Entity, expected: int) -> None:
    client.insert(member(1, 11))
    assert code(client, kind, entity) == expected


def test_a_direct_action_in_a_table_with_a_profile(client: Client) -> None:
    direct = NAMES.entry("route", {"h.data.dst": (b"\1", 8)}, NAMES.action("via", b"\1"))
    assert code(client, INSERT, direct) == INVALID


def test_a_profile_without_selector_has_no_groups(client: Client) -> None:
    entity = group(1)
    entity.action_profile_group.action_profile_id = PROFILES["fates"]
    assert code(client, INSERT, entity) == INVALID


def test_a_full_profile(client: Client) -> None:
    client.insert(*(member(i, 1) for i in range(1, 65)))
    assert code(client, INSERT, member(65, 1)) == FULL


# -- meters --------------------------------------------------------------------------------

RATES = p4r.MeterConfig(cir=1, cburst=6, pir=2, pburst=12)


def limit(**more: Any) -> p4r.Entity:
    match = {"h.data.dst": p4r.FieldMatch.Ternary(value=b"\1", mask=b"\xff")}
    return NAMES.entry("limit", match, NAMES.action("paint"), priority=1, **more)


def colours(bare: Target, count: int) -> list[int]:
    """Colours of packets of 6 bytes that come at once."""
    return [bare.plane.inject(1, packet())[0][1][5] for _ in range(count)]


def test_a_direct_meter_with_its_entry(client: Client, bare: Target) -> None:
    client.insert(limit())
    assert colours(bare, 4) == [0] * 4  # none set: always green
    client.write((MODIFY, limit(meter_config=RATES)))
    assert colours(bare, 4) == [0, 1, 2, 2]
    wanted = NAMES.entry("limit")
    assert not client.read(wanted)[0].table_entry.HasField("meter_config")
    wanted.table_entry.meter_config.SetInParent()
    assert client.read(wanted)[0].table_entry.meter_config == RATES
    client.write((MODIFY, limit()))  # back to the default
    assert colours(bare, 4) == [0] * 4


def test_a_direct_meter_by_itself(client: Client, bare: Target) -> None:
    client.insert(limit())
    direct = p4r.Entity()
    direct.direct_meter_entry.table_entry.CopyFrom(limit().table_entry)
    direct.direct_meter_entry.table_entry.ClearField("action")
    direct.direct_meter_entry.config.CopyFrom(RATES)
    client.write((MODIFY, direct))
    assert colours(bare, 3) == [0, 1, 2]
    assert client.read(p4r.Entity(direct_meter_entry=p4r.DirectMeterEntry())) == [direct]
    for kind in (INSERT, DELETE):
        assert code(client, kind, direct) == INVALID
    direct.direct_meter_entry.table_entry.match[0].ternary.value = b"\2"
    assert code(client, MODIFY, direct) == NOT_FOUND


@pytest.mark.parametrize(
    "rates",
    [{"cir": -1}, {"cir": 3, "pir": 2}, {"cir": 1, "pir": 1, "eburst": 5}, {"pburst": -1}],
)
def test_rates_that_make_no_sense(client: Client, rates: dict[str, int]) -> None:
    client.insert(limit())
    assert code(client, MODIFY, limit(meter_config=p4r.MeterConfig(**rates))) == INVALID


def test_indirect_meters(bare: Target) -> None:
    client = bare.client()
    client.primary()
    config = program_config("meter")
    client.push(config)
    number = config.p4info.meters[0].preamble.id
    cells = client.read(p4r.Entity(meter_entry=p4r.MeterEntry()))
    assert [e.meter_entry.index.index for e in cells] == list(range(16))
    assert not any(e.meter_entry.HasField("config") for e in cells)
    entity = p4r.Entity(meter_entry=p4r.MeterEntry(meter_id=number, config=RATES))
    entity.meter_entry.index.index = 3
    client.write((MODIFY, entity))
    assert client.read(entity) == [entity]
    assert (
        sum(
            e.meter_entry.HasField("config")
            for e in client.read(p4r.Entity(meter_entry=p4r.MeterEntry(meter_id=number)))
        )
        == 1
    )
    entity.meter_entry.ClearField("config")
    client.write((MODIFY, entity))
    assert client.read(entity) == [entity]
    assert code(client, INSERT, entity) == INVALID
    entity.meter_entry.index.index = 16
    assert code(client, MODIFY, entity) == RANGE


def counts(*pairs: tuple[int, int]) -> p4r.MeterCounterData:
    """Packets and bytes of green, yellow, red."""
    green, yellow, red = (p4r.CounterData(packet_count=p, byte_count=b) for p, b in pairs)
    return p4r.MeterCounterData(green=green, yellow=yellow, red=red)


def test_counters_by_colour(client: Client, bare: Target) -> None:
    client.insert(limit(meter_config=RATES))
    assert colours(bare, 4) == [0, 1, 2, 2]
    wanted = NAMES.entry("limit")
    assert not client.read(wanted)[0].table_entry.HasField("meter_counter_data")
    wanted.table_entry.meter_counter_data.SetInParent()
    found = client.read(wanted)[0].table_entry
    assert found.meter_counter_data == counts((1, 6), (1, 6), (2, 12))
    direct = p4r.Entity(direct_meter_entry=p4r.DirectMeterEntry())
    direct.direct_meter_entry.counter_data.SetInParent()
    assert client.read(direct)[0].direct_meter_entry.counter_data == found.meter_counter_data
    zero = counts((0, 0), (0, 0), (0, 0))
    client.write((MODIFY, limit(meter_config=RATES, meter_counter_data=zero)))
    assert client.read(wanted)[0].table_entry.meter_counter_data == zero
    client.write((MODIFY, limit(meter_config=RATES)))  # left out: they stay
    assert colours(bare, 1) == [0]
    set_ones = limit(meter_counter_data=counts((1, 0), (0, 0), (0, 0)))
    assert code(client, MODIFY, set_ones) == INVALID
    assert client.read(wanted)[0].table_entry.meter_counter_data == counts((1, 6), (0, 0), (0, 0))


def test_counters_by_colour_of_an_indirect_meter(bare: Target) -> None:
    client = bare.client()
    client.primary()
    config = program_config("meter")
    client.push(config)
    cell = p4r.MeterEntry(meter_id=config.p4info.meters[0].preamble.id, index={"index": 1})
    cell.config.CopyFrom(p4r.MeterConfig(cir=0, cburst=1, pir=0, pburst=2))
    client.write((MODIFY, p4r.Entity(meter_entry=cell)))
    for _ in range(3):
        bare.plane.inject(1, b"x")
    cell.counter_data.SetInParent()
    (found,) = client.read(p4r.Entity(meter_entry=cell))
    assert found.meter_entry.counter_data == counts((1, 1), (1, 1), (1, 1))
    client.write((MODIFY, p4r.Entity(meter_entry=cell)))
    (found,) = client.read(p4r.Entity(meter_entry=cell))
    assert found.meter_entry.counter_data == counts((0, 0), (0, 0), (0, 0))
    cell.counter_data.red.byte_count = 1
    assert code(client, MODIFY, p4r.Entity(meter_entry=cell)) == INVALID


def default(table: str, action: str, **more: Any) -> p4r.Entity:
    return NAMES.entry(table, action=NAMES.action(action), is_default_action=True, **more)


def test_the_counter_and_the_meter_of_a_default_action(client: Client, bare: Target) -> None:
    client.insert(limit())  # entry 1 hits dst 1
    config = {"cir": 0, "cburst": 6, "pir": 0, "pburst": 12}
    client.write((MODIFY, default("limit", "paint", meter_config=p4r.MeterConfig(**config))))
    missing = [bare.plane.inject(1, packet(dst=2))[0][1][5] for _ in range(4)]
    assert missing == [0, 1, 2, 2]
    wanted = NAMES.entry("limit", is_default_action=True)
    for name in ("counter_data", "meter_config", "meter_counter_data"):
        getattr(wanted.table_entry, name).SetInParent()
    (found,) = client.read(wanted)
    assert found.table_entry.counter_data.packet_count == 4
    assert found.table_entry.meter_config == p4r.MeterConfig(**config)
    assert found.table_entry.meter_counter_data == counts((1, 6), (1, 6), (2, 12))
    by_itself = p4r.Entity()
    counter = by_itself.direct_counter_entry
    counter.table_entry.table_id = found.table_entry.table_id
    counter.table_entry.is_default_action = True
    counter.data.packet_count = 40
    client.write((MODIFY, by_itself))
    bare.plane.inject(1, packet(dst=2))
    counter.ClearField("data")
    (found,) = client.read(by_itself)
    assert found.direct_counter_entry.data.packet_count == 41
    assert found.direct_counter_entry.table_entry == counter.table_entry
    meter = p4r.Entity(direct_meter_entry={"table_entry": counter.table_entry})
    client.write((MODIFY, meter))  # without rates: always green
    assert bare.plane.inject(1, packet(dst=2))[0][1][5] == 0
    assert client.read(meter) == [meter]


def test_a_default_action_without_rates_leaves_the_colour_alone(
    client: Client, bare: Target
) -> None:
    client.write((MODIFY, default("limit", "NoAction")))
    assert bare.plane.inject(1, packet(kind=1, dst=9))[0][1][5] == 0xEE


# -- value sets ----------------------------------------------------------------------------


def value_set(*members: tuple[bytes, bytes]) -> p4r.Entity:
    message = p4r.ValueSetEntry(value_set_id=KINDS)
    for kind, tag in members:
        found = message.members.add()
        found.match.add(field_id=1).exact.value = kind
        found.match.add(field_id=2).exact.value = tag
    return p4r.Entity(value_set_entry=message)


def test_a_value_set_steers_the_parser(client: Client, bare: Target) -> None:
    def seen(kind: int, tag: int) -> int:
        return bare.plane.inject(1, packet(kind, tag))[0][1][5]

    assert seen(0x8100, 1) == 0xEE
    assert client.read(value_set()) == [value_set()]
    client.write((MODIFY, value_set((b"\x81\0", b"\1"), (b"\0\0\5", b"\2"))))
    assert [seen(0x8100, 1), seen(5, 2), seen(5, 3)] == [0x55, 0x55, 0xEE]
    every = p4r.Entity(value_set_entry=p4r.ValueSetEntry())
    assert client.read(every) == [value_set((b"\x81\0", b"\1"), (b"\5", b"\2"))]
    client.write((MODIFY, value_set()))
    assert seen(0x8100, 1) == 0xEE


def test_a_value_set_with_ranges(bare: Target) -> None:
    """What P4Info says of a field: the program is the same."""
    config = program_config("groups")
    (info,) = config.p4info.value_sets
    info.match[0].match_type = p4i.MatchField.RANGE
    client = bare.client()
    client.primary()
    client.push(config)
    entity = p4r.ValueSetEntry(value_set_id=KINDS)
    for low, high, tag in ((b"\x10", b"\x20", b"\1"), (b"\x1f", b"\1\xff", b"\2")):
        found = entity.members.add()
        found.match.add(field_id=1).range.CopyFrom(p4r.FieldMatch.Range(low=low, high=high))
        found.match.add(field_id=2).exact.value = tag
    client.write((MODIFY, p4r.Entity(value_set_entry=entity)))
    steered = [(kind, tag) for kind in range(0x205) for tag in (1, 2, 3)
               if bare.plane.inject(1, packet(kind, tag))[0][1][5] == 0x55]  # fmt: skip
    wanted = [(kind, 1) for kind in range(0x10, 0x21)] + [(kind, 2) for kind in range(0x1F, 0x200)]
    assert sorted(steered) == sorted(wanted)
    assert client.read(p4r.Entity(value_set_entry=entity)) == [p4r.Entity(value_set_entry=entity)]


@pytest.mark.parametrize(
    ("kind", "entity", "expected"),
    [
        (INSERT, value_set(), INVALID),
        (DELETE, value_set(), INVALID),
        (MODIFY, value_set(*[(bytes([i + 1]), b"\1") for i in range(5)]), FULL),
        (MODIFY, value_set((b"\1\0\0", b"\1")), RANGE),
        (MODIFY, value_set((b"\1", b"\x10")), RANGE),
        (MODIFY, p4r.Entity(value_set_entry=p4r.ValueSetEntry(value_set_id=1)), INVALID),
        (MODIFY, p4r.Entity(value_set_entry={"value_set_id": KINDS, "members": [{}]}), INVALID),
    ],
)
def test_value_sets_that_make_no_sense(
    client: Client, kind: Any, entity: p4r.Entity, expected: int
) -> None:
    client.write((MODIFY, value_set((b"\7", b"\1"))))
    assert code(client, kind, entity) == expected
    assert client.read(value_set()) == [value_set((b"\7", b"\1"))]
