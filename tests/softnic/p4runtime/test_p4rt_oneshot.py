"""One-shot action sets (P4Runtime 1.4, 9.2.3)."""

from __future__ import annotations

import struct
from typing import Any

import grpc
import pytest
from finsy.proto import p4r
from p4rt import DELETE, INSERT, MODIFY, Client, Names, batch_codes, program_config
from target import Target

INVALID, NOT_FOUND, EXISTS, FULL, RANGE, UNOFFERED = 3, 5, 6, 8, 11, 12
NAMES = Names(program_config("groups").p4info)
HOPS = next(
    p.preamble.id
    for p in program_config("groups").p4info.action_profiles
    if p.preamble.alias == "hops"
)
Set = p4r.ActionProfileActionSet


@pytest.fixture
def client(bare: Target) -> Client:
    """The primary of a device that runs `groups`."""
    made = bare.client()
    made.names = NAMES
    made.primary()
    made.push(program_config("groups"))
    return made


def shots(*parts: tuple[int, int, bytes | None], dst: bytes = b"\1", **more: Any) -> p4r.Entity:
    """An entry of `route` for a destination: port, weight and watched port of each action."""
    message = Set(**more)
    for port, weight, watch in parts:
        action = NAMES.action("via", bytes([port])).action
        message.action_profile_actions.add(action=action, weight=weight, watch_port=watch)
    action_set = p4r.TableAction(action_profile_action_set=message)
    return NAMES.entry("route", {"h.data.dst": (dst, 8)}, action_set)


def members() -> list[p4r.Entity]:
    member = p4r.ActionProfileMember(action_profile_id=HOPS, member_id=1)
    member.action.CopyFrom(NAMES.action("via", b"\1").action)
    group = p4r.ActionProfileGroup(action_profile_id=HOPS, group_id=1)
    return [p4r.Entity(action_profile_member=member), p4r.Entity(action_profile_group=group)]


def code(client: Client, kind: Any, entity: p4r.Entity) -> int:
    with pytest.raises(grpc.RpcError) as error:
        client.write((kind, entity))
    return batch_codes(error.value)[0]


def ports(bare: Target, dst: int = 1) -> list[int]:
    """Where flows to a destination leave; 0 where there is no entry."""
    packets = (struct.pack(">HHBB", 0, flow, dst, 0) for flow in range(0, 4096, 41))
    return [out[0] for p in packets for out in bare.plane.inject(1, p)]


def test_flows_are_shared_by_weight(client: Client, bare: Target) -> None:
    client.insert(shots((11, 3, None), (12, 1, None)))
    found = ports(bare)
    assert found == ports(bare)
    assert len(found) > found.count(11) > found.count(12) > 0
    client.write((MODIFY, shots((13, 1, None), (13, 1, None))))  # an action may be there twice
    assert set(ports(bare)) == {13}
    client.write((DELETE, shots()))
    assert set(ports(bare)) == {0}


def test_an_action_whose_port_is_down_is_not_chosen(client: Client, bare: Target) -> None:
    """Port 99 has no link."""
    client.insert(shots((11, 1, b"\x63"), (12, 1, None)))
    assert set(ports(bare)) == {12}
    client.write((MODIFY, shots((11, 1, b"\x63"))))
    assert set(ports(bare)) == {0}  # nobody can be chosen: a hit that does nothing


def test_sets_are_read_as_written(client: Client) -> None:
    entries = [shots((11, 3, b"\5"), (12, 1, None)), shots(dst=b"\2")]
    client.insert(*entries)
    assert client.read(NAMES.entry("route")) == entries
    changed = shots((14, 2, None), action_selection_mode=Set.HASH, size_semantics=1)
    client.write((MODIFY, changed))
    assert client.read(shots()) == [changed]
    # Nobody sees what they are made of.
    assert client.read(p4r.Entity(action_profile_member=p4r.ActionProfileMember())) == []
    assert client.read(p4r.Entity(action_profile_group=p4r.ActionProfileGroup())) == []


def test_a_modify_without_action_keeps_the_set(client: Client, bare: Target) -> None:
    client.insert(shots((11, 1, None)))
    bare_entry = shots()
    bare_entry.table_entry.ClearField("action")
    bare_entry.table_entry.metadata = b"mine"
    client.write((MODIFY, bare_entry))
    assert set(ports(bare)) == {11}
    (found,) = client.read(NAMES.entry("route"))
    assert found.table_entry.metadata == b"mine"
    assert found.table_entry.action == shots((11, 1, None)).table_entry.action


