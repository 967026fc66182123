"""What a device tells its primary: packet-ins, digests, idle time-outs (P4Runtime 1.4, 16)."""

from __future__ import annotations

import time
from typing import Any

import grpc
import pytest
from finsy.proto import p4r, stratum
from p4rt import CPU_PORT, DELETE, INSERT, MODIFY, Client, Stream, batch_codes, frame, mac
from target import Target

INVALID, NOT_FOUND, EXISTS, DENIED = 3, 5, 6, 7
CPU = CPU_PORT.to_bytes(2, "big")


def packet_out(payload: bytes, **metadata: bytes) -> p4r.StreamMessageRequest:
    message = p4r.StreamMessageRequest()
    message.packet.payload = payload
    for name, value in metadata.items():
        message.packet.metadata.add(metadata_id=int(name.removeprefix("m")), value=value)
    return message


def learn(client: Client, **config: int) -> int:
    """Have frames to MAC 1 digested; the digest's id."""
    names = client.names
    digest_id = names.digests["learn_t"]
    digest = p4r.DigestEntry(digest_id=digest_id, config=p4r.DigestEntry.Config(**config))
    action = names.action("learn", b"\1")
    client.insert(
        p4r.Entity(digest_entry=digest),
        names.entry("exact_table", {"hdr.ethernet.dst": mac(1)}, action),
    )
    return digest_id


def macs(message: p4r.DigestList) -> list[bytes]:
    return [d.struct.members[0].bitstring for d in message.data]


# -- packets -------------------------------------------------------------------------------


def test_packet_out_to_packet_in(target: Target) -> None:
    """A packet-out to the CPU port comes back without its header: too short for one of its own."""
    client = target.client()
    stream = client.primary()
    stream.send(packet_out(frame(), m1=CPU))
    back = stream.expect("packet")
    # The program adds no packet-in header here: the frame's first bytes are taken for one.
    header = int.from_bytes(frame()[:4], "big")
    assert back.payload == frame()[4:]
    assert [(m.metadata_id, int.from_bytes(m.value, "big")) for m in back.metadata] == [
        (1, header >> 23),
        (2, header >> 16 & 0x7F),
        (3, header & 0xFFFF),
    ]


@pytest.mark.parametrize(
    ("metadata", "told"),
    [
        ({}, "missing"),
        ({"m1": b"\1", "m7": b"\1"}, "id 7"),
        ({"m1": b"\4\0"}, "wider"),
        ({"m1": b""}, "empty"),
    ],
)
def test_a_packet_out_that_makes_no_sense_is_told_of(
    target: Target, metadata: dict[str, bytes], told: str
) -> None:
    stream = target.client().primary()
    wrong = packet_out(frame(), **metadata)
    stream.send(wrong)
    error = stream.expect("error")
    assert error.canonical_code == INVALID
    assert told in error.message
    assert error.packet_out.packet_out == wrong.packet
    stream.send(packet_out(frame(), m1=CPU))
    stream.expect("packet")


def test_a_packet_out_larger_than_a_frame_is_refused(target: Target) -> None:
    stream = target.client().primary()
    stream.send(packet_out(bytes(65536), m1=CPU))
    assert stream.expect("error").canonical_code == INVALID
    stream.send(packet_out(bytes(9000), m1=CPU))
    assert len(stream.expect("packet").payload) == 9000 - 4


def test_a_runt_from_the_cpu_port_is_counted(target: Target) -> None:
    stream = target.client().primary()
    stream.send(packet_out(b"", m1=CPU))  # nothing left for a packet-in header
    stream.send(packet_out(frame(), m1=CPU))
    stream.expect("packet")
    assert stream.waiting("packet") == 0
    assert sum(target.device.drops.counts().values()) == 1


