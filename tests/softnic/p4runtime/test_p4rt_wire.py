"""Writes that native code reads from the wire do what the server's own code does with them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from finsy.proto import p4r
from google.protobuf.message import DecodeError
from hypothesis import given, settings
from hypothesis import strategies as st
from p4rt import CPU_PORT, DELETE, INSERT, MODIFY, Names, program_config

from softnic.native import NativeDataPlane, compile_program
from softnic.p4runtime.pipeline import Pipeline, prepare
from softnic.p4runtime.reader import Reader
from softnic.p4runtime.roles import ANY, RoleConfig
from softnic.p4runtime.writer import Writer

Ternary, Range, Optional = p4r.FieldMatch.Ternary, p4r.FieldMatch.Range, p4r.FieldMatch.Optional


@dataclass(frozen=True, repr=False)
class Device:
    """A data plane with its pipeline; a role that lists what it covers has no plan."""

    plane: NativeDataPlane
    pipeline: Pipeline
    role: RoleConfig

    def write(self, request: bytes) -> list[int]:
        count = self.plane.write_head(request).updates
        results = Writer(self.plane, self.pipeline, self.role).apply(request, count)
        return [0 if r is None else int(r.code) for r in results]

    def entries(self) -> list[bytes]:
        wanted = p4r.Entity(table_entry=p4r.TableEntry())
        found = Reader(self.plane, self.pipeline, ANY).select(wanted)
        return sorted(e.SerializeToString(deterministic=True) for e in found)

    def empty(self) -> None:
        self.plane.load(self.pipeline.program)


@pytest.fixture(scope="module")
def pair() -> Iterator[tuple[Device, Device]]:
    """One that reads from the wire, one that doesn't."""
    config = program_config("entities")
    ids = [t.preamble.id for t in config.p4info.tables] + [
        d.preamble.id for d in config.p4info.digests
    ]
    made = []
    for role in (ANY, RoleConfig(ids=frozenset(ids))):
        plane = NativeDataPlane({}, cpu_port=CPU_PORT)
        pipeline = prepare(config, compile_program)
        plane.load(pipeline.program)
        made.append(Device(plane, pipeline, role))
    yield made[0], made[1]
    for device in made:
        device.plane.close()


NAMES = Names(program_config("entities").p4info)
BYTES = st.one_of(
    st.sampled_from([b"", b"\0", b"\1", b"\xff", b"\0\1", b"\1\xff", b"\x02\0", b"\x08\0"]),
    st.binary(max_size=8),
)
NUMBERS = st.one_of(st.sampled_from([-1, 0, 1, 2, 8, 9, 16, 17]), st.integers(0, 2**31 - 1))
FIELDS = st.one_of(
    st.builds(lambda v: p4r.FieldMatch(exact=p4r.FieldMatch.Exact(value=v)), BYTES),
    st.builds(
        lambda v, n: p4r.FieldMatch(lpm=p4r.FieldMatch.LPM(value=v, prefix_len=n)),
        BYTES,
        st.integers(-1, 18),
    ),
    st.builds(lambda v, m: p4r.FieldMatch(ternary=Ternary(value=v, mask=m)), BYTES, BYTES),
    st.builds(lambda v, m: p4r.FieldMatch(range=Range(low=v, high=m)), BYTES, BYTES),
    st.builds(lambda v: p4r.FieldMatch(optional=Optional(value=v)), BYTES),
    st.builds(p4r.FieldMatch),
)


@st.composite
def table_entries(draw: st.DrawFn) -> p4r.TableEntry:
    """Entries that are often right and often just wrong."""
    name = draw(st.sampled_from(sorted(NAMES.tables)))
    entry = p4r.TableEntry(table_id=NAMES.table(name))
    kinds = {2: "exact", 3: "lpm", 4: "ternary", 5: "range", 6: "optional"}
    for info in NAMES.tables[name].match_fields:
        wanted = kinds[info.match_type]
        found = draw(
            FIELDS.filter(lambda f, w=wanted: f.WhichOneof("field_match_type") == w)
            if draw(st.integers(0, 7))
            else FIELDS
        )
        if draw(st.integers(0, 3)) or wanted == "exact":
            found.field_id = info.id if draw(st.integers(0, 15)) else draw(st.integers(0, 3))
            entry.match.append(found)
    if draw(st.integers(0, 7)):
        entry.action.action.action_id = draw(
            st.sampled_from([a.preamble.id for a in NAMES.actions.values()])
        )
        for number in range(1, 1 + draw(st.integers(0, 2))):
            entry.action.action.params.add(param_id=number, value=draw(BYTES))
    if name in {"ternary_table", "range_table", "optional_table"} or not draw(st.integers(0, 7)):
        entry.priority = draw(NUMBERS)
    if not draw(st.integers(0, 3)):
        entry.metadata = draw(st.binary(max_size=5))
        entry.controller_metadata = draw(st.integers(0, 2**64 - 1))
    if not draw(st.integers(0, 7)):
        entry.idle_timeout_ns = draw(st.integers(-1, 2**62))
    if not draw(st.integers(0, 15)):
        entry.is_default_action = True
    if not draw(st.integers(0, 15)):
        entry.counter_data.packet_count = 5
    return entry


