"""The line between the P4Runtime server above and the native data plane below.

    P4Runtime server (protobuf, ids, arbitration)      softnic/p4runtime/
            |  names, packed bytes, batches       ^  events
            v                                     |
    DataPlane (this file: types and Protocol)
            |  ctypes                             ^
            v                                     |
    native code: generated pipeline + runtime          softnic/native.py, softnic/runtime/

Keys, masks and parameters cross as packed bytes: the fields in the order of the table's
key (or the action's parameters), each big-endian in ceil(bits / 8) bytes, nothing between.
Names are those of the bmv2 JSON, which are also the P4Info preamble names.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from enum import Enum, IntEnum
from typing import Protocol


class UnsupportedConstructError(ValueError):
    """The program uses something this target can't do; the text names it and where it stands."""


class MatchKind(Enum):
    """How one key field of a table matches."""

    EXACT = "exact"
    LPM = "lpm"
    TERNARY = "ternary"
    RANGE = "range"
    OPTIONAL = "optional"


@dataclass(frozen=True, slots=True)
class Field:
    """A named value of `bits` bits: an action parameter, or a digest field."""

    name: str
    bits: int

    @property
    def size(self) -> int:
        """Bytes it takes when packed."""
        return (self.bits + 7) // 8


@dataclass(frozen=True, slots=True)
class KeyField(Field):
    """One field of a table's key."""

    match: MatchKind


@dataclass(frozen=True, slots=True)
class ActionInfo:
    """An action and its run-time parameters."""

    name: str
    params: tuple[Field, ...]


@dataclass(frozen=True, slots=True)
class TableInfo:
    """What the server needs to know of a table."""

    name: str
    key: tuple[KeyField, ...]
    actions: tuple[str, ...]
    size: int
    has_counter: bool
    has_timeout: bool
    is_const: bool
    default_is_const: bool
    has_meter: bool = False
    profile: str | None = None
    """The action profile that its entries choose from: their action is MEMBER or GROUP."""

    @property
    def needs_priority(self) -> bool:
        """True if entries carry a priority (P4Runtime 1.4, 9.1.1)."""
        return any(k.match in _WITH_PRIORITY for k in self.key)


_WITH_PRIORITY = frozenset({MatchKind.TERNARY, MatchKind.RANGE, MatchKind.OPTIONAL})


MEMBER, GROUP = "$member", "$group"
"""Actions of the entries of a table with a profile; the parameter is the id, in 4 bytes."""


@dataclass(frozen=True, slots=True)
class ProfileInfo:
    """An action profile; `selector`: it has groups."""

    name: str
    actions: tuple[str, ...]
    size: int
    selector: bool


@dataclass(frozen=True, slots=True)
class ValueSetInfo:
    """A parser value set: the fields of its members and how many there may be."""

    name: str
    key: tuple[Field, ...]
    size: int


MAX_METADATA = 4096
"""Bytes of metadata on one entry."""


@dataclass(frozen=True, slots=True)
class WireAction:
    """An action with the numbers that P4Info gave it and its parameters (in packing order)."""

    name: str
    number: int
    params: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class WireTable:
    """A table as P4Info names and restricts it, so that entries can be read from the wire."""

    name: str
    number: int
    fields: tuple[int, ...]
    kinds: tuple[MatchKind, ...]
    actions: tuple[WireAction, ...]
    has_timeout: bool


@dataclass(frozen=True, slots=True)
class WriteHead:
    """What stands around the updates of a WriteRequest."""

    device_id: int
    role_id: int
    role: bytes
    election_id: int | None
    atomicity: int
    updates: int


class WritePlan(Protocol):
    """Tables whose plain entries a data plane reads from the wire by itself."""


class Op(IntEnum):
    """What a write does to an entry."""

    INSERT = 1
    MODIFY = 2
    DELETE = 3


class Status(IntEnum):
    """Outcome of one write."""

    OK = 0
    EXISTS = 1
    NOT_FOUND = 2
    FULL = 3
    INVALID = 4
    IN_USE = 5


@dataclass(frozen=True, slots=True)
class Match:
    """A table entry's match: with `key` and `mask` of equal length.

    EXACT: mask all ones. LPM: mask of the prefix. TERNARY, OPTIONAL: mask (zeros: don't care).
    RANGE: `key` holds the low bound, `mask` the high bound. `priority`: the higher wins, as in
    P4Runtime; 0 where the table needs none.
    """

    key: bytes
    mask: bytes
    priority: int = 0


@dataclass(frozen=True, slots=True)
class Entry:
    """A table entry. `idle_timeout_ns` 0: never times out. Metadata is the controller's own."""

    match: Match
    action: str
    params: bytes
    idle_timeout_ns: int = 0
    metadata: bytes = b""
    controller_metadata: int = 0


