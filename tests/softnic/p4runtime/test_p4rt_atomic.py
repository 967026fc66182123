"""Batches of which all updates are applied or none (P4Runtime 1.4, 12.2)."""

from __future__ import annotations

import contextlib
import random
import struct
import threading
from collections.abc import Callable, Iterator
from typing import Any

import grpc
import pytest
from finsy.proto import p4d, p4i, p4r
from p4rt import (
    DELETE,
    INSERT,
    MODIFY,
    Client,
    Names,
    Write,
    batch_codes,
    frame,
    mac,
    program_config,
)
from target import Target

OK, INVALID, NOT_FOUND, EXISTS, DENIED, FULL, ABORTED = 0, 3, 5, 6, 7, 8, 10
ROLLBACK, ATOMIC = Write.ROLLBACK_ON_ERROR, Write.DATAPLANE_ATOMIC
Ternary = p4r.FieldMatch.Ternary
both = pytest.mark.parametrize("atomicity", [ROLLBACK, ATOMIC])

WRONG = (INSERT, p4r.Entity())
"""An update that no state makes right."""
GREEN = p4r.MeterConfig(cir=10**9, cburst=10**6, pir=10**9, pburst=10**6)
RED = p4r.MeterConfig()


def everything(client: Client, p4info: p4i.P4Info) -> list[bytes]:
    """All that can be read of a device, in an order of its own."""
    entities = [
        p4r.Entity(counter_entry=p4r.CounterEntry()),
        p4r.Entity(register_entry=p4r.RegisterEntry()),
        p4r.Entity(meter_entry=p4r.MeterEntry(counter_data=p4r.MeterCounterData())),
        p4r.Entity(action_profile_member=p4r.ActionProfileMember()),
        p4r.Entity(action_profile_group=p4r.ActionProfileGroup()),
        p4r.Entity(value_set_entry=p4r.ValueSetEntry()),
        p4r.Entity(digest_entry=p4r.DigestEntry()),
    ]
    for kind in ("multicast_group_entry", "clone_session_entry"):
        entity = p4r.Entity()
        getattr(entity.packet_replication_engine_entry, kind).SetInParent()
        entities.append(entity)
    for table in p4info.tables:
        for is_default in (False, True):
            entry = p4r.TableEntry(table_id=table.preamble.id, is_default_action=is_default)
            for name in ("counter_data", "meter_config", "meter_counter_data"):
                getattr(entry, name).SetInParent()
            entities.append(p4r.Entity(table_entry=entry))
    return sorted(e.SerializeToString(deterministic=True) for e in client.read(*entities))


def refused(client: Client, *updates: tuple[Any, p4r.Entity], **more: Any) -> list[int]:
    with pytest.raises(grpc.RpcError) as error:
        client.write(*updates, **more)
    assert error.value.code() is grpc.StatusCode.UNKNOWN
    return batch_codes(error.value)


def forward(names: Names, dst: int, port: int = 1, **more: Any) -> p4r.Entity:
    action = names.action("forward", bytes([port]))
    return names.entry("exact_table", {"hdr.ethernet.dst": mac(dst)}, action, **more)


def marking(names: Names, value: int) -> p4r.Entity:
    return names.entry("lpm_table", {"hdr.ethernet.type": (b"\x88\xb5", 16)}, mark(names, value))


def mark(names: Names, value: int) -> p4r.TableAction:
    return names.action("mark", mac(value))


# -- the batch ------------------------------------------------------------------------------


@both
def test_a_whole_batch_is_applied(client: Client, target: Target, atomicity: Any) -> None:
    names = client.names
    updates = [
        (INSERT, forward(names, 1, 1)),
        (MODIFY, forward(names, 1, 2)),
        (INSERT, forward(names, 2, 3)),
        (INSERT, marking(names, 7)),
        (DELETE, forward(names, 2)),
    ]
    client.write(*updates, atomicity=atomicity)
    assert target.plane.inject(5, frame(1)) == [(2, frame(1, src=7))]
    assert len(client.entries("exact_table")) == 1


@both
def test_the_first_error_ends_it_and_says_so(client: Client, atomicity: Any) -> None:
    names = client.names
    client.insert(forward(names, 1))
    batch = [(INSERT, forward(names, dst)) for dst in (2, 1, 3, 1)]
    with pytest.raises(grpc.RpcError) as error:
        client.write(*batch, atomicity=atomicity)
    assert batch_codes(error.value) == [ABORTED, EXISTS, ABORTED, ABORTED]
    assert "exact_table" in (error.value.details() or "")
    assert [e.match[0].exact.value for e in client.entries("exact_table")] == [mac(1)]


