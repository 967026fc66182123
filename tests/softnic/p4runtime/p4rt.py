"""A P4Runtime client in a few lines, below every library's help: for tests of the server.

Streams keep what they receive; whoever waits for a kind of message gets the next of that kind.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
from finsy.proto import U128, p4i, p4r, p4r_grpc, rpc_status, stratum
from google.protobuf import text_format

PROGRAMS = Path(__file__).parent.parent / "programs"
DEVICE_ID = 1
CPU_PORT = 510
WAIT_S = 10.0

Write = p4r.WriteRequest
Push = p4r.SetForwardingPipelineConfigRequest
Get = p4r.GetForwardingPipelineConfigRequest
INSERT, MODIFY, DELETE = p4r.Update.INSERT, p4r.Update.MODIFY, p4r.Update.DELETE
Match = Mapping[str, Any]
"""Field name to value: bytes exact, (bytes, int) LPM; for others FieldMatch's own message."""


def program_config(name: str, cookie: int | None = None) -> p4r.ForwardingPipelineConfig:
    """The compiled program `name` of tests/softnic/programs."""
    config = p4r.ForwardingPipelineConfig(
        p4info=text_format.Parse((PROGRAMS / f"{name}.p4info.txtpb").read_text(), p4i.P4Info()),
        p4_device_config=(PROGRAMS / f"{name}.json").read_bytes(),
    )
    if cookie is not None:
        config.cookie.cookie = cookie
    return config


class Names:
    """P4Info ids by alias."""

    def __init__(self, p4info: p4i.P4Info) -> None:
        self.tables = {t.preamble.alias: t for t in p4info.tables}
        self.actions = {a.preamble.alias: a for a in p4info.actions}
        self.counters = {c.preamble.alias: c.preamble.id for c in p4info.counters}
        self.registers = {r.preamble.alias: r.preamble.id for r in p4info.registers}
        self.digests = {d.preamble.alias: d.preamble.id for d in p4info.digests}

    def table(self, table: str) -> int:
        return self.tables[table].preamble.id

    def action(self, action: str, *values: bytes) -> p4r.TableAction:
        info = self.actions[action]
        message = p4r.TableAction()
        message.action.action_id = info.preamble.id
        for param, value in zip(info.params, values, strict=False):
            message.action.params.add(param_id=param.id, value=value)
        return message

    def entry(
        self,
        table: str,
        match: Match | None = None,
        action: p4r.TableAction | None = None,
        **more: Any,
    ) -> p4r.Entity:
        info = self.tables[table]
        ids = {m.name: m.id for m in info.match_fields}
        message = p4r.TableEntry(table_id=info.preamble.id, action=action, **more)
        for name, value in (match or {}).items():
            found = message.match.add(field_id=ids[name])
            match value:
                case bytes():
                    found.exact.value = value
                case (bytes() as prefix, int() as length):
                    found.lpm.value, found.lpm.prefix_len = prefix, length
                case p4r.FieldMatch.Ternary():
                    found.ternary.CopyFrom(value)
                case p4r.FieldMatch.Range():
                    found.range.CopyFrom(value)
                case p4r.FieldMatch.Optional():
                    found.optional.CopyFrom(value)
                case _:
                    raise TypeError(value)
        return p4r.Entity(table_entry=message)


@dataclass
class Stream:
    """One StreamChannel."""

    stub: p4r_grpc.P4RuntimeStub
    election_id: int | None
    role: str = ""
    _out: queue.SimpleQueue[p4r.StreamMessageRequest | None] = field(
        default_factory=queue.SimpleQueue
    )
    _in: list[p4r.StreamMessageResponse] = field(default_factory=list)
    _changed: threading.Condition = field(default_factory=threading.Condition)
    error: grpc.RpcError | None = None
    ended: bool = False

    def open(self) -> Stream:
        self._call = self.stub.StreamChannel(iter(self._out.get, None))
        threading.Thread(target=self._receive, daemon=True).start()
        return self

    def _receive(self) -> None:
        try:
            for message in self._call:
                with self._changed:
                    self._in.append(message)
                    self._changed.notify_all()
        except grpc.RpcError as error:
            self.error = error
        with self._changed:
            self.ended = True
            self._changed.notify_all()

    def send(self, message: p4r.StreamMessageRequest) -> None:
        self._out.put(message)

    def arbitrate(
        self,
        election_id: int | None,
        *,
        device_id: int = DEVICE_ID,
        role: str = "",
        config: stratum.P4RoleConfig | None = None,
    ) -> None:
        self.election_id, self.role = election_id, role
        message = p4r.StreamMessageRequest()
        message.arbitration.device_id = device_id
        if role:
            message.arbitration.role.name = role
        if config is not None:
            message.arbitration.role.config.Pack(config)
        if election_id is not None:
            message.arbitration.election_id.CopyFrom(U128.encode(election_id))
        self.send(message)

    def expect(self, kind: str) -> Any:
        """The next message of a kind; what came before it stays."""

        def find() -> p4r.StreamMessageResponse | None:
            return next((m for m in self._in if m.WhichOneof("update") == kind), None)

        with self._changed:
            self._changed.wait_for(lambda: find() is not None or self.ended, WAIT_S)
            found = find()
            assert found is not None, f"no {kind}; the stream's error: {self.error}"
            self._in.remove(found)
            return getattr(found, kind)

    def standing(self) -> tuple[int, int]:
        """Of the next arbitration: status code and election id of the primary."""
        message = self.expect("arbitration")
        return message.status.code, U128.decode(message.election_id)

    def waiting(self, kind: str) -> int:
        """Messages of a kind that came and nobody took."""
        with self._changed:
            return sum(m.WhichOneof("update") == kind for m in self._in)

    def end_code(self) -> grpc.StatusCode:
        """How the server ended the stream."""
        with self._changed:
            assert self._changed.wait_for(lambda: self.ended, WAIT_S), "the stream goes on"
        assert self.error is not None, "the stream ended without an error"
        return self.error.code()

    def close(self) -> None:
        self._out.put(None)
        self._call.cancel()


