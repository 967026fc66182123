"""Write: entries of every kind, their errors one by one, byte strings (P4Runtime 1.4, 9 and 12)."""

from __future__ import annotations

from typing import Any

import grpc
import pytest
from finsy.proto import p4d, p4r
from p4rt import DELETE, INSERT, MODIFY, Client, Names, batch_codes, batch_errors, frame, mac
from target import Target

OK, INVALID, NOT_FOUND, EXISTS, DENIED, FULL, RANGE, UNOFFERED = 0, 3, 5, 6, 7, 8, 11, 12
Ternary, Range, Optional = p4r.FieldMatch.Ternary, p4r.FieldMatch.Range, p4r.FieldMatch.Optional


def forward(names: Names, dst: int, port: int = 1, **more: Any) -> p4r.Entity:
    action = names.action("forward", bytes([port]))
    return names.entry("exact_table", {"hdr.ethernet.dst": mac(dst)}, action, **more)


def match_only(entity: p4r.Entity) -> p4r.Entity:
    kept = p4r.Entity()
    kept.CopyFrom(entity)
    kept.table_entry.ClearField("action")
    return kept


def refused(client: Client, *updates: tuple[Any, p4r.Entity]) -> list[int]:
    with pytest.raises(grpc.RpcError) as error:
        client.write(*updates)
    assert error.value.code() is grpc.StatusCode.UNKNOWN
    return batch_codes(error.value)


def code(client: Client, kind: Any, entity: p4r.Entity) -> int:
    return refused(client, (kind, entity))[0]


def test_each_update_has_its_status_and_others_stand(client: Client, target: Target) -> None:
    names = client.names
    wrong = forward(names, 9)
    wrong.table_entry.action.action.params[0].value = b"\2\0"  # 10 bits into 9
    with pytest.raises(grpc.RpcError) as error:
        client.write(
            (INSERT, forward(names, 1)),
            (INSERT, forward(names, 1)),
            (MODIFY, forward(names, 2)),
            (DELETE, forward(names, 3)),
            (INSERT, wrong),
            (INSERT, forward(names, 4)),
            (DELETE, forward(names, 4)),
        )
    errors = list(batch_errors(error.value))
    assert [e.canonical_code for e in errors] == [OK, EXISTS, NOT_FOUND, NOT_FOUND, RANGE, OK, OK]
    assert "exact_table" in errors[1].message
    assert mac(1).hex() in errors[1].message
    assert "port" in errors[4].message
    assert target.plane.inject(5, frame(1)) == [(1, frame(1))]
    assert target.plane.inject(5, frame(4)) == []


def test_a_batch_is_applied_in_order(client: Client) -> None:
    names = client.names
    client.write(
        (INSERT, forward(names, 1, 1)),
        (MODIFY, forward(names, 1, 2)),
        (DELETE, forward(names, 1)),
        (INSERT, forward(names, 1, 3)),
    )
    (entry,) = client.entries("exact_table")
    assert entry.action.action.params[0].value == b"\3"


@pytest.mark.parametrize("value", [b"\1", b"\0\1", b"\0\0\0\1"])
def test_leading_zeros_are_taken_and_canonical_strings_given_back(
    client: Client, value: bytes
) -> None:
    names = client.names
    entity = names.entry("exact_table", {"hdr.ethernet.dst": value}, names.action("forward", value))
    client.insert(entity)
    (entry,) = client.entries("exact_table")
    assert entry.match[0].exact.value == b"\1"
    assert entry.action.action.params[0].value == b"\1"
    assert code(client, INSERT, entity) == EXISTS


def test_zero_is_one_byte(client: Client) -> None:
    names = client.names
    client.insert(
        names.entry("exact_table", {"hdr.ethernet.dst": b"\0"}, names.action("forward", b"\0"))
    )
    (entry,) = client.entries("exact_table")
    assert entry.match[0].exact.value == b"\0"


def test_values_out_of_range(client: Client) -> None:
    names = client.names
    for value in (b"", b"\1" + bytes(6), bytes(3) + b"\1" + bytes(6)):
        entity = names.entry(
            "exact_table", {"hdr.ethernet.dst": value}, names.action("forward", b"\1")
        )
        assert code(client, INSERT, entity) == RANGE
    for port in (b"", b"\2\0", b"\xff\xff"):
        entity = names.entry(
            "exact_table", {"hdr.ethernet.dst": mac(1)}, names.action("forward", port)
        )
        assert code(client, INSERT, entity) == RANGE