@both
def test_damaged_updates(client: Client, atomicity: Any) -> None:
    request = p4r.WriteRequest(device_id=1, election_id=p4r.Uint128(low=1), atomicity=atomicity)
    request.updates.add(type=INSERT, entity=forward(client.names, 1))
    raw = request.SerializeToString() + b"\x22\x03\x08\x01\xff"
    with pytest.raises(grpc.RpcError) as error:
        client.channel.unary_unary("/p4.v1.P4Runtime/Write")(raw)
    assert batch_codes(error.value) == [ABORTED, INVALID]
    assert client.entries("exact_table") == []


def test_other_atomicities(client: Client) -> None:
    with pytest.raises(grpc.RpcError) as error:
        client.write((INSERT, forward(client.names, 1)), atomicity=7)
    assert error.value.code() is grpc.StatusCode.INVALID_ARGUMENT


def test_how_much_packets_wait_for_is_bounded(client: Client) -> None:
    names = client.names
    many = [(INSERT, forward(names, dst)) for dst in range(1, 1025)]
    with pytest.raises(grpc.RpcError) as error:
        client.write(*many, (DELETE, forward(names, 1)), atomicity=ATOMIC)
    assert error.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert "ROLLBACK_ON_ERROR" in (error.value.details() or "")
    assert client.entries("exact_table") == []
    client.write(*many, atomicity=ATOMIC)
    client.write(*((DELETE, entity) for _, entity in many), *many, atomicity=ROLLBACK)
    assert len(client.entries("exact_table")) == 1024


@both
def test_so_are_the_cells(client: Client, atomicity: Any) -> None:
    seen = p4r.RegisterEntry(register_id=client.names.registers["seen"])
    seen.data.bitstring = b"\5"
    one = (MODIFY, p4r.Entity(register_entry=seen))
    with pytest.raises(grpc.RpcError) as error:
        client.write(*[one] * 2049, atomicity=ROLLBACK)  # of 8 cells each
    assert error.value.code() is grpc.StatusCode.UNKNOWN
    assert "16384 cells at most" in (error.value.details() or "")
    seen.data.Clear()
    cells = client.read(p4r.Entity(register_entry=seen))
    assert {c.register_entry.data.bitstring for c in cells} == {b"\0"}
    client.write(one, atomicity=atomicity)
    cells = client.read(p4r.Entity(register_entry=seen))
    assert {c.register_entry.data.bitstring for c in cells} == {b"\5"}


def test_const_entries_stay(client: Client) -> None:
    codes = refused(
        client,
        (INSERT, forward(client.names, 1)),
        (DELETE, client.names.entry("port_acl", {"std.ingress_port": b"\x0d"})),
        atomicity=ATOMIC,
    )
    assert codes == [ABORTED, DENIED]
    assert client.entries("exact_table") == []


# -- packets --------------------------------------------------------------------------------


def seen_by_packets(client: Client, target: Target, batches: list[Any], **more: Any) -> set[Any]:
    """Port and source of what packets became while the batches were written."""
    stop, seen = threading.Event(), set[Any]()
    errors: list[BaseException] = []

    def write() -> None:
        try:
            for batch in batches:
                try:
                    client.write(*batch, **more)
                except grpc.RpcError as error:
                    if error.code() is not grpc.StatusCode.UNKNOWN:
                        raise
        except BaseException as error:
            errors.append(error)
        finally:
            stop.set()

    writer = threading.Thread(target=write)
    writer.start()
    while not stop.is_set():
        for port, out in target.plane.inject(5, frame(1)):
            seen.add((port, out[11]))
    writer.join()
    assert not errors
    return seen


def test_no_packet_sees_a_part_of_a_batch(client: Client, target: Target) -> None:
    names = client.names
    filler = [(INSERT, forward(names, dst)) for dst in range(100, 130)]
    gone = [(DELETE, entity) for _, entity in filler]

    def batch(value: int) -> list[Any]:
        return [
            (MODIFY, forward(names, 1, value)),
            *filler,
            *gone,
            (MODIFY, marking(names, value)),
        ]

    client.insert(forward(names, 1, 1), marking(names, 1))
    batches = [batch(1 + i % 2) for i in range(41)]
    seen = seen_by_packets(client, target, batches, atomicity=ATOMIC)
    assert seen <= {(1, 1), (2, 2)}
    assert target.plane.inject(5, frame(1)) == [(1, frame(1, src=1))]


def test_no_packet_sees_what_is_taken_back(client: Client, target: Target) -> None:
    names = client.names
    client.insert(forward(names, 1, 1), marking(names, 1))
    filler = [(INSERT, forward(names, dst)) for dst in range(100, 130)]
    batch = [(MODIFY, forward(names, 1, 3)), (DELETE, marking(names, 1)), *filler, WRONG]
    assert seen_by_packets(client, target, [batch] * 20, atomicity=ATOMIC) == {(1, 1)}


