"""A P4Runtime client in a process of its own, for `target`: how long a device takes for what.

    python -m dysco.bench.p4client ADDRESS DEVICE_ID inserts COUNT BATCH     prints {"seconds": ...}
    python -m dysco.bench.p4client ADDRESS DEVICE_ID single COUNT            prints {"ns": [...]}
    python -m dysco.bench.p4client ADDRESS DEVICE_ID answer                  prints "ready", goes on

It pushes the program of dysco/bench/programs first. The same bytes go to every target: plain gRPC
and P4Runtime's own messages, below every library. `answer` sends each packet-in back out.
"""

from __future__ import annotations

import json
import queue
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

import grpc
from finsy.proto import p4i, p4r, p4r_grpc
from google.protobuf import text_format

PROGRAM = Path(__file__).parent / "programs" / "five_tuple.json"
_P4INFO = PROGRAM.with_suffix(".p4info.txtpb")
_ELECTION_ID = p4r.Uint128(low=1)
_KEY_BYTES = (4, 4, 2, 2, 1)
"""Of src, dst, sport, dport and protocol."""


class Client:
    """The primary of a device that runs the program, with empty tables."""

    def __init__(self, address: str, device_id: int) -> None:
        self._device_id = device_id
        self._stub = p4r_grpc.P4RuntimeStub(grpc.insecure_channel(address))
        self._out: queue.SimpleQueue[p4r.StreamMessageRequest] = queue.SimpleQueue()
        self._in = self._stub.StreamChannel(iter(self._out.get, None))
        hello = p4r.StreamMessageRequest()
        hello.arbitration.device_id = device_id
        hello.arbitration.election_id.CopyFrom(_ELECTION_ID)
        self._out.put(hello)
        next(iter(self._in))
        p4info = text_format.Parse(_P4INFO.read_text(), p4i.P4Info())
        self._table = p4info.tables[0].preamble.id
        self._action = next(a for a in p4info.actions if a.preamble.alias == "rewrite").preamble.id
        push = p4r.SetForwardingPipelineConfigRequest(
            device_id=device_id,
            election_id=_ELECTION_ID,
            action=p4r.SetForwardingPipelineConfigRequest.VERIFY_AND_COMMIT,
        )
        push.config.p4info.CopyFrom(p4info)
        push.config.p4_device_config = PROGRAM.read_bytes()
        self._stub.SetForwardingPipelineConfig(push)

    def inserts(self, count: int, batch: int) -> float:
        """Seconds that `count` inserts take in batches; making the messages isn't counted."""
        requests = [
            self._write(range(start, min(start + batch, count))) for start in range(0, count, batch)
        ]
        start = time.perf_counter()
        for request in requests:
            self._stub.Write(request)
        return time.perf_counter() - start

    def single(self, count: int) -> list[int]:
        """Nanoseconds of each of `count` writes of one entry."""
        times = []
        for number in range(count):
            request = self._write(range(number, number + 1))
            start = time.perf_counter_ns()
            self._stub.Write(request)
            times.append(time.perf_counter_ns() - start)
        return times

    def answer(self) -> NoReturn:
        """Send every packet-in out at the port that it came from."""
        for message in self._in:
            if message.WhichOneof("update") == "packet":
                out = p4r.StreamMessageRequest()
                out.packet.payload = message.packet.payload
                out.packet.metadata.add(metadata_id=1, value=message.packet.metadata[0].value)
                out.packet.metadata.add(metadata_id=2, value=b"\0")
                self._out.put(out)
        raise SystemExit("the device ended the stream")

    def _write(self, numbers: range) -> p4r.WriteRequest:
        request = p4r.WriteRequest(device_id=self._device_id, election_id=_ELECTION_ID)
        for number in numbers:
            entry = request.updates.add(type=p4r.Update.INSERT).entity.table_entry
            entry.table_id = self._table
            for field_id, value in enumerate(_key(number), start=1):
                entry.match.add(field_id=field_id).exact.value = value
            entry.action.action.action_id = self._action
            for param_id, value in enumerate(
                (b"\x0b\0\0\1", b"\x0c\0\0\1", b"\7", b"\x51", b"\3"), 1
            ):
                entry.action.action.params.add(param_id=param_id, value=value)
        return request


def _key(number: int) -> Iterator[bytes]:
    values = (0x0A000000 + number // 60_000, 0x0A010001, 1 + number % 60_000, 80, 6)
    for value, size in zip(values, _KEY_BYTES, strict=True):
        yield value.to_bytes(size, "big").lstrip(b"\0")


def main() -> None:
    """The command line."""
    address, device_id, what, *counts = sys.argv[1:]
    client = Client(address, int(device_id))
    if what == "inserts":
        print(json.dumps({"seconds": client.inserts(int(counts[0]), int(counts[1]))}))
    elif what == "single":
        print(json.dumps({"ns": client.single(int(counts[0]))}))
    else:
        print("ready", flush=True)
        client.answer()


if __name__ == "__main__":
    main()