@dataclass(frozen=True, slots=True)
class Update:
    """One write to a table; for DELETE only `entry.match` counts."""

    op: Op
    table: str
    entry: Entry


@dataclass(frozen=True, slots=True)
class CounterValue:
    """A counter cell."""

    packets: int
    bytes: int


@dataclass(frozen=True, slots=True)
class MeterConfig:
    """Rates of a two-rate three-colour meter (RFC 2698, colour-blind).

    In packets or bytes a second and packets or bytes of burst, as the program declares the meter.
    """

    cir: int
    cburst: int
    pir: int
    pburst: int


Colors = tuple[CounterValue, CounterValue, CounterValue]
"""What a meter marked green, yellow and red."""


@dataclass(frozen=True, slots=True)
class GroupMember:
    """A member of a group of an action profile.

    Chosen `weight` times as often as one of weight 1; never while `watch_port` is down.
    """

    member: int
    weight: int = 1
    watch_port: int | None = None


@dataclass(frozen=True, slots=True)
class Replica:
    """One copy made by a clone session or a multicast group.

    It goes to `port`, or while that is down to the first of `backups` that is up.
    """

    port: int
    instance: int
    backups: tuple[Replica, ...] = ()


@dataclass(frozen=True, slots=True)
class PacketInEvent:
    """A frame that the pipeline sent to the CPU port, as the deparser wrote it."""

    frame: bytes


@dataclass(frozen=True, slots=True)
class DigestEvent:
    """A message of a digest extern: the packed fields of one struct."""

    name: str
    data: bytes


@dataclass(frozen=True, slots=True)
class IdleTimeoutEvent:
    """An entry that no packet hit for its `idle_timeout_ns` (reported once per idle period)."""

    table: str
    match: Match


Event = PacketInEvent | DigestEvent | IdleTimeoutEvent


@dataclass(frozen=True, slots=True)
class PortStats:
    """Frames and bytes of one port since start, and drops by reason."""

    port: int
    interface: str
    up: bool
    rx_frames: int
    rx_bytes: int
    tx_frames: int
    tx_bytes: int
    drops: Mapping[str, int]


class Program(Protocol):
    """A compiled pipeline, ready to be loaded into any number of data planes."""

    tables: Mapping[str, TableInfo]
    actions: Mapping[str, ActionInfo]
    digests: Mapping[str, tuple[Field, ...]]
    """By digest name (the P4 struct's learn-list name in the bmv2 JSON)."""
    counters: Mapping[str, int]
    """Indirect counters: name to number of cells. Direct ones belong to their table."""
    registers: Mapping[str, tuple[int, int]]
    """Name to (cells, bits)."""
    meters: Mapping[str, int]
    """Indirect meters: name to number of cells. Direct ones belong to their table."""
    profiles: Mapping[str, ProfileInfo]
    value_sets: Mapping[str, ValueSetInfo]

    def write_plan(self, tables: Sequence[WireTable]) -> WritePlan:
        """Prepare to read entries of these tables, none with a profile, from the wire."""