def test_counts_of_entries_that_stay_go_on(client: Client, target: Target) -> None:
    """An entry that was changed and changed back has every packet in its counter."""
    names = client.names
    client.insert(forward(names, 1, 1), marking(names, 1))
    batch = [(MODIFY, forward(names, 1, 3)), WRONG]
    sent = 0
    done = threading.Event()

    def write() -> None:
        for _ in range(30):
            refused(client, *batch, atomicity=ROLLBACK)
        done.set()

    writer = threading.Thread(target=write)
    writer.start()
    while not done.is_set() and writer.is_alive():
        target.plane.inject(5, frame(1))
        sent += 1
    writer.join()
    assert done.is_set()
    wanted = p4r.CounterData()
    (entry,) = client.entries("exact_table", counter_data=wanted)
    assert entry.counter_data.packet_count == sent


# -- everything is as it was -----------------------------------------------------------------


def entity_pool(names: Names, p4info: p4i.P4Info) -> list[p4r.Entity]:
    """Entities of `entities`, some right and some wrong with any operation."""
    pool = [forward(names, dst, dst + 4) for dst in (1, 2)]
    pool.append(forward(names, 1, 9, metadata=b"mine", controller_metadata=5))
    pool.append(forward(names, 2, 8, idle_timeout_ns=10**12))
    pool.append(forward(names, 1, 7, counter_data=p4r.CounterData(packet_count=70, byte_count=7)))
    pool += [marking(names, 1), marking(names, 2)]
    keyed = {"dst": Ternary(value=mac(1), mask=b"\xff" * 6)}
    pool += [
        names.entry("ternary_table", keyed, mark(names, port), priority=priority)
        for port, priority in ((3, 1), (4, 1), (5, 2))
    ]
    for action in ("drop", "forward"):
        value = () if action == "drop" else (b"\6",)
        default = names.entry(
            "exact_table",
            action=names.action(action, *value),
            is_default_action=True,
            metadata=action.encode(),
        )
        default.table_entry.counter_data.packet_count = len(action)
        pool.append(default)
    pool.append(names.entry("lpm_table", is_default_action=True))
    pool.append(names.entry("port_acl", {"std.ingress_port": b"\x0d"}))
    direct = p4r.Entity()
    direct.direct_counter_entry.table_entry.CopyFrom(forward(names, 1).table_entry)
    direct.direct_counter_entry.table_entry.ClearField("action")
    direct.direct_counter_entry.data.packet_count = 123
    pool.append(direct)
    for index in (None, 3):
        counter = p4r.CounterEntry(counter_id=names.counters["ports"])
        counter.data.packet_count = 7 if index is None else 8
        seen = p4r.RegisterEntry(register_id=names.registers["seen"])
        seen.data.CopyFrom(p4d.P4Data(bitstring=b"\x07" if index is None else b"\x01\x00"))
        if index is not None:
            counter.index.index = seen.index.index = index
        pool += [p4r.Entity(counter_entry=counter), p4r.Entity(register_entry=seen)]
    for port in (1, 2):
        group, session = p4r.Entity(), p4r.Entity()
        flood = group.packet_replication_engine_entry.multicast_group_entry
        flood.multicast_group_id = 1
        flood.replicas.add(port=bytes([port]), instance=1)
        clone = session.packet_replication_engine_entry.clone_session_entry
        clone.session_id = 9
        clone.packet_length_bytes = 20 * port
        clone.replicas.add(port=bytes([port]), instance=2)
        digest = p4r.DigestEntry(digest_id=names.digests["learn_t"])
        digest.config.max_list_size = port
        pool += [group, session, p4r.Entity(digest_entry=digest)]
    return pool