@dataclass
class Client:
    """A channel to a server, and the requests as they are on the wire."""

    address: str
    credentials: grpc.ChannelCredentials | None = None
    names: Names = field(init=False)
    streams: list[Stream] = field(default_factory=list)

    def __post_init__(self) -> None:
        # A connection of its own: otherwise channels to one address share one.
        options = (
            ("grpc.use_local_subchannel_pool", 1),
            ("grpc.http2.bdp_probe", 0),  # who doesn't read lets the server wait after 64 KiB
            ("grpc.max_receive_message_length", 64 << 20),
            ("grpc.max_metadata_size", 64 << 10),
        )
        self.channel = (
            grpc.insecure_channel(self.address, options)
            if self.credentials is None
            else grpc.secure_channel(self.address, self.credentials, options)
        )
        self.stub = p4r_grpc.P4RuntimeStub(self.channel)
        self.names = Names(program_config("entities").p4info)

    def stream(self) -> Stream:
        opened = Stream(self.stub, None).open()
        self.streams.append(opened)
        return opened

    def primary(self, election_id: int = 1, role: str = "") -> Stream:
        """A stream that is primary of its role."""
        opened = self.stream()
        opened.arbitrate(election_id, role=role)
        assert opened.standing()[0] == 0
        return opened

    def push(
        self,
        config: p4r.ForwardingPipelineConfig | None,
        action: Push.Action.ValueType = Push.VERIFY_AND_COMMIT,
        election_id: int = 1,
        role: str = "",
    ) -> None:
        self.stub.SetForwardingPipelineConfig(
            Push(
                device_id=DEVICE_ID,
                election_id=U128.encode(election_id),
                role=role,
                action=action,
                config=config,
            )
        )

    def get(self, what: Get.ResponseType.ValueType = Get.ALL) -> p4r.ForwardingPipelineConfig:
        request = Get(device_id=DEVICE_ID, response_type=what)
        return self.stub.GetForwardingPipelineConfig(request).config

    def write(
        self,
        *updates: tuple[p4r.Update.Type.ValueType, p4r.Entity],
        election_id: int = 1,
        role: str = "",
        **more: Any,
    ) -> None:
        self.stub.Write(write_request(updates, election_id=election_id, role=role, **more))

    def insert(self, *entities: p4r.Entity) -> None:
        self.write(*((INSERT, entity) for entity in entities))

    def read(self, *entities: p4r.Entity, role: str = "") -> list[p4r.Entity]:
        request = p4r.ReadRequest(device_id=DEVICE_ID, role=role, entities=entities)
        return [e for response in self.stub.Read(request) for e in response.entities]

    def entries(self, table: str, **more: Any) -> list[p4r.TableEntry]:
        return [e.table_entry for e in self.read(self.names.entry(table, **more))]

    def close(self) -> None:
        for stream in self.streams:
            stream.close()
        self.channel.close()


def write_request(
    updates: Iterable[tuple[p4r.Update.Type.ValueType, p4r.Entity]],
    *,
    election_id: int = 1,
    device_id: int = DEVICE_ID,
    **more: Any,
) -> p4r.WriteRequest:
    return p4r.WriteRequest(
        device_id=device_id,
        election_id=U128.encode(election_id),
        updates=[p4r.Update(type=kind, entity=entity) for kind, entity in updates],
        **more,
    )


def batch_codes(error: grpc.RpcError) -> list[int]:
    """The canonical code of each update of a batch that failed."""
    return [e.canonical_code for e in batch_errors(error)]


def batch_errors(error: grpc.RpcError) -> Iterator[p4r.Error]:
    status = rpc_status.Status()
    details = dict(error.trailing_metadata())["grpc-status-details-bin"]
    status.ParseFromString(details)
    assert status.code == grpc.StatusCode.UNKNOWN.value[0]
    for detail in status.details:
        found = p4r.Error()
        assert detail.Unpack(found)
        yield found


def mac(number: int) -> bytes:
    """A MAC address as a canonical byte string (8.4)."""
    return (0x02_00_00_00_00_00 | number).to_bytes(6, "big")


def frame(dst: int = 1, src: int = 2, ethertype: int = 0x88B5) -> bytes:
    """A minimal Ethernet frame of the experimental type."""
    return mac(dst) + mac(src) + ethertype.to_bytes(2, "big") + bytes(46)
