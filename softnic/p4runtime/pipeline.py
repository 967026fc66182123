"""A pipeline: what a client set, compiled and bound to its P4Info, with the server's own state.

The data plane keeps entries; the server keeps what is read back as it was written: replication
entries, members and groups of action profiles, value sets, and metadata of default actions.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from finsy.proto import p4r

from softnic.dataplane import Match, Program, WritePlan
from softnic.p4runtime.digests import DigestBuffers
from softnic.p4runtime.errors import Code, P4RuntimeError, invalid
from softnic.p4runtime.packetio import PacketOutEncoder
from softnic.p4runtime.schema import Schema, build_schema
from softnic.p4runtime.tables import TableCodec

Compile = Callable[[bytes], Program]
"""Turns a bmv2 JSON into a program; ValueError says why it can't."""

Get = p4r.GetForwardingPipelineConfigRequest


@dataclass(frozen=True, slots=True)
class Metadata:
    """What a controller attached to a default action, opaque to the target."""

    metadata: bytes
    controller_metadata: int


NO_METADATA = Metadata(b"", 0)


@dataclass(frozen=True, slots=True)
class OneShot:
    """An entry's own group (9.2.3): its numbers in the data plane, and how it was written."""

    profile: int
    group: int
    members: tuple[int, ...]
    message: p4r.ActionProfileActionSet


@dataclass(slots=True)
class State:
    """What the server itself remembers of a running pipeline; guarded by the device's lock."""

    default_metadata: dict[str, Metadata] = field(default_factory=dict)
    clone_sessions: dict[int, p4r.CloneSessionEntry] = field(default_factory=dict)
    multicast_groups: dict[int, p4r.MulticastGroupEntry] = field(default_factory=dict)
    members: dict[tuple[int, int], p4r.ActionProfileMember] = field(default_factory=dict)
    """By ids of profile and member."""
    groups: dict[tuple[int, int], p4r.ActionProfileGroup] = field(default_factory=dict)
    """By ids of profile and group."""
    value_sets: dict[int, p4r.ValueSetEntry] = field(default_factory=dict)
    one_shots: dict[tuple[str, Match], OneShot] = field(default_factory=dict)
    """By the entry's table and match."""
    shot_numbers: dict[int, set[int]] = field(default_factory=dict)
    """Of each profile, what its one shots use in the data plane."""
    last_shot: int = 0


@dataclass(frozen=True, slots=True)
class Pipeline:
    """A config that this target can run."""

    config: p4r.ForwardingPipelineConfig
    program: Program
    schema: Schema
    codecs: Mapping[int, TableCodec]
    packet_out: PacketOutEncoder
    digests: DigestBuffers
    state: State
    plan: WritePlan
    """The tables whose entries need nothing of this server."""

    def is_same_program(self, config: p4r.ForwardingPipelineConfig) -> bool:
        """True if `config` differs in its cookie at most."""
        return (
            self.config.p4_device_config == config.p4_device_config
            and self.config.p4info == config.p4info
        )


def prepare(config: p4r.ForwardingPipelineConfig, compile_program: Compile) -> Pipeline:
    """Compile and check a config. Slow (seconds for a new program); takes no lock.

    INVALID_ARGUMENT with the compiler's or the schema's words if it can't be realised.
    """
    if not config.HasField("p4info"):
        raise invalid("the config has no p4info")
    if not config.p4_device_config:
        raise invalid("the config has no p4_device_config: it must be the bmv2 JSON of p4c")
    try:
        program = compile_program(config.p4_device_config)
    except ValueError as error:
        raise invalid(f"p4_device_config can't be realised: {error}") from error
    except RuntimeError as error:  # not the program's fault: no compiler, say
        raise P4RuntimeError(Code.INTERNAL, str(error)) from error
    schema = build_schema(config.p4info, program)
    return Pipeline(
        config=config,
        program=program,
        schema=schema,
        codecs={table.id: TableCodec(table) for table in schema.tables.values()},
        packet_out=PacketOutEncoder(schema.packet_out),
        digests=DigestBuffers(schema.digests),
        state=State(),
        plan=program.write_plan([t.wire() for t in schema.tables.values() if t.is_plain]),
    )


def select(
    config: p4r.ForwardingPipelineConfig, what: Get.ResponseType.ValueType
) -> p4r.ForwardingPipelineConfig:
    """The parts of a config that a GetForwardingPipelineConfig asks for."""
    answer = p4r.ForwardingPipelineConfig()
    if config.HasField("cookie"):
        answer.cookie.CopyFrom(config.cookie)
    if what in (Get.ALL, Get.P4INFO_AND_COOKIE):
        answer.p4info.CopyFrom(config.p4info)
    if what in (Get.ALL, Get.DEVICE_CONFIG_AND_COOKIE):
        answer.p4_device_config = config.p4_device_config
    return answer
