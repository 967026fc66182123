"""Clients that send without end and read nothing: bounded memory, and others are served on."""

from __future__ import annotations

import itertools
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import grpc
import pytest
from finsy.proto import U128, p4r, p4r_grpc
from p4rt import INSERT, MODIFY, WAIT_S, Client, Names, frame, mac, program_config, write_request
from target import Target

BATCH = 500
BATCHES = 2000
MEGABYTE = 1 << 20


@contextmanager
def softnic() -> Iterator[tuple[subprocess.Popen[str], str]]:
    """The command in a process of its own, with its address."""
    command = [sys.executable, "-m", "softnic", "--no-p4", "--", "--grpc-server-addr"]
    with subprocess.Popen([*command, "127.0.0.1:0"], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        address = process.stdout.readline().partition(" on ")[2].partition(",")[0]
        try:
            yield process, address
        finally:
            process.kill()


def resident(process: subprocess.Popen[str]) -> int:
    """Bytes of memory that a process holds now."""
    status = Path(f"/proc/{process.pid}/status").read_text()
    found = re.search(r"VmRSS:\s+(\d+) kB", status)
    assert found is not None
    return int(found[1]) * 1024


def entry(names: Names, number: int, port: int = 1) -> p4r.Entity:
    action = names.action("forward", bytes([port]))
    return names.entry("exact_table", {"hdr.ethernet.dst": mac(number)}, action)


def test_a_million_updates_at_once() -> None:
    """All are sent before an answer is read: the server holds a bounded part of them."""
    with softnic() as (process, address):
        client, other = Client(address), Client(address)
        client.primary()
        client.push(program_config("entities"))
        names = client.names
        client.insert(*(entry(names, i) for i in range(BATCH)))
        before = resident(process)
        batch = [(MODIFY, entry(names, i, 2)) for i in range(BATCH)]
        request = write_request(batch).SerializeToString()
        raw = client.channel.unary_unary("/p4.v1.P4Runtime/Write")
        pending = [raw.future(request) for _ in range(BATCHES)]
        worst = 0
        while not pending[-1].done():
            worst = max(worst, resident(process))
            assert len(other.entries("port_acl")) == 1
        wrong = [call.details() for call in pending if call.code() is not grpc.StatusCode.OK]
        assert wrong == []
        assert worst - before < 64 * MEGABYTE
        assert {e.action.action.params[0].value for e in client.entries("exact_table")} == {b"\2"}
        client.close()
        other.close()


_WRITER = """
import itertools, sys
sys.path.insert(0, sys.argv[2])
from p4rt import INSERT, Client, mac
client = Client(sys.argv[1])
client.primary(9)
names = client.names
for number in itertools.count(start=0, step=20):
    client.write(
        *(
            (INSERT, names.entry("exact_table", {"hdr.ethernet.dst": mac(number + i)},
                                 names.action("forward", b"1")))
            for i in range(20)
        ),
        election_id=9,
    )
    print(number, flush=True)
"""


def test_a_client_killed_while_it_writes(target: Target) -> None:
    """Each batch that it was told is done is there, whole, and its successor goes on."""
    argv = [sys.executable, "-c", _WRITER, target.server.address, str(Path(__file__).parent)]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        told = [int(process.stdout.readline()) for _ in range(10)]
        process.kill()
        told += [int(line) for line in process.stdout]
    client = target.client()
    client.primary(10)
    found = {e.match[0].exact.value for e in client.entries("exact_table")}
    assert {mac(number + i) for number in told for i in range(20)} <= found
    assert len(found) % 20 == 0
    client.write((MODIFY, entry(client.names, 0, 2)), election_id=10)


def test_one_batch_of_too_many_bytes_is_refused(client: Client) -> None:
    raw = client.channel.unary_unary("/p4.v1.P4Runtime/Write")
    with pytest.raises(grpc.RpcError) as error:
        raw(bytes(129 * MEGABYTE))
    assert error.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    client.insert(entry(client.names, 1))


def test_a_stream_that_is_not_read_loses_its_own_messages_only(target: Target) -> None:
    """Each wrong packet-out is answered; the answers that nobody takes are counted and gone."""
    deaf = target.client()
    enough = threading.Event()

    def requests() -> Iterator[p4r.StreamMessageRequest]:
        hello = p4r.StreamMessageRequest()
        hello.arbitration.device_id = 1
        hello.arbitration.election_id.CopyFrom(U128.encode(1))
        yield hello
        wrong = p4r.StreamMessageRequest()
        wrong.packet.payload = bytes(1000)
        yield from itertools.takewhile(lambda _: not enough.is_set(), itertools.repeat(wrong))

    call = p4r_grpc.P4RuntimeStub(deaf.channel).StreamChannel(requests())
    deadline = time.monotonic() + WAIT_S
    while not target.device.drops.counts().get("slow client: error"):
        assert time.monotonic() < deadline, target.device.drops.counts()
        time.sleep(0.01)
    client = target.client()
    stream = client.primary(2)
    client.write((INSERT, entry(client.names, 1)), election_id=2)
    hello = p4r.StreamMessageRequest()
    hello.packet.payload = frame()
    hello.packet.metadata.add(metadata_id=1, value=b"\x01\xfe")
    stream.send(hello)
    assert stream.expect("packet").payload == frame()[4:]
    enough.set()
    call.cancel()


def test_a_client_that_only_arbitrates_is_ended(target: Target) -> None:
    """Arbitration answers are never dropped, so a stream that doesn't take them must end."""
    client = target.client()
    first = client.stub.StreamChannel(_arbitrations())
    deadline = time.monotonic() + WAIT_S
    told = "stream ended: the client doesn't read"
    while not target.device.drops.counts().get(told) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert target.device.drops.counts().get(told)
    with pytest.raises(grpc.RpcError) as error:
        list(first)  # what came before the end
    assert error.value.code() is grpc.StatusCode.CANCELLED


def _arbitrations() -> Iterator[p4r.StreamMessageRequest]:
    for number in itertools.count(1):
        message = p4r.StreamMessageRequest()
        message.arbitration.device_id = 1
        message.arbitration.election_id.CopyFrom(U128.encode(number))
        yield message


def test_a_flooding_stream_takes_turns_with_others(
    target: Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many of its messages wait, another stream's arbitration is next but a few."""
    flooding, blocking, other = (target.client().stream() for _ in range(3))
    flooding.arbitrate(1)
    flooding.standing()
    handled = []
    arbitrate = target.device.clients.arbitrate

    def noted(client: object, message: p4r.MasterArbitrationUpdate) -> None:
        refused = target.device.drops.counts().get("packet-out refused: INVALID_ARGUMENT", 0)
        handled.append((U128.decode(message.election_id), refused))
        arbitrate(client, message)  # type: ignore[arg-type]

    monkeypatch.setattr(target.device.clients, "arbitrate", noted)
    wrong = p4r.StreamMessageRequest()
    wrong.packet.payload = b"?"
    with target.plane.exclusive():  # the thread of streams waits for its end
        blocking.arbitrate(2)
        deadline = time.monotonic() + WAIT_S
        while not handled:
            assert time.monotonic() < deadline
            time.sleep(0.002)
        for _ in range(1000):
            flooding.send(wrong)
        while target.server._front.held() < 1000 * wrong.ByteSize():
            assert time.monotonic() < deadline
            time.sleep(0.002)
        other.arbitrate(3)
        while target.server._front.held() <= 1000 * wrong.ByteSize():
            assert time.monotonic() < deadline
            time.sleep(0.002)
    assert other.standing() == (0, 3)
    assert handled[0] == (2, 0)
    assert handled[1][0] == 3
    assert handled[1][1] <= 64
