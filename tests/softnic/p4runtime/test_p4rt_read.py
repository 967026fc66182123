"""Read: wildcards on every entity, filters, and large answers (P4Runtime 1.4, 9 and 13)."""

from __future__ import annotations

import grpc
import pytest
from finsy.proto import p4r
from p4rt import INSERT, Client, batch_codes, mac

OK, INVALID, NOT_FOUND, RANGE, UNOFFERED = 0, 3, 5, 11, 12
ALL_TABLES = p4r.Entity(table_entry=p4r.TableEntry())


def fill(client: Client, count: int = 3) -> None:
    names = client.names
    for start in range(0, count, 1000):
        client.insert(
            *(
                names.entry(
                    "exact_table",
                    {"hdr.ethernet.dst": mac(i)},
                    names.action("forward" if i % 2 else "flood", bytes([i % 200 + 1])),
                )
                for i in range(start, min(start + 1000, count))
            )
        )


def test_all_tables_and_one(client: Client) -> None:
    names = client.names
    fill(client)
    client.insert(
        names.entry("lpm_table", {"hdr.ethernet.type": (b"\x08\0", 8)}, names.action("NoAction"))
    )
    ids = [e.table_entry.table_id for e in client.read(ALL_TABLES)]
    exact, lpm, acl = (names.table(t) for t in ("exact_table", "lpm_table", "port_acl"))
    assert sorted(ids) == sorted([exact] * 3 + [lpm] + [acl])
    assert {e.table_id for e in client.entries("exact_table")} == {exact}


def test_defaults_of_all_tables(client: Client) -> None:
    wanted = p4r.Entity(table_entry=p4r.TableEntry(is_default_action=True))
    names = client.names
    found = {e.table_entry.table_id: e.table_entry for e in client.read(wanted)}
    assert set(found) == {names.table(t) for t in names.tables}
    acl = found[names.table("port_acl")]
    assert acl.action.action.action_id == names.actions["NoAction"].preamble.id
    assert acl.is_const


def test_filters(client: Client) -> None:
    names = client.names
    fill(client, 6)
    chosen = client.entries("exact_table", action=names.action("flood"))
    assert {e.match[0].exact.value for e in chosen} == {mac(0), mac(2), mac(4)}
    wrong = names.entry("exact_table", action=p4r.TableAction(action=p4r.Action(action_id=5)))
    with pytest.raises(grpc.RpcError) as error:
        client.read(wrong)
    assert batch_codes(error.value) == [INVALID]


def test_the_same_match_at_several_priorities(client: Client) -> None:
    names = client.names
    match = {"dst": p4r.FieldMatch.Ternary(value=b"\1", mask=b"\1")}
    for priority in (1, 2, 3):
        client.insert(
            names.entry("ternary_table", match, names.action("NoAction"), priority=priority)
        )
    found = client.read(names.entry("ternary_table", match))
    assert sorted(e.table_entry.priority for e in found) == [1, 2, 3]
    (one,) = client.read(names.entry("ternary_table", match, priority=2))
    assert one.table_entry.priority == 2
    assert {e.priority for e in client.entries("ternary_table", priority=3)} == {3}


def test_counters_of_all_kinds(client: Client) -> None:
    fill(client)
    every = p4r.Entity(counter_entry=p4r.CounterEntry())
    assert len(client.read(every)) == 16
    one = p4r.Entity()
    one.counter_entry.counter_id = client.names.counters["ports"]
    one.counter_entry.index.index = 3
    assert [e.counter_entry.index.index for e in client.read(one)] == [3]
    direct = p4r.Entity(direct_counter_entry=p4r.DirectCounterEntry())
    assert len(client.read(direct)) == 3
    direct.direct_counter_entry.table_entry.table_id = client.names.table("exact_table")
    assert len(client.read(direct)) == 3
    direct.direct_counter_entry.table_entry.match.add(field_id=1).exact.value = mac(77)
    with pytest.raises(grpc.RpcError) as error:
        client.read(direct)
    assert batch_codes(error.value) == [NOT_FOUND]