def group_pool(names: Names, p4info: p4i.P4Info) -> list[p4r.Entity]:
    """The same of `groups`; members and groups, or one-shot sets, whatever comes first."""
    profiles = {p.preamble.alias: p.preamble.id for p in p4info.action_profiles}
    pool: list[p4r.Entity] = []
    for number in (1, 2):
        for port in (11, 12):
            member = p4r.ActionProfileMember(action_profile_id=profiles["hops"], member_id=number)
            member.action.CopyFrom(names.action("via", bytes([port])).action)
            pool.append(p4r.Entity(action_profile_member=member))
        group = p4r.ActionProfileGroup(action_profile_id=profiles["hops"], group_id=7)
        group.members.add(member_id=number, weight=1)
        pool.append(p4r.Entity(action_profile_group=group))
    for dst in (b"\1", b"\2"):
        match = {"h.data.dst": (dst, 8)}
        pool.append(names.entry("route", match, p4r.TableAction(action_profile_member_id=1)))
        pool.append(names.entry("route", match, p4r.TableAction(action_profile_group_id=7)))
        for weight in (1, 3):
            message = p4r.ActionProfileActionSet()
            for port in (21, 22):
                action = names.action("via", bytes([port])).action
                message.action_profile_actions.add(action=action, weight=weight)
            shots = p4r.TableAction(action_profile_action_set=message)
            pool.append(names.entry("route", match, shots))
    keyed = {"h.data.dst": Ternary(value=b"\1", mask=b"\xff")}
    for more in ({}, {"meter_config": GREEN}, {"meter_config": RED}):
        pool.append(names.entry("limit", keyed, names.action("paint"), priority=1, **more))
        default = names.action("paint")
        pool.append(names.entry("limit", action=default, is_default_action=True, **more))
    cleared = names.entry("limit", keyed, names.action("paint"), priority=1, meter_config=RED)
    cleared.table_entry.meter_counter_data.SetInParent()
    pool.append(cleared)
    direct = p4r.Entity()
    direct.direct_meter_entry.table_entry.CopyFrom(cleared.table_entry)
    for name in ("action", "meter_config", "meter_counter_data"):
        direct.direct_meter_entry.table_entry.ClearField(name)
    direct.direct_meter_entry.config.CopyFrom(GREEN)
    direct.direct_meter_entry.counter_data.SetInParent()
    pool.append(direct)
    for kind in (b"\1", b"\2"):
        values = p4r.ValueSetEntry(value_set_id=p4info.value_sets[0].preamble.id)
        fields = values.members.add().match
        for field in p4info.value_sets[0].match:
            exact = field.match_type == p4i.MatchField.EXACT
            given = fields.add(field_id=field.id)
            if exact:
                given.exact.value = kind
            else:
                given.ternary.value, given.ternary.mask = kind, b"\3"
        pool.append(p4r.Entity(value_set_entry=values))
    return pool


def meter_pool(names: Names, p4info: p4i.P4Info) -> list[p4r.Entity]:
    pool = []
    for index, config in ((1, GREEN), (1, RED), (None, GREEN), (1, None)):
        cell = p4r.MeterEntry(meter_id=p4info.meters[0].preamble.id, config=config)
        if index is not None:
            cell.index.index = index
        if config is not GREEN:
            cell.counter_data.SetInParent()
        pool.append(p4r.Entity(meter_entry=cell))
    return pool


def entity_frames() -> Iterator[bytes]:
    yield from (frame(dst) for dst in (1, 2, 3))


def group_frames() -> Iterator[bytes]:
    for dst in (1, 2):
        yield from (struct.pack(">HHBB", dst, flow, dst, 0) for flow in range(0, 4096, 401))


def one_byte() -> Iterator[bytes]:
    yield b"x"


Pool = Callable[[Names, p4i.P4Info], list[p4r.Entity]]


@pytest.mark.parametrize("seed", range(2))
@both
@pytest.mark.parametrize(
    ("program", "pool_of", "frames"),
    [
        ("entities", entity_pool, entity_frames),
        ("groups", group_pool, group_frames),
        ("meter", meter_pool, one_byte),
    ],
)
def test_random_batches_leave_nothing_behind(
    bare: Target,
    program: str,
    pool_of: Pool,
    frames: Callable[[], Iterator[bytes]],
    atomicity: Any,
    seed: int,
) -> None:
    """What can be read, and what packets become, is the same before and after."""
    config = program_config(program)
    client = bare.client()
    client.primary()
    client.push(config)
    pool = pool_of(Names(config.p4info), config.p4info)
    choose = random.Random(f"{program} {seed}")

    def some(count: int) -> list[Any]:
        """Of these most can be done, in the order that they come in."""
        return [
            (choose.choice([INSERT, MODIFY, MODIFY, DELETE]), choose.choice(pool))
            for _ in range(count)
        ]

    def became() -> list[Any]:
        return [bare.plane.inject(1, f) for f in frames()]

    depths = []
    for _ in range(2):
        for update in some(25):
            with contextlib.suppress(grpc.RpcError):
                client.write(update)
        out = became()
        before = everything(client, config.p4info)
        done = some(0)
        for update in some(25):  # those that can be done, found by trying
            with_it = [*done, update]
            codes = refused(client, *with_it, WRONG, atomicity=atomicity)
            depths.append(len(done))
            assert everything(client, config.p4info) == before
            if codes[-1] == INVALID and codes[:-1] == [ABORTED] * len(with_it):
                done = with_it
        assert became() == out
        client.write(*done, atomicity=atomicity)
    assert max(depths) > 5