def test_packet_ins_go_to_roles_that_want_them(target: Target) -> None:
    client = target.client()
    everything, nothing, some = client.stream(), client.stream(), client.stream()
    everything.arbitrate(1)
    nothing.arbitrate(1, role="deaf", config=stratum.P4RoleConfig(receives_packet_ins=False))
    chosen = stratum.P4RoleConfig(receives_packet_ins=True)
    chosen.packet_in_filter.metadata_id, chosen.packet_in_filter.value = 3, b"\1"
    some.arbitrate(1, role="some", config=chosen)
    for stream in (everything, nothing, some):
        assert stream.standing()[0] == 0
    for reason in (b"\0\0\0\2", b"\0\0\0\1", b"\0\0\0\2"):
        everything.send(packet_out(reason + b"rest", m1=CPU))
    for _ in range(3):
        everything.expect("packet")
    assert some.expect("packet").metadata[2].value == b"\1"
    assert some.waiting("packet") == nothing.waiting("packet") == 0


def test_architecture_messages_are_refused(target: Target) -> None:
    stream = target.client().primary()
    message = p4r.StreamMessageRequest()
    message.other.type_url = "x/y"
    stream.send(message)
    error = stream.expect("error")
    assert error.canonical_code == 12
    assert error.other.other == message.other


# -- digests -------------------------------------------------------------------------------


def test_a_list_is_sent_when_it_is_full(target: Target) -> None:
    client = target.client()
    stream = client.primary()
    digest_id = learn(client, max_list_size=3, max_timeout_ns=10**12)
    for src in (10, 11, 12):
        target.plane.inject(5, frame(src=src))
    told = stream.expect("digest")
    assert told.digest_id == digest_id
    assert told.timestamp > 0
    assert macs(told) == [mac(10), mac(11), mac(12)]
    assert told.data[0].struct.members[1].bitstring == b"\5"


def test_a_list_is_sent_when_its_time_is_over(target: Target) -> None:
    client = target.client()
    stream = client.primary()
    learn(client, max_list_size=1000, max_timeout_ns=50_000_000)
    start = time.monotonic()
    target.plane.inject(5, frame(src=10))
    target.plane.inject(5, frame(src=11))
    assert macs(stream.expect("digest")) == [mac(10), mac(11)]
    assert time.monotonic() - start >= 0.05


def test_no_time_means_at_once(target: Target) -> None:
    client = target.client()
    stream = client.primary()
    learn(client)
    for src in (10, 11):
        target.plane.inject(5, frame(src=src))
        assert macs(stream.expect("digest")) == [mac(src)]


def test_what_is_not_acknowledged_is_not_told_again(target: Target) -> None:
    client = target.client()
    stream = client.primary()
    digest_id = learn(client, ack_timeout_ns=10**12)
    target.plane.inject(5, frame(src=10))
    first = stream.expect("digest")
    target.plane.inject(5, frame(src=10))
    target.plane.inject(5, frame(src=11))
    assert macs(stream.expect("digest")) == [mac(11)]
    ack = p4r.StreamMessageRequest()
    ack.digest_ack.digest_id, ack.digest_ack.list_id = digest_id, first.list_id
    stream.send(ack)
    synchronise(stream)
    target.plane.inject(5, frame(src=10))
    assert macs(stream.expect("digest")) == [mac(10)]


def test_an_acknowledgement_that_never_comes_times_out(target: Target) -> None:
    client = target.client()
    stream = client.primary()
    learn(client, ack_timeout_ns=20_000_000)
    target.plane.inject(5, frame(src=10))
    stream.expect("digest")
    deadline = time.monotonic() + 5
    while not stream.waiting("digest") and time.monotonic() < deadline:
        target.plane.inject(5, frame(src=10))
    assert macs(stream.expect("digest")) == [mac(10)]


def test_another_primary_is_told_all_again(target: Target) -> None:
    client = target.client()
    stream = client.primary(1)
    learn(client, ack_timeout_ns=10**12)
    target.plane.inject(5, frame(src=10))
    stream.expect("digest")
    other = target.client().primary(2)
    target.plane.inject(5, frame(src=10))
    assert macs(other.expect("digest")) == [mac(10)]