def exact_damage(entry: p4r.TableEntry) -> dict[str, Any]:
    return {
        "no such table": lambda: setattr(entry, "table_id", 3),
        "no such field": lambda: setattr(entry.match[0], "field_id", 7),
        "field twice": lambda: entry.match.append(entry.match[0]),
        "field missing": lambda: entry.ClearField("match"),
        "wrong kind of match": lambda: setattr(entry.match[0].lpm, "prefix_len", 3),
        "no action": lambda: entry.ClearField("action"),
        "no such action": lambda: setattr(entry.action.action, "action_id", 3),
        "parameter missing": lambda: entry.action.action.ClearField("params"),
        "parameter twice": lambda: entry.action.action.params.append(entry.action.action.params[0]),
        "no such parameter": lambda: setattr(entry.action.action.params[0], "param_id", 9),
        "priority": lambda: setattr(entry, "priority", 1),
        "const": lambda: setattr(entry, "is_const", True),
        "member": lambda: setattr(entry.action, "action_profile_member_id", 1),
        "negative time-out": lambda: setattr(entry, "idle_timeout_ns", -1),
        "time since last hit": entry.time_since_last_hit.SetInParent,
    }


@pytest.mark.parametrize("what", exact_damage(p4r.TableEntry()))
def test_entries_that_make_no_sense(client: Client, what: str) -> None:
    entity = forward(client.names, 1)
    exact_damage(entity.table_entry)[what]()
    assert code(client, INSERT, entity) == INVALID
    assert client.entries("exact_table") == []


def test_actions_in_their_scope_only(client: Client) -> None:
    names = client.names
    entry = names.entry("exact_table", {"hdr.ethernet.dst": mac(1)}, names.action("drop"))
    assert code(client, INSERT, entry) == DENIED
    default = names.entry("exact_table", None, names.action("mark", mac(1)), is_default_action=True)
    assert code(client, MODIFY, default) == DENIED


def test_default_actions(client: Client, target: Target) -> None:
    names = client.names
    default = names.entry(
        "exact_table", None, names.action("forward", b"\7"), is_default_action=True
    )
    client.write((MODIFY, default))
    assert target.plane.inject(5, frame(1)) == [(7, frame(1))]
    for kind in (INSERT, DELETE):
        assert code(client, kind, default) == INVALID
    assert client.entries("exact_table", is_default_action=True) == [default.table_entry]
    client.write((MODIFY, names.entry("exact_table", is_default_action=True)))
    assert target.plane.inject(5, frame(1)) == []
    acl = names.entry("port_acl", None, names.action("drop"), is_default_action=True)
    assert code(client, MODIFY, acl) == DENIED


def test_const_entries_stay(client: Client) -> None:
    names = client.names
    for kind in (INSERT, MODIFY, DELETE):
        entry = names.entry("port_acl", {"std.ingress_port": b"\x0d"}, names.action("drop"))
        assert code(client, kind, entry) == DENIED
    (entry,) = client.entries("port_acl")
    assert entry.is_const
    assert entry.match[0].exact.value == b"\x0d"


def test_a_full_table_says_so(client: Client) -> None:
    names = client.names
    size = names.tables["ternary_table"].size
    entries = [
        names.entry(
            "ternary_table",
            {"dst": Ternary(value=mac(i), mask=b"\xff" * 6)},
            names.action("mark", mac(9)),
            priority=i,
        )
        for i in range(1, size + 3)
    ]
    codes = refused(client, *((INSERT, entry) for entry in entries))
    assert codes == [OK] * size + [FULL] * 2
    client.write((DELETE, entries[0]), (INSERT, entries[-1]))
    assert len(client.entries("ternary_table")) == size


MATCHES: list[tuple[str, dict[str, Any], int]] = [
    ("lpm_table", {"hdr.ethernet.type": (b"\x88\0", 8)}, 0),
    ("lpm_table", {}, 0),
    ("ternary_table", {"dst": Ternary(value=b"\1", mask=b"\xff")}, 3),
    ("ternary_table", {}, 2),
    (
        "range_table",
        {"hdr.ethernet.type": Range(low=b"\x05", high=b"\x10\0"), "std.ingress_port": b"\5"},
        4,
    ),
    ("range_table", {"std.ingress_port": b"\5"}, 4),
    ("optional_table", {"hdr.ethernet.type": Optional(value=b"\x88\xb5")}, 7),
    ("optional_table", {}, 7),
]


@pytest.mark.parametrize(("table", "match", "priority"), MATCHES)
def test_every_kind_of_match_comes_back_as_it_went(
    client: Client, table: str, match: dict[str, Any], priority: int
) -> None:
    names = client.names
    entity = names.entry(table, match, names.action("mark", mac(9)), priority=priority)
    client.insert(entity)
    assert client.entries(table) == [entity.table_entry]
    wanted = match_only(entity)
    assert client.read(wanted) == [entity]
    client.write((DELETE, wanted))
    assert client.entries(table) == []