def test_registers_digests_and_replication(client: Client) -> None:
    names = client.names
    assert len(client.read(p4r.Entity(register_entry=p4r.RegisterEntry()))) == 8
    digest = p4r.Entity(digest_entry=p4r.DigestEntry(digest_id=names.digests["learn_t"]))
    digest.digest_entry.config.max_list_size = 10
    group, session = p4r.Entity(), p4r.Entity()
    group.packet_replication_engine_entry.multicast_group_entry.multicast_group_id = 1
    group.packet_replication_engine_entry.multicast_group_entry.replicas.add(port=b"\1", instance=1)
    session.packet_replication_engine_entry.clone_session_entry.session_id = 5
    session.packet_replication_engine_entry.clone_session_entry.replicas.add(port=b"\2", instance=1)
    client.insert(digest, group, session)
    assert client.read(p4r.Entity(digest_entry=p4r.DigestEntry())) == [digest]
    for kind, entity in (("multicast_group_entry", group), ("clone_session_entry", session)):
        wanted = p4r.Entity()
        getattr(wanted.packet_replication_engine_entry, kind).SetInParent()
        assert client.read(wanted) == [entity]


@pytest.mark.parametrize(
    "kind",
    [
        "action_profile_member",
        "action_profile_group",
        "meter_entry",
        "direct_meter_entry",
        "value_set_entry",
        "extern_entry",
    ],
)
def test_a_wildcard_of_what_the_program_has_none_of_is_empty(client: Client, kind: str) -> None:
    wanted = p4r.Entity()
    getattr(wanted, kind).SetInParent()
    assert client.read(wanted) == []


def test_one_wrong_request_among_others(client: Client) -> None:
    fill(client)
    names = client.names
    request = p4r.ReadRequest(device_id=1)
    request.entities.add().table_entry.table_id = names.table("exact_table")
    request.entities.add().table_entry.table_id = 4711
    request.entities.add().counter_entry.index.index = 99
    request.entities.add().counter_entry.counter_id = names.counters["ports"]
    request.entities[2].counter_entry.counter_id = names.counters["ports"]
    request.entities.add()
    got: list[p4r.Entity] = []
    with pytest.raises(grpc.RpcError) as error:
        got.extend(e for response in client.stub.Read(request) for e in response.entities)
    assert batch_codes(error.value) == [OK, INVALID, RANGE, OK, INVALID]
    assert len(got) == 3 + 16


def test_many_entries_come_in_messages_that_a_client_takes(client: Client) -> None:
    fill(client, 1024)
    wanted = client.names.entry("exact_table")
    responses = list(client.stub.Read(p4r.ReadRequest(device_id=1, entities=[wanted])))
    assert len(responses) > 1
    entries = [e.table_entry for r in responses for e in r.entities]
    assert {e.match[0].exact.value for e in entries} == {mac(i) for i in range(1024)}


def test_what_a_read_took_does_not_change_while_it_is_sent(client: Client) -> None:
    """Entries deleted after the first message of the answer are still in it (13)."""
    names = client.names
    fill(client, 1024)
    request = p4r.ReadRequest(device_id=1, entities=[names.entry("exact_table")])
    call = client.stub.Read(request)
    seen = len(next(call).entities)
    client.write(
        *(
            (p4r.Update.DELETE, names.entry("exact_table", {"hdr.ethernet.dst": mac(i)}))
            for i in range(1024)
        )
    )
    assert seen + sum(len(response.entities) for response in call) == 1024


def test_a_read_that_nobody_takes_blocks_no_write(client: Client) -> None:
    names = client.names
    fill(client, 1023)
    request = p4r.ReadRequest(device_id=1, entities=[names.entry("exact_table")] * 10)
    calls = [client.stub.Read(request) for _ in range(16)]
    for call in calls:
        next(call)
    entry = names.entry("exact_table", {"hdr.ethernet.dst": mac(5000)}, names.action("flood", b"1"))
    client.write((INSERT, entry))
    with pytest.raises(grpc.RpcError) as error:
        client.entries("exact_table")
    assert error.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    for call in calls:
        call.cancel()