UPDATES = st.lists(
    st.tuples(
        st.sampled_from([INSERT, INSERT, INSERT, MODIFY, DELETE, 0]),
        st.one_of(
            st.builds(lambda e: p4r.Entity(table_entry=e), table_entries()),
            st.just(p4r.Entity()),
        ),
    ),
    max_size=8,
)


def request_of(updates: list[tuple[int, p4r.Entity]]) -> p4r.WriteRequest:
    request = p4r.WriteRequest(device_id=1, election_id=p4r.Uint128(high=3, low=2**64 - 1))
    for kind, entity in updates:
        request.updates.add(type=kind, entity=entity)  # type: ignore[arg-type]
    return request


@settings(max_examples=80, deadline=None)
@given(UPDATES)
def test_both_ways_do_the_same(
    pair: tuple[Device, Device], updates: list[tuple[int, p4r.Entity]]
) -> None:
    native, server = pair
    request = request_of(updates).SerializeToString()
    for device in pair:
        device.empty()
    assert native.write(request) == server.write(request)
    assert native.entries() == server.entries()


@settings(max_examples=80, deadline=None)
@given(UPDATES, st.data())
def test_damaged_requests_do_no_harm(
    pair: tuple[Device, Device], updates: list[tuple[int, p4r.Entity]], data: st.DataObject
) -> None:
    """Where protobuf takes the bytes both ways agree; where it doesn't, nothing crashes."""
    native, server = pair
    damaged = bytearray(request_of(updates).SerializeToString())
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(damaged) - 1))
        damaged[at] = data.draw(st.integers(0, 255))
    request = bytes(damaged[: data.draw(st.integers(0, len(damaged)))])
    for device in pair:
        device.empty()
    try:
        told = native.write(request)
    except ValueError:
        with pytest.raises(ValueError, match="WriteRequest"):
            server.write(request)
        return
    try:
        p4r.WriteRequest.FromString(request)
    except DecodeError:
        assert len(told) == native.plane.write_head(request).updates
        return
    assert told == server.write(request)
    assert native.entries() == server.entries()


def test_the_head(pair: tuple[Device, Device]) -> None:
    request = request_of([])
    request.role, request.role_id = "r\u00f4le", 7
    request.atomicity = p4r.WriteRequest.DATAPLANE_ATOMIC
    head = pair[0].plane.write_head(request.SerializeToString())
    assert (head.device_id, head.role_id, head.role.decode()) == (1, 7, "r\u00f4le")
    assert head.election_id == (3 << 64) + 2**64 - 1
    assert (head.atomicity, head.updates) == (2, 0)
    assert pair[0].plane.write_head(b"").election_id is None


def test_plain_entries_never_reach_the_server(pair: tuple[Device, Device]) -> None:
    native, _ = pair
    native.empty()
    action = NAMES.action("mark", b"\1")
    entities = [
        NAMES.entry("exact_table", {"hdr.ethernet.dst": b"\1"}, NAMES.action("forward", b"\1")),
        NAMES.entry("lpm_table", {"hdr.ethernet.type": (b"\x08\0", 8)}, action),
        NAMES.entry("ternary_table", {"dst": Ternary(value=b"\1", mask=b"\1")}, action, priority=1),
        NAMES.entry(
            "range_table",
            {"hdr.ethernet.type": Range(low=b"\1", high=b"\2"), "std.ingress_port": b"\5"},
            action,
            priority=1,
            metadata=b"mine",
            controller_metadata=2**64 - 1,
        ),
        NAMES.entry(
            "optional_table", {"std.ingress_port": Optional(value=b"\5")}, action, priority=9
        ),
    ]
    request = request_of([(INSERT, entity) for entity in entities]).SerializeToString()
    others: list[int] = []
    failed = native.plane.write_encoded(
        native.pipeline.plan, request, len(entities), lambda index, _: others.append(index)
    )
    assert (failed, others) == ([], [])
    assert len(native.entries()) == 1 + len(entities)  # one is const
