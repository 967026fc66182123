"""Clone sessions and multicast groups, with backups (P4Runtime 1.4, 9.7)."""

from __future__ import annotations

from collections import Counter
from typing import Any

import grpc
import pytest
from finsy.proto import p4r
from p4rt import CPU_PORT, DELETE, INSERT, MODIFY, Client, batch_codes, frame, mac
from target import Target

OK, INVALID, NOT_FOUND, EXISTS, RANGE, UNOFFERED = 0, 3, 5, 6, 11, 12
Replicas = list[tuple[bytes, int]]


def group(number: int, *replicas: tuple[bytes, int]) -> p4r.Entity:
    entity = p4r.Entity()
    entry = entity.packet_replication_engine_entry.multicast_group_entry
    entry.multicast_group_id = number
    for port, instance in replicas:
        entry.replicas.add(port=port, instance=instance)
    return entity


def session(number: int, *replicas: tuple[bytes, int], **more: Any) -> p4r.Entity:
    entity = p4r.Entity()
    entry = p4r.CloneSessionEntry(session_id=number, **more)
    for port, instance in replicas:
        entry.replicas.add(port=port, instance=instance)
    entity.packet_replication_engine_entry.clone_session_entry.CopyFrom(entry)
    return entity


def replicas_of(entity: p4r.Entity) -> Any:
    return entity.packet_replication_engine_entry.multicast_group_entry.replicas


def flood(client: Client, number: int) -> None:
    names = client.names
    action = names.action("flood", bytes([number]))
    client.insert(names.entry("exact_table", {"hdr.ethernet.dst": mac(1)}, action))


def code(client: Client, kind: Any, entity: p4r.Entity) -> int:
    with pytest.raises(grpc.RpcError) as error:
        client.write((kind, entity))
    return batch_codes(error.value)[0]


def test_a_group_copies_to_each_replica(client: Client, target: Target) -> None:
    client.insert(group(7, (b"\1", 1), (b"\2", 1), (b"\2", 2)))
    flood(client, 7)
    assert Counter(target.plane.inject(5, frame())) == {(1, frame()): 1, (2, frame()): 2}
    client.write((MODIFY, group(7, (b"\3", 1))))
    assert target.plane.inject(5, frame()) == [(3, frame())]
    client.write((DELETE, group(7)))
    assert target.plane.inject(5, frame()) == []


def test_a_session_clones_and_cuts(client: Client, target: Target) -> None:
    names = client.names
    action = names.action("sample", b"\1")
    client.insert(
        names.entry("exact_table", {"hdr.ethernet.dst": mac(1)}, action),
        session(5, (CPU_PORT.to_bytes(2, "big"), 1), packet_length_bytes=20),
    )
    out = dict(target.plane.inject(5, frame()))
    assert out[1] == frame()
    assert out[CPU_PORT] == b"\x02\x80\xc1\x0e" + frame()[:16]
    (read,) = client.read(session(0))
    assert read == session(5, (CPU_PORT.to_bytes(2, "big"), 1), packet_length_bytes=20)


def test_ports_are_read_as_they_are_canonical(client: Client) -> None:
    client.insert(group(1, (b"\0\0\5", 1)))
    (read,) = client.read(group(1))
    assert replicas_of(read)[0].port == b"\5"


def test_the_port_of_older_clients(client: Client, target: Target) -> None:
    entity = group(7)
    replicas_of(entity).add(egress_port=4, instance=1)
    client.insert(entity)
    flood(client, 7)
    assert target.plane.inject(5, frame()) == [(4, frame())]
    assert client.read(group(7)) == [entity]


def test_with_all_ports_down_the_preferred_one_counts(client: Client, target: Target) -> None:
    entity = group(7, (b"\1", 1))
    replicas_of(entity)[0].backup_replicas.add(port=b"\0\2", instance=9)
    client.insert(entity)
    flood(client, 7)
    assert target.plane.inject(5, frame()) == [(1, frame())]
    (read,) = client.read(group(7))
    assert replicas_of(read)[0].backup_replicas[0].port == b"\2"


def test_a_backup_that_is_up_takes_over(client: Client, target: Target) -> None:
    """The CPU port is always up, port 1 has no interface."""
    entity = group(7, (b"\1", 1))
    replicas_of(entity)[0].backup_replicas.add(port=b"\2", instance=1)
    replicas_of(entity)[0].backup_replicas.add(port=CPU_PORT.to_bytes(2, "big"), instance=1)
    client.insert(entity)
    flood(client, 7)
    assert [port for port, _ in target.plane.inject(5, frame())] == [CPU_PORT]


def test_existing_and_missing(client: Client) -> None:
    client.insert(group(1, (b"\1", 1)), session(1, (b"\1", 1)))
    assert code(client, INSERT, group(1)) == EXISTS
    assert code(client, INSERT, session(1)) == EXISTS
    for kind in (MODIFY, DELETE):
        assert code(client, kind, group(2)) == NOT_FOUND
        assert code(client, kind, session(2)) == NOT_FOUND


def with_backup(port: bytes, instance: int) -> p4r.Entity:
    entity = group(1, (b"\1", 1))
    replicas_of(entity)[0].backup_replicas.add(port=port, instance=instance)
    return entity


@pytest.mark.parametrize(
    ("entity", "expected"),
    [
        (group(0, (b"\1", 1)), INVALID),
        (group(65536, (b"\1", 1)), INVALID),
        (session(0, (b"\1", 1)), INVALID),
        (session(32768, (b"\1", 1)), INVALID),
        (group(1, (b"\1", 1), (b"\0\1", 1)), INVALID),  # twice the same
        (group(1, (b"\1", 65536)), INVALID),
        (group(1, (b"", 1)), RANGE),
        (group(1, (b"\1\0\0\0\0", 1)), RANGE),
        (session(1, (b"\1", 1), packet_length_bytes=-1), INVALID),
        (session(1, (b"\1", 1), class_of_service=2), UNOFFERED),
        (p4r.Entity(packet_replication_engine_entry={}), INVALID),
        (with_backup(b"\1", 2), INVALID),  # its own backup
        (with_backup(b"", 2), RANGE),
        (with_backup(b"\2", 65536), INVALID),
    ],
)
def test_entries_that_make_no_sense(client: Client, entity: p4r.Entity, expected: int) -> None:
    assert code(client, INSERT, entity) == expected
    assert client.read(group(0)) == []
    assert client.read(session(0)) == []


def test_a_push_clears_them(client: Client, target: Target) -> None:
    client.insert(group(7, (b"\1", 1)))
    client.push(client.get())
    assert client.read(group(0)) == []
    flood(client, 7)
    assert target.plane.inject(5, frame()) == []
