"""Who is primary: election ids, roles, and connections that end (P4Runtime 1.4, section 5)."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import grpc
import pytest
from finsy.proto import p4r, stratum
from p4rt import INSERT, Client, batch_codes, frame, mac, program_config
from target import Target

OK, NOT_FOUND, EXISTS, DENIED = 0, 5, 6, 7


def forwarding(client: Client, dst: int = 1) -> p4r.Entity:
    names = client.names
    return names.entry("exact_table", {"hdr.ethernet.dst": mac(dst)}, names.action("forward", b"1"))


def code_of(error: pytest.ExceptionInfo[grpc.RpcError]) -> grpc.StatusCode:
    return error.value.code()


def test_highest_election_id_is_primary_and_others_hear_of_it(target: Target) -> None:
    low, high = target.client(), target.client()
    first = low.primary(10)
    second = high.stream()
    second.arbitrate(20)
    assert second.standing() == (OK, 20)
    assert first.standing() == (EXISTS, 20)
    with pytest.raises(grpc.RpcError) as error:
        low.write((INSERT, forwarding(low)), election_id=10)
    assert code_of(error) is grpc.StatusCode.PERMISSION_DENIED
    high.write((INSERT, forwarding(high)), election_id=20)


def test_a_backup_may_read_and_not_write(target: Target) -> None:
    target.client().primary(20)
    backup = target.client()
    stream = backup.stream()
    stream.arbitrate(10)
    assert stream.standing() == (EXISTS, 20)
    assert [e.table_id for e in backup.entries("port_acl")] == [backup.names.table("port_acl")]
    message = p4r.StreamMessageRequest()
    message.packet.payload = frame()
    message.packet.metadata.add(metadata_id=1, value=b"\1")
    stream.send(message)
    refused = stream.expect("error")
    assert refused.canonical_code == DENIED
    assert refused.packet_out.packet_out == message.packet


def test_the_primary_leaves_and_nobody_follows_by_itself(target: Target) -> None:
    first, second = target.client(), target.client()
    backup = second.stream()
    primary = first.primary(20)
    backup.arbitrate(10)
    assert backup.standing() == (EXISTS, 20)
    primary.close()
    assert backup.standing() == (NOT_FOUND, 20)
    backup.arbitrate(15)  # 20 is remembered
    assert backup.standing() == (NOT_FOUND, 20)
    backup.arbitrate(20)
    assert backup.standing() == (OK, 20)


def test_a_client_that_never_wants_to_be_primary(bare: Target) -> None:
    stream = bare.client().stream()
    stream.arbitrate(None)
    assert stream.standing() == (NOT_FOUND, 0)
    other = bare.client()
    other.primary(1)
    assert stream.standing() == (EXISTS, 1)


def test_the_primary_steps_down(target: Target) -> None:
    client = target.client()
    stream = client.primary(5)
    stream.arbitrate(None)
    assert stream.standing() == (NOT_FOUND, 5)
    with pytest.raises(grpc.RpcError) as error:
        client.write((INSERT, forwarding(client)), election_id=5)
    assert code_of(error) is grpc.StatusCode.PERMISSION_DENIED


def test_an_election_id_has_128_bits(target: Target) -> None:
    low, high = target.client(), target.client()
    first = low.primary((1 << 64) - 1)
    second = high.stream()
    second.arbitrate(1 << 64)
    assert second.standing() == (OK, 1 << 64)
    assert first.standing() == (EXISTS, 1 << 64)


@pytest.mark.parametrize(
    ("election_id", "device_id", "role", "code"),
    [
        (7, 1, "", grpc.StatusCode.INVALID_ARGUMENT),  # another client has it
        (8, 2, "", grpc.StatusCode.NOT_FOUND),
        (8, 0, "", grpc.StatusCode.NOT_FOUND),
    ],
)
def test_arbitration_that_ends_the_stream(
    target: Target, election_id: int, device_id: int, role: str, code: grpc.StatusCode
) -> None:
    target.client().primary(7)
    stream = target.client().stream()
    stream.arbitrate(election_id, device_id=device_id, role=role)
    assert stream.end_code() is code


def test_a_stream_keeps_its_role(target: Target) -> None:
    stream = target.client().primary(1)
    stream.arbitrate(2, role="other")
    assert stream.end_code() is grpc.StatusCode.FAILED_PRECONDITION


def test_each_role_has_a_primary_of_its_own(target: Target) -> None:
    one, two = target.client(), target.client()
    one.primary(5, role="routing")
    two.primary(5, role="policy")  # the same id: of another role
    one.write((INSERT, forwarding(one, 1)), election_id=5, role="routing")
    two.write((INSERT, forwarding(two, 2)), election_id=5, role="policy")
    with pytest.raises(grpc.RpcError) as error:
        one.write((INSERT, forwarding(one, 3)), election_id=5, role="nobody")
    assert code_of(error) is grpc.StatusCode.NOT_FOUND


def test_a_role_is_held_to_its_tables(target: Target) -> None:
    client = target.client()
    names = client.names
    stream = client.stream()
    config = stratum.P4RoleConfig(
        exclusive_p4_ids=[names.table("lpm_table")],
        receives_packet_ins=False,
        can_push_pipeline=False,
    )
    stream.arbitrate(1, role="routing", config=config)
    told = stream.expect("arbitration")
    back = stratum.P4RoleConfig()
    assert told.role.config.Unpack(back)
    assert back == config
    lpm = names.entry("lpm_table", {"hdr.ethernet.type": (b"\x08\0", 8)}, names.action("NoAction"))
    client.write((INSERT, lpm), role="routing")
    with pytest.raises(grpc.RpcError) as error:
        client.write((INSERT, lpm), (INSERT, forwarding(client)), role="routing")
    assert batch_codes(error.value) == [EXISTS, DENIED]
    everything = client.read(p4r.Entity(table_entry=p4r.TableEntry()), role="routing")
    assert {e.table_entry.table_id for e in everything} == {names.table("lpm_table")}
    with pytest.raises(grpc.RpcError) as error:
        client.push(program_config("entities"), role="routing")
    assert code_of(error) is grpc.StatusCode.PERMISSION_DENIED


def test_more_streams_than_it_takes_are_refused(target: Target) -> None:
    client = target.client()
    for number in range(1, 33):
        client.stream().arbitrate(number)
    last = client.stream()
    assert last.end_code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    client.streams[0].close()
    assert client.streams[31].standing()[0] == OK


_PRIMARY = """
import sys
sys.path.insert(0, sys.argv[2])
from p4rt import Client
client = Client(sys.argv[1])
client.primary(9)
print("primary", flush=True)
client.streams[0].expect("packet")
"""


def test_a_primary_that_is_killed_makes_room(target: Target) -> None:
    backup = target.client().stream()
    argv = [sys.executable, "-c", _PRIMARY, target.server.address, str(Path(__file__).parent)]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "primary\n"
        backup.arbitrate(5)
        assert backup.standing() == (EXISTS, 9)
        process.kill()
        assert backup.standing() == (NOT_FOUND, 9)
    backup.arbitrate(9)
    assert backup.standing() == (OK, 9)


def test_writes_of_the_old_primary_are_over_before_the_new_one_hears_it(target: Target) -> None:
    """Whatever the old one was told is done can be read by the new one, and nothing comes later."""
    old, new = target.client(), target.client()
    old.primary(1)
    batch = [(INSERT, forwarding(old, i)) for i in range(500)]
    pending = old.stub.Write.future(
        p4r.WriteRequest(
            device_id=1,
            election_id=p4r.Uint128(low=1),
            updates=[p4r.Update(type=kind, entity=entity) for kind, entity in batch],
        )
    )
    new.primary(2)
    seen = len(new.entries("exact_table"))
    code = pending.code()
    assert len(new.entries("exact_table")) == seen
    assert seen == (500 if code is grpc.StatusCode.OK else 0)