def test_digests_are_enabled_changed_and_disabled(target: Target) -> None:
    client = target.client()
    stream = client.primary()
    digest_id = learn(client, max_list_size=100, max_timeout_ns=10**12)
    entity = p4r.Entity(digest_entry=p4r.DigestEntry(digest_id=digest_id))
    assert code(client, INSERT, entity) == EXISTS
    client.write((MODIFY, entity))
    target.plane.inject(5, frame(src=10))
    assert macs(stream.expect("digest")) == [mac(10)]
    client.write((DELETE, entity))
    for kind in (MODIFY, DELETE):
        assert code(client, kind, entity) == NOT_FOUND
    entity.digest_entry.config.max_list_size = -1
    assert code(client, INSERT, entity) == INVALID


def test_only_the_primary_acknowledges(target: Target) -> None:
    client = target.client()
    client.primary(5)
    backup = target.client().stream()
    backup.arbitrate(1)
    ack = p4r.StreamMessageRequest()
    ack.digest_ack.digest_id = client.names.digests["learn_t"]
    backup.send(ack)
    error = backup.expect("error")
    assert error.canonical_code == DENIED
    assert error.digest_list_ack.digest_list_ack == ack.digest_ack


# -- idle time-outs ------------------------------------------------------------------------


def timed(client: Client, dst: int, milliseconds: int, **more: Any) -> p4r.Entity:
    names = client.names
    return names.entry(
        "exact_table",
        {"hdr.ethernet.dst": mac(dst)},
        names.action("forward", b"\1"),
        idle_timeout_ns=milliseconds * 1_000_000,
        **more,
    )


def test_an_idle_entry_is_told_of_once(target: Target) -> None:
    client = target.client()
    stream = client.primary()
    client.insert(timed(client, 1, 100, metadata=b"mine"), timed(client, 2, 1_000_000))
    start = time.monotonic()
    told = stream.expect("idle_timeout_notification")
    assert time.monotonic() - start >= 0.1
    assert told.timestamp > 0
    (entry,) = told.table_entry
    assert entry.match[0].exact.value == mac(1)
    assert (entry.idle_timeout_ns, entry.metadata) == (100_000_000, b"mine")
    assert not entry.HasField("action")
    target.plane.inject(5, frame(1))  # used again, then idle again
    again = stream.expect("idle_timeout_notification")
    assert again.table_entry[0].match[0].exact.value == mac(1)
    assert stream.waiting("idle_timeout_notification") == 0
    assert len(client.entries("exact_table")) == 2  # nothing is deleted by itself


def test_a_used_entry_is_not_idle(target: Target) -> None:
    client = target.client()
    stream = client.primary()
    client.insert(timed(client, 1, 400), timed(client, 2, 400))
    while not stream.waiting("idle_timeout_notification"):
        target.plane.inject(5, frame(1))
        time.sleep(0.01)  # a host that sends a hundred times a second
    told = stream.expect("idle_timeout_notification")
    assert [e.match[0].exact.value for e in told.table_entry] == [mac(2)]


def test_time_since_the_last_hit_can_be_read(target: Target) -> None:
    client = target.client()
    client.primary()
    client.insert(timed(client, 1, 10**6))
    wanted = client.names.entry("exact_table")
    wanted.table_entry.time_since_last_hit.SetInParent()
    before = client.read(wanted)[0].table_entry.time_since_last_hit.elapsed_ns
    later = client.read(wanted)[0].table_entry.time_since_last_hit.elapsed_ns
    assert 0 < before < later
    target.plane.inject(5, frame(1))
    assert client.read(wanted)[0].table_entry.time_since_last_hit.elapsed_ns < later
    wrong = client.names.entry("lpm_table")
    wrong.table_entry.time_since_last_hit.SetInParent()
    with pytest.raises(grpc.RpcError) as error:
        client.read(wrong)
    assert batch_codes(error.value) == [INVALID]


def code(client: Client, kind: Any, entity: p4r.Entity) -> int:
    with pytest.raises(grpc.RpcError) as error:
        client.write((kind, entity))
    return batch_codes(error.value)[0]


def synchronise(stream: Stream) -> None:
    """All that was sent before has been taken when this returns: an error comes back for it."""
    message = p4r.StreamMessageRequest()
    message.other.type_url = "x/y"
    stream.send(message)
    stream.expect("error")
