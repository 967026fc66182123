"""The same writes and packets to any P4Runtime server, and what it makes of them.

The device's CPU port is the port that programs send to: packets go in as packet-outs and come
back as packet-ins, so that no interfaces are needed, and both targets are used alike.

    python tests/softnic/p4runtime/differential.py     records what simple_switch_grpc does
"""

from __future__ import annotations

import json
import random
import shutil
import socket
import subprocess
import tempfile
import time
from base64 import b64decode, b64encode
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
from finsy.proto import p4r
from p4rt import (
    DELETE,
    DEVICE_ID,
    INSERT,
    MODIFY,
    Client,
    Names,
    Stream,
    batch_codes,
    program_config,
    write_request,
)

PORT = 1
"""The CPU port, which is where `tables` sends everything and `groups` what it routes there."""
CORPUS = Path(__file__).parent / "differential.jsonl"
WAIT_S = 20.0
ROUNDS, WRITES, PACKETS = 4, 20, 32
_LAST = 0xFF
"""The destination that `groups` always sends back."""


@dataclass(frozen=True, slots=True)
class Round:
    """A batch of writes, packets, and what came of both."""

    updates: tuple[p4r.Update, ...]
    packets: tuple[bytes, ...]
    accepted: tuple[bool, ...] = ()
    answers: tuple[bytes, ...] = ()


# ---- what is sent


def rounds(program: str, seed: int) -> list[Round]:
    """Writes and packets that meet often: all values are of small pools."""
    rng = random.Random(seed)
    made = {"tables": _Tables, "groups": _Groups}[program](rng)
    return [
        Round(
            tuple(made.update() for _ in range(WRITES)),
            (*(made.packet() for _ in range(PACKETS)), *made.end),
        )
        for _ in range(ROUNDS)
    ]