class DataPlane(Protocol):
    """One P4 device: ports, one program at a time, its tables and replication engine.

    Every call may come from any thread. Writes to one entry are atomic against packets: a packet
    sees the entry as it was or as it is, never a mixture; the updates of one `write` are applied
    in order, and none is lost when another fails.
    """

    @property
    def program(self) -> Program | None:
        """The program that is running, if any."""

    def load(self, program: Program) -> None:
        """Start `program` with empty tables (const entries and defaults in place)."""

    def write(self, updates: Sequence[Update]) -> list[Status]:
        """Apply `updates` in order; one status for each."""

    def exclusive(self) -> AbstractContextManager[None]:
        """While it is entered nobody else writes or has it: whole batches only are seen.

        Fair: who waited longest is next. Not to be entered twice by one thread.
        """

    def held(self) -> AbstractContextManager[None]:
        """While it is entered no packet passes; this thread's calls go on.

        May be entered again by the same thread. What comes meanwhile waits in the ports' queues.
        """

    def write_head(self, request: bytes) -> WriteHead:
        """Read what stands around the updates; ValueError if the request is damaged."""

    def write_encoded(
        self,
        plan: WritePlan | None,
        request: bytes,
        count: int,
        other: Callable[[int, bytes], None],
    ) -> list[tuple[int, Status, bytes]]:
        """Apply the `count` updates of an encoded p4.v1.WriteRequest, in order.

        Those that the plan doesn't cover go to `other`, with index and bytes, in their turn. The
        others that failed are returned with what they were.
        """

    def set_default(self, table: str, action: str, params: bytes) -> Status:
        """Replace the default action."""

    def reset_default(self, table: str) -> Status:
        """Bring back the default action that the program came with."""

    def default(self, table: str) -> tuple[str, bytes]:
        """Default action now, as (action, params)."""

    def entries(self, table: str) -> Iterator[tuple[Entry, CounterValue]]:
        """All entries now with their direct counter, const ones included; no order promised."""

    def snapshot(self, table: str) -> Iterator[tuple[Entry, CounterValue, int]]:
        """The entries as they are now, with the nanoseconds since a packet last hit them.

        Taken at once and cheaply; made into entries while they are iterated, whatever comes then.
        """

    def entry(self, table: str, match: Match) -> tuple[Entry, CounterValue] | None:
        """The one entry with this match."""

    def idle_ns(self, table: str, match: Match) -> int | None:
        """Nanoseconds since a packet last hit the entry."""

    def set_direct_counter(self, table: str, match: Match, value: CounterValue) -> Status:
        """Set an entry's direct counter."""

    def counter(self, name: str, index: int) -> CounterValue:
        """Read a cell of an indirect counter; IndexError where there is none."""

    def set_counter(self, name: str, index: int, value: CounterValue) -> None:
        """Write a cell of an indirect counter."""

    def register(self, name: str, index: int) -> int:
        """Read a register cell."""

    def set_register(self, name: str, index: int, value: int) -> None:
        """Write a register cell."""

    def meter(self, name: str, index: int) -> MeterConfig | None:
        """Rates of a cell of an indirect meter, None: not set (always green); IndexError."""

    def set_meter(self, name: str, index: int, config: MeterConfig | None) -> None:
        """Set the rates of a cell of an indirect meter; IndexError, ValueError (pir < cir)."""

    def meter_colors(self, name: str, index: int) -> Colors:
        """What a cell of an indirect meter marked so far; IndexError."""

    def clear_meter_colors(self, name: str, index: int) -> None:
        """Count what a cell of an indirect meter marks from 0 again; IndexError."""

    def set_meter_colors(self, name: str, index: int, colors: Colors) -> None:
        """Count what a cell of an indirect meter marks from there; IndexError."""

    def direct_meter(self, table: str, match: Match | None) -> MeterConfig | None:
        """Rates of an entry's direct meter (no match: of the default action).

        None: not set, or no such entry.
        """

    def set_direct_meter(
        self, table: str, match: Match | None, config: MeterConfig | None
    ) -> Status:
        """Set the rates of an entry's direct meter (no match: of the default action)."""

    def direct_meter_colors(self, table: str, match: Match | None) -> Colors | None:
        """What a direct meter marked so far; None: no such entry."""

    def clear_direct_meter_colors(self, table: str, match: Match | None) -> Status:
        """Count what a direct meter marks from 0 again."""

    def set_direct_meter_colors(self, table: str, match: Match | None, colors: Colors) -> Status:
        """Count what a direct meter marks from there."""

    def default_counter(self, table: str) -> CounterValue:
        """Packets that found no entry."""

    def set_default_counter(self, table: str, value: CounterValue) -> None:
        """Count packets that find no entry from there."""

    def set_member(self, profile: str, member: int, action: str, params: bytes) -> Status:
        """Create or change a member of an action profile."""

    def delete_member(self, profile: str, member: int) -> Status:
        """Delete a member; IN_USE while an entry or a group has it."""

    def set_group(self, profile: str, group: int, members: Sequence[GroupMember]) -> Status:
        """Create or change a group of an action profile; INVALID: a member doesn't exist."""

    def delete_group(self, profile: str, group: int) -> Status:
        """Delete a group; IN_USE while an entry has it."""

    def set_value_set(
        self, name: str, members: Sequence[tuple[bytes, bytes]], ranges: Collection[int] = ()
    ) -> Status:
        """Replace the members of a value set: packed key and mask of each.

        Fields whose numbers are in `ranges` have low bounds in the key, high ones in the mask.
        """

    def set_clone_session(
        self, session: int, replicas: Sequence[Replica], truncate: int = 0
    ) -> None:
        """Define a clone session (`truncate` bytes, 0: whole); no replicas: delete it."""

    def set_multicast_group(self, group: int, replicas: Sequence[Replica]) -> None:
        """Define a multicast group; no replicas: delete it."""

    def packet_out(self, frame: bytes) -> None:
        """Put a frame, with the program's packet-out header in front, in at the CPU port."""

    def events(self, timeout: float) -> list[Event]:
        """Wait up to `timeout` seconds for events; the queue is bounded, its drops are counted."""

    def wake(self) -> None:
        """Make a waiting `events` return now, with what there is."""

    def ports(self) -> list[PortStats]:
        """Statistics of every port, the CPU port included."""

    def close(self) -> None:
        """Stop the threads, release the ports."""