def test_what_is_given_up_can_be_had_again(client: Client, bare: Target) -> None:
    """The profile holds 64 members."""
    for _ in range(5):
        client.insert(shots(*[(1, 1, None)] * 16))
        assert code(client, INSERT, shots(*[(1, 1, None)] * 16)) == EXISTS
        client.write((MODIFY, shots(*[(2, 1, None)] * 16)))
        client.insert(*(shots(*[(3, 1, None)] * 16, dst=bytes([d])) for d in (2, 3, 4)))
        assert code(client, INSERT, shots((4, 1, None), dst=b"\5")) == FULL
        assert code(client, MODIFY, shots((4, 1, None), dst=b"\5")) == NOT_FOUND
        assert set(ports(bare)) == {2}
        client.write(*((DELETE, shots(dst=bytes([d]))) for d in (1, 2, 3, 4)))


def test_one_selector_is_programmed_in_one_way(client: Client) -> None:
    member, group = members()
    client.insert(shots((11, 1, None)))
    assert code(client, INSERT, member) == INVALID
    assert code(client, INSERT, group) == INVALID
    client.write((DELETE, shots()))
    client.insert(member, group)
    assert code(client, INSERT, shots((11, 1, None))) == INVALID
    client.write((DELETE, group), (DELETE, member))
    client.insert(shots((11, 1, None)))


def test_a_push_forgets_them(client: Client, bare: Target) -> None:
    client.insert(shots((11, 1, None)))
    client.push(program_config("groups"))
    assert client.read(NAMES.entry("route")) == []
    client.insert(shots((12, 1, None)))
    assert set(ports(bare)) == {12}


def foreign() -> p4r.Entity:
    entity = shots((1, 1, None))
    part = entity.table_entry.action.action_profile_action_set.action_profile_actions[0]
    part.action.CopyFrom(NAMES.action("note", b"\1").action)
    return entity


def elsewhere(table: str) -> p4r.Entity:
    match = {"h.data.dst": b"\1"}
    if table == "limit":
        return NAMES.entry(table, {}, shots((1, 1, None)).table_entry.action, priority=1)
    return NAMES.entry(table, match, shots((1, 1, None)).table_entry.action)


@pytest.mark.parametrize(
    ("entity", "expected"),
    [
        (shots((1, 0, None)), INVALID),
        (shots((1, -1, None)), INVALID),
        (shots((1, 1, b"\1\0\0\0\0")), RANGE),
        (shots((1, 1, None), action_selection_mode=Set.RANDOM), UNOFFERED),
        (shots((1, 1, None), size_semantics=Set.SUM_OF_MEMBERS), UNOFFERED),
        (shots((1, 1, None), (1, 1 << 20, None)), FULL),
        (foreign(), INVALID),
        (elsewhere("fate"), INVALID),  # a profile without selector
        (elsewhere("limit"), INVALID),  # no profile at all
    ],
)
def test_sets_that_make_no_sense(
    client: Client, bare: Target, entity: p4r.Entity, expected: int
) -> None:
    assert code(client, INSERT, entity) == expected
    assert client.read(NAMES.entry("route")) == []
    client.insert(shots(*[(7, 1, None)] * 64))  # nothing was left behind
    assert set(ports(bare)) == {7}


def test_the_limits_that_p4info_sets(bare: Target) -> None:
    config = program_config("groups")
    (hops,) = (p for p in config.p4info.action_profiles if p.preamble.id == HOPS)
    client = bare.client()
    client.primary()
    hops.max_group_size = 3
    client.push(config)
    client.insert(shots((1, 2, None), (2, 1, None)))
    assert code(client, MODIFY, shots((1, 2, None), (2, 2, None))) == INVALID
    hops.sum_of_members.max_member_weight = 4
    client.push(config)
    client.insert(shots((1, 4, None), (2, 4, None)))
    assert code(client, MODIFY, shots((1, 5, None))) == INVALID
    assert code(client, MODIFY, shots(*[(1, 1, None)] * 4)) == INVALID
    hops.ClearField("sum_of_members")
    hops.weights_disallowed = True
    client.push(config)
    client.insert(shots((1, 0, None)))
    assert code(client, MODIFY, shots((1, 1, None))) == INVALID