@pytest.mark.parametrize(
    ("table", "match", "priority"),
    [
        ("lpm_table", {"hdr.ethernet.type": (b"\x88\x01", 8)}, 0),  # bits behind the prefix
        ("lpm_table", {"hdr.ethernet.type": (b"\0", 0)}, 0),  # don't care is left out
        ("lpm_table", {"hdr.ethernet.type": (b"\0", 17)}, 0),
        ("ternary_table", {"dst": Ternary(value=b"\3", mask=b"\1")}, 1),  # bits outside the mask
        ("ternary_table", {"dst": Ternary(value=b"\0", mask=b"\0")}, 1),
        ("ternary_table", {"dst": Ternary(value=b"\1", mask=b"\1")}, 0),  # no priority
        ("ternary_table", {"dst": Ternary(value=b"\1", mask=b"\1")}, -1),
        (
            "range_table",
            {"hdr.ethernet.type": Range(low=b"\2", high=b"\1"), "std.ingress_port": b"\5"},
            1,
        ),
        ("range_table", {"hdr.ethernet.type": Range(low=b"\1", high=b"\2")}, 1),  # exact missing
    ],
)
def test_matches_that_make_no_sense(
    client: Client, table: str, match: dict[str, Any], priority: int
) -> None:
    names = client.names
    entity = names.entry(table, match, names.action("mark", mac(9)), priority=priority)
    assert code(client, INSERT, entity) == INVALID


def test_metadata_is_kept_for_the_controller(client: Client) -> None:
    names = client.names
    plain, marked = forward(names, 1), forward(names, 2, metadata=b"who", controller_metadata=5)
    client.insert(plain, marked)
    entries = {e.match[0].exact.value: e for e in client.entries("exact_table")}
    assert entries == {mac(1): plain.table_entry, mac(2): marked.table_entry}
    assert client.read(names.entry("exact_table", metadata=b"who")) == [marked]
    client.write((MODIFY, forward(names, 2)))  # without: it is gone
    assert client.read(names.entry("exact_table", controller_metadata=5)) == []
    client.write((DELETE, match_only(plain)), (INSERT, forward(names, 1, metadata=b"new")))
    (entry,) = client.read(match_only(plain))
    assert entry.table_entry.metadata == b"new"


def test_modify_without_an_action_keeps_it(client: Client) -> None:
    entity = forward(client.names, 1, 3)
    client.insert(entity)
    changed = match_only(entity)
    changed.table_entry.idle_timeout_ns = 10**12
    client.write((MODIFY, changed))
    (entry,) = client.entries("exact_table")
    assert entry.action == entity.table_entry.action
    assert entry.idle_timeout_ns == 10**12


def test_direct_counters(client: Client, target: Target) -> None:
    names = client.names
    client.insert(forward(names, 1))
    for _ in range(3):
        target.plane.inject(5, frame(1))
    wanted = names.entry("exact_table")
    wanted.table_entry.counter_data.SetInParent()
    (entry,) = client.read(wanted)
    assert entry.table_entry.counter_data == p4r.CounterData(packet_count=3, byte_count=180)
    counter = p4r.Entity()
    counter.direct_counter_entry.table_entry.CopyFrom(match_only(forward(names, 1)).table_entry)
    counter.direct_counter_entry.data.packet_count = 7
    client.write((MODIFY, counter))
    counter.direct_counter_entry.ClearField("data")
    (read,) = client.read(counter)
    assert read.direct_counter_entry.data == p4r.CounterData(packet_count=7)
    assert code(client, INSERT, counter) == INVALID
    counter.direct_counter_entry.table_entry.match[0].exact.value = b"\7"
    assert code(client, MODIFY, counter) == NOT_FOUND
    client.write((MODIFY, forward(names, 1, counter_data=p4r.CounterData(byte_count=9))))
    (entry,) = client.read(wanted)
    assert entry.table_entry.counter_data == p4r.CounterData(byte_count=9)