class _Tables:
    """Every kind of match (programs/tables.p4)."""

    end: tuple[bytes, ...] = ()

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.names = Names(program_config("tables").p4info)
        self.pools = {
            name: [rng.getrandbits(bits) for _ in range(n)]
            for name, bits, n in (("a", 8, 2), ("b", 32, 3), ("c", 128, 2), ("d", 16, 4))
        }
        self.pools |= {"e": [3, 9], "f": [1, 0x7FF, 0x800]}
        self.priorities = list(range(1, 4000))
        rng.shuffle(self.priorities)
        self.entries: list[p4r.Entity] = []

    def update(self) -> p4r.Update:
        """Mostly new entries; others are changed or deleted, some of them twice."""
        rng = self.rng
        if self.entries and rng.random() < 0.4:
            entity = p4r.Entity()
            entity.CopyFrom(rng.choice(self.entries))
            kind = rng.choice((INSERT, MODIFY, DELETE, DELETE))
            if kind == MODIFY:
                entity.table_entry.action.action.params[0].value = self._value()
            return p4r.Update(type=kind, entity=entity)
        entity = rng.choice((self._exact, self._lpm, self._lpm6, *[self._mixed] * 4))()
        self.entries.append(entity)
        return p4r.Update(type=INSERT, entity=entity)

    def packet(self) -> bytes:
        widths = (("a", 1), ("b", 4), ("c", 16), ("d", 2))
        data = b"".join(self._near(name, size) for name, size in widths)
        tail = self.rng.choice(self.pools["e"]) << 12 | self.rng.choice(self.pools["f"])
        return data + tail.to_bytes(2, "big") + bytes(20)

    def _value(self) -> bytes:
        return (self.rng.getrandbits(31) + 1).to_bytes(4, "big").lstrip(b"\0")

    def _pick(self, name: str) -> bytes:
        value = self.rng.choice(self.pools[name])
        return value.to_bytes(max(1, (value.bit_length() + 7) // 8), "big")

    def _near(self, name: str, size: int) -> bytes:
        """A value of the pool, with a bit or two changed now and then."""
        value = self.rng.choice(self.pools[name])
        if self.rng.random() < 0.4:
            value ^= 1 << self.rng.randrange(size * 8)
        return value.to_bytes(size, "big")

    def _prefix(self, name: str, bits: int, length: int = 0) -> tuple[bytes, int]:
        length = length or self.rng.randint(1, bits)
        value = self.rng.choice(self.pools[name]) >> bits - length << bits - length
        return value.to_bytes(max(1, (value.bit_length() + 7) // 8), "big"), length

    def _exact(self) -> p4r.Entity:
        match = {f"h.key.{name}": self._pick(name) for name in "cbe"}
        return self.names.entry("t_exact", match, self.names.action("exact_set", self._value()))

    def _lpm(self) -> p4r.Entity:
        match = {"h.key.a": self._pick("a"), "h.key.b": self._prefix("b", 32)}
        return self.names.entry("t_lpm", match, self.names.action("lpm_set", self._value()))

    def _lpm6(self) -> p4r.Entity:
        match = {"h.key.c": self._prefix("c", 128)}
        return self.names.entry("t_lpm6", match, self.names.action("lpm6_set", self._value()))

    def _mixed(self) -> p4r.Entity:
        """Any of the five fields may be left out."""
        rng, match = self.rng, dict[str, Any]()
        if rng.random() < 0.5:
            mask = rng.choice((0x80, 0xF0, 0x0F, 0x55, 0xFF))
            value = rng.choice(self.pools["a"]) & mask
            match["h.key.a"] = p4r.FieldMatch.Ternary(value=bytes([value]), mask=bytes([mask]))
        for name, most, width in (("d", 0xFFFF, 9000), ("f", 0xFFF, 700)):
            if rng.random() < 0.4:
                near = rng.choice(self.pools[name])
                low = max(near - rng.randrange(width), 0)
                high = min(near + rng.randrange(width), most - 1)
                match[f"h.key.{name}"] = p4r.FieldMatch.Range(low=_bytes(low), high=_bytes(high))
        if rng.random() < 0.4:
            length = rng.choice((1, 8, 32))
            match["h.key.b"] = self._prefix("b", 32, length)
        if rng.random() < 0.3:
            match["h.key.e"] = p4r.FieldMatch.Optional(value=self._pick("e"))
        action = self.names.action("mixed_set", self._value())
        return self.names.entry("t_mixed", match, action, priority=self.priorities.pop())


class _Groups:
    """One-shot action sets with weights (programs/groups.p4): port 1 is seen, port 2 isn't."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.names = Names(program_config("groups").p4info)
        self.end = (self._packet(_LAST, 0),)
        self.first = True

    def update(self) -> p4r.Update:
        if self.first:
            self.first = False
            return p4r.Update(type=INSERT, entity=self._route(_LAST, [(PORT, 1)]))
        kind = self.rng.choice((INSERT, INSERT, MODIFY, DELETE))
        parts = [(self.rng.choice((PORT, 2)), self.rng.randint(1, 3))] * self.rng.randint(1, 2)
        parts += [(self.rng.choice((PORT, 2)), self.rng.randint(1, 3))]
        return p4r.Update(type=kind, entity=self._route(self.rng.randrange(6), parts))

    def packet(self) -> bytes:
        return self._packet(self.rng.randrange(6), self.rng.randrange(4096))

    @staticmethod
    def _packet(dst: int, flow: int) -> bytes:
        return bytes(2) + flow.to_bytes(2, "big") + bytes([dst, 0]) + bytes(20)

    def _route(self, dst: int, parts: list[tuple[int, int]]) -> p4r.Entity:
        message = p4r.ActionProfileActionSet()
        for port, weight in parts:
            action = self.names.action("via", bytes([port])).action
            message.action_profile_actions.add(action=action, weight=weight)
        action_set = p4r.TableAction(action_profile_action_set=message)
        return self.names.entry("route", {"h.data.dst": (bytes([dst]), 8)}, action_set)


def _bytes(value: int) -> bytes:
    return value.to_bytes(max(1, (value.bit_length() + 7) // 8), "big")


# ---- a run


def run(client: Client, program: str, wanted: list[Round]) -> list[Round]:
    """What a device makes of it."""
    stream = client.primary()
    client.push(program_config(program))
    return [_round(client, stream, one) for one in wanted]


def _round(client: Client, stream: Stream, one: Round) -> Round:
    accepted = [True] * len(one.updates)
    pairs = [(update.type, update.entity) for update in one.updates]
    try:
        client.stub.Write(write_request(pairs))
    except grpc.RpcError as error:
        accepted = [code == 0 for code in batch_codes(error)]
    for packet in one.packets:
        stream.send(p4r.StreamMessageRequest(packet=p4r.PacketOut(payload=packet)))
    answers: list[bytes] = []
    last = one.packets[-1]
    while not answers or not _is_last(answers, one, last):
        answers.append(stream.expect("packet").payload)
    return Round(one.updates, one.packets, tuple(accepted), tuple(answers))


def _is_last(answers: list[bytes], one: Round, last: bytes) -> bool:
    """`tables` answers every packet; `groups` sends the last one back as it was."""
    return len(answers) == len(one.packets) or answers[-1] == last


# ---- bmv2


@contextmanager
def bmv2() -> Iterator[Client]:
    """A simple_switch_grpc without interfaces."""
    command = shutil.which("simple_switch_grpc")
    assert command is not None, "simple_switch_grpc isn't installed"
    grpc_port, thrift_port = _free_port(), _free_port()
    argv = [command, "--no-p4", "--device-id", str(DEVICE_ID), "--thrift-port", str(thrift_port)]
    argv += ["--", "--cpu-port", str(PORT), "--grpc-server-addr", f"127.0.0.1:{grpc_port}"]
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(argv, stdout=log, stderr=log)
        try:
            _wait_serving(process, grpc_port)
            client = Client(f"127.0.0.1:{grpc_port}")
            yield client
            client.close()
        finally:
            process.kill()
            process.wait()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _wait_serving(process: subprocess.Popen[bytes], port: int) -> None:
    deadline = time.monotonic() + WAIT_S
    while True:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        assert process.poll() is None, "simple_switch_grpc ended"
        assert time.monotonic() < deadline, "simple_switch_grpc doesn't serve"
        time.sleep(0.02)


# ---- the corpus


def encode(program: str, one: list[Round]) -> str:
    """A run as a line."""
    rows = [
        {
            "updates": [b64encode(u.SerializeToString()).decode() for u in r.updates],
            "accepted": "".join("01"[a] for a in r.accepted),
            "packets": [p.hex() for p in r.packets],
            "answers": [a.hex() for a in r.answers],
        }
        for r in one
    ]
    return json.dumps({"program": program, "rounds": rows}, separators=(",", ":"))


def recorded() -> Iterator[tuple[str, list[Round]]]:
    """The runs that were recorded on bmv2."""
    for line in CORPUS.read_text().splitlines():
        told = json.loads(line)
        yield (
            told["program"],
            [
                Round(
                    tuple(p4r.Update.FromString(b64decode(u)) for u in r["updates"]),
                    tuple(map(bytes.fromhex, r["packets"])),
                    tuple(a == "1" for a in r["accepted"]),
                    tuple(map(bytes.fromhex, r["answers"])),
                )
                for r in told["rounds"]
            ],
        )


def record() -> None:
    """Ask bmv2."""
    lines = []
    for program, seed in (("tables", 1), ("tables", 2), ("groups", 3)):
        with bmv2() as client:
            lines.append(encode(program, run(client, program, rounds(program, seed))))
    CORPUS.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    record()