def test_counters(client: Client, target: Target) -> None:
    target.plane.inject(5, frame(1))
    counter = p4r.Entity()
    counter.counter_entry.counter_id = client.names.counters["ports"]
    counter.counter_entry.index.index = 5
    (read,) = client.read(counter)
    assert read.counter_entry.data == p4r.CounterData(packet_count=1, byte_count=60)
    counter.counter_entry.data.byte_count = 11
    client.write((MODIFY, counter))
    (read,) = client.read(counter)
    assert read == counter
    counter.counter_entry.ClearField("index")  # all cells
    client.write((MODIFY, counter))
    assert [e.counter_entry.data.byte_count for e in client.read(counter)] == [11] * 16
    for index, expected in ((16, RANGE), (-1, INVALID)):
        counter.counter_entry.index.index = index
        assert code(client, MODIFY, counter) == expected
    for kind in (INSERT, DELETE):
        assert code(client, kind, counter) == INVALID


def test_registers(client: Client, target: Target) -> None:
    target.plane.inject(5, frame(1))
    register = p4r.Entity()
    register.register_entry.register_id = client.names.registers["seen"]
    cells = [e.register_entry for e in client.read(register)]
    assert [c.index.index for c in cells] == list(range(8))
    assert [c.data.bitstring for c in cells] == [b"\1"] + [b"\0"] * 7
    register.register_entry.index.index = 0
    register.register_entry.data.bitstring = b"\1\xff\xff\xff\xff"
    client.write((MODIFY, register))
    target.plane.inject(5, frame(1))
    (read,) = client.read(register)
    assert read.register_entry.data == p4d.P4Data(bitstring=b"\0")  # 33 bits wrapped
    register.register_entry.data.bitstring = b"\3\xff\xff\xff\xff"
    assert code(client, MODIFY, register) == RANGE
    register.register_entry.data.bool = True
    assert code(client, MODIFY, register) == INVALID
    register.register_entry.index.index = 8
    register.register_entry.data.bitstring = b"\1"
    assert code(client, MODIFY, register) == RANGE


@pytest.mark.parametrize(
    ("entity", "expected"),
    [
        (p4r.Entity(), INVALID),
        (p4r.Entity(counter_entry=p4r.CounterEntry(counter_id=1)), INVALID),
        (p4r.Entity(register_entry=p4r.RegisterEntry(register_id=1)), INVALID),
        (p4r.Entity(digest_entry=p4r.DigestEntry(digest_id=1)), INVALID),
        (p4r.Entity(meter_entry=p4r.MeterEntry(meter_id=1)), INVALID),
        (p4r.Entity(value_set_entry=p4r.ValueSetEntry(value_set_id=1)), INVALID),
        (p4r.Entity(extern_entry=p4r.ExternEntry(extern_id=1)), UNOFFERED),
    ],
)
def test_entities_that_are_not_there(client: Client, entity: p4r.Entity, expected: int) -> None:
    assert code(client, MODIFY, entity) == expected


def test_an_update_needs_a_type(client: Client) -> None:
    assert code(client, p4r.Update.UNSPECIFIED, forward(client.names, 1)) == INVALID


def test_many_errors_reach_a_client_with_default_limits(client: Client) -> None:
    """The details of a failed batch stay below the 8 KiB of metadata that gRPC takes."""
    plain = grpc.insecure_channel(client.address)
    names = client.names
    client.insert(forward(names, 1))
    request = p4r.WriteRequest(device_id=1, election_id=p4r.Uint128(low=1))
    for _ in range(60):
        request.updates.add(type=INSERT, entity=forward(names, 1))
    with plain, pytest.raises(grpc.RpcError) as error:
        type(client.stub)(plain).Write(request)
    assert batch_codes(error.value) == [EXISTS] * 60


def test_more_errors_than_a_trailer_holds_end_the_call(client: Client) -> None:
    """HTTP/2's trailers have 64 KB at most: the statuses are left out, not the end of the call."""
    client.insert(forward(client.names, 1))
    request = p4r.WriteRequest(device_id=1, election_id=p4r.Uint128(low=1))
    for _ in range(3000):
        request.updates.add(type=INSERT, entity=forward(client.names, 1))
    with pytest.raises(grpc.RpcError) as error:
        client.stub.Write(request, timeout=20)
    assert error.value.code() is grpc.StatusCode.UNKNOWN
    assert "3000 of 3000 updates failed" in (error.value.details() or "")
    assert "too many" in (error.value.details() or "")


def test_random_bytes_as_a_write_harm_nobody(client: Client) -> None:
    raw = client.channel.unary_unary("/p4.v1.P4Runtime/Write")
    for request in (b"\xff" * 50, b"\x22\xff\xff\xff\xff\x0f", b"\x08", bytes(300)):
        with pytest.raises(grpc.RpcError) as error:
            raw(request)
        assert error.value.code() in {
            grpc.StatusCode.INTERNAL,
            grpc.StatusCode.INVALID_ARGUMENT,
            grpc.StatusCode.NOT_FOUND,
        }
    client.insert(forward(client.names, 1))
