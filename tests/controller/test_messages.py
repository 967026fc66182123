"""Mappings and rows as P4Runtime messages and back; ARP and neighbour discovery frames."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path

import pytest
from finsy.proto import p4r
from hypothesis import given, settings
from hypothesis import strategies as st

from dysco.agent.model import Address, FiveTuple, Mapping, MappingKey, Side
from dysco.controller import neighbour_frames
from dysco.controller.mappings import MappingCodec
from dysco.controller.neighbour_frames import Neighbour
from dysco.controller.pipeline import Pipeline, PipelineError, Row, RowKey, load, packed


@pytest.fixture(scope="module")
def pipeline() -> Pipeline:
    return load()


PORTS = st.integers(0, 65535)
V4, V6 = st.ip_addresses(v=4), st.ip_addresses(v=6)
TUPLES = st.one_of(
    *(
        st.builds(FiveTuple, addresses, PORTS, addresses, PORTS)
        for addresses in (V4, V6, st.just(IPv4Address(0)), st.just(IPv6Address(0)))
    )
)


@settings(max_examples=80, deadline=None)
@given(
    st.sampled_from(Side), st.integers(1, 65535), TUPLES, TUPLES, st.binary(max_size=90), st.data()
)
def test_a_mapping_survives_the_device(
    side: Side,
    host: int,
    key: FiveTuple,
    mapped: FiveTuple,
    metadata: bytes,
    data: st.DataObject,
) -> None:
    codec = MappingCodec(load_once())
    if key.src.version != mapped.src.version:
        mapped = key.reversed
    idle = data.draw(st.sampled_from([0.0, 0.5, 7440.0]))
    mapping = Mapping(MappingKey(side, host, key), mapped, metadata, idle)
    entry = p4r.TableEntry.FromString(codec.entry(mapping).SerializeToString())
    assert codec.mapping(entry) == mapping
    assert codec.key(codec.key_entry(mapping.key)) == mapping.key
    # Canonical byte strings (P4Runtime 1.4, 8.4): the shortest, but never empty.
    for field in entry.match:
        value = field.exact.value
        assert value == b"\0" or (value and value[0])


_loaded: list[Pipeline] = []


def load_once() -> Pipeline:
    if not _loaded:
        _loaded.append(load())
    return _loaded[0]


def test_what_is_no_mapping_is_told_as_none(pipeline: Pipeline) -> None:
    codec = MappingCodec(pipeline)
    ends = FiveTuple(ip_address("10.0.0.1"), 1, ip_address("10.0.0.2"), 2)
    entry = codec.key_entry(MappingKey(Side.OUTBOUND, 3, ends))
    other = p4r.TableEntry(table_id=pipeline.tables["port"].id)
    assert codec.key(other) is None
    assert codec.mapping(other) is None
    del entry.match[2]
    assert codec.mapping(entry) is None


def test_rows_survive_the_device(pipeline: Pipeline) -> None:
    rows = [
        Row(RowKey("port", ((2, 0),)), "host_port", (7, 1, 511)),
        Row(RowKey("port", ((0, 0),)), "network_port"),
        Row(RowKey("bridge", ((0x020000000102, 0),)), "bridge_to_host", (2, 7)),
        Row(RowKey("route_v4", ((0, 0),)), "next_hop", (1, 0x020000000101)),
        Row(RowKey("route_v6", ((0xFD << 120, 8),)), "next_hop", (1, 5)),
        Row(
            RowKey(
                "policy_v4",
                ((0, 0), (0x0A000000, 0xFF000000), (0, 0), (0, 0), (80, 65535), (0, 0)),
                77,
            ),
            "chain",
            (5,),
        ),
    ]
    for row in rows:
        table = pipeline.tables[row.key.table]
        entry = p4r.TableEntry.FromString(table.entry(row).SerializeToString())
        assert table.row(entry) == row
        assert not table.key_entry(row.key).HasField("action")


def test_values_are_the_shortest() -> None:
    assert [packed(n) for n in (0, 255, 256)] == [b"\0", b"\xff", b"\x01\0"]


def test_an_unknown_action_is_named(pipeline: Pipeline) -> None:
    table = pipeline.tables["port"]
    entry = table.entry(Row(RowKey("port", ((2, 0),)), "network_port"))
    entry.action.action.action_id = 1
    with pytest.raises(PipelineError, match="table port holds an entry with unknown action 1"):
        table.row(entry)


def test_a_missing_or_foreign_program_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PipelineError, match="no such file; give --pipeline"):
        load(tmp_path)
    (tmp_path / "dysco.json").write_text("{}")
    (tmp_path / "dysco.p4info.txtpb").write_text("nonsense {")
    with pytest.raises(PipelineError, match="can't be read"):
        load(tmp_path)
    (tmp_path / "dysco.p4info.txtpb").write_text("pkg_info { arch: 'v1model' }")
    with pytest.raises(PipelineError, match="has no table bridge, inbound_v4"):
        load(tmp_path)


# Neighbours' frames

MAC, OTHER = bytes.fromhex("020000000102"), bytes.fromhex("020000000109")


def reply_to(request: bytes) -> bytes:
    """What a neighbour with OTHER answers."""
    if request[12:14] == b"\x08\x06":
        target, sender = request[38:42], request[28:32]
        body = request[14:20] + b"\0\x02" + OTHER + target + MAC + sender
        return MAC + OTHER + b"\x08\x06" + body + bytes(18)
    target, source = request[62:78], request[22:38]
    body = bytes((136, 0, 0, 0, 0x60, 0, 0, 0)) + target + bytes((2, 1)) + OTHER
    pseudo = target + source + len(body).to_bytes(4, "big") + bytes((0, 0, 0, 58))
    total = sum(int.from_bytes((pseudo + body)[i : i + 2], "big") for i in range(0, 72, 2))
    total = (total & 0xFFFF) + (total >> 16)
    total = (total & 0xFFFF) + (total >> 16)
    body = body[:2] + (~total & 0xFFFF).to_bytes(2, "big") + body[4:]
    ip = b"\x60\0\0\0" + len(body).to_bytes(2, "big") + bytes((58, 255)) + target + source
    return MAC + OTHER + b"\x86\xdd" + ip + body


PAIRS = [("10.0.0.9", "10.0.0.1"), ("fd00::9", "fd00::1"), ("fe80::9", "fe80::1")]


@pytest.mark.parametrize(("target", "source"), PAIRS)
def test_a_question_and_its_answer(target: str, source: str) -> None:
    address: Address = ip_address(target)
    request = neighbour_frames.request(address, ip_address(source), MAC)
    assert request[6:12] == MAC
    assert request[0] & 1, "to all, or to the solicited-node group"
    assert neighbour_frames.answer(request) is None, "a question is no answer"
    assert neighbour_frames.answer(reply_to(request)) == Neighbour(address, OTHER)


@pytest.mark.parametrize(("target", "source"), PAIRS[:2])
def test_damaged_answers_are_none(target: str, source: str) -> None:
    whole = reply_to(neighbour_frames.request(ip_address(target), ip_address(source), MAC))
    needed = 42 if "." in target else len(whole)
    for size in range(needed):
        assert neighbour_frames.answer(whole[:size]) is None
    if ":" in target:
        for at in range(22, len(whole)):
            broken = whole[:at] + bytes((whole[at] ^ 0x10,)) + whole[at + 1 :]
            assert neighbour_frames.answer(broken) is None, "its checksum is wrong"
    multicast = whole.replace(OTHER, b"\x03" + OTHER[1:])
    assert neighbour_frames.answer(multicast) is None


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=120), st.sampled_from([b"\x08\x06", b"\x86\xdd", b"\x08\0"]))
def test_noise_is_none(noise: bytes, ethertype: bytes) -> None:
    assert neighbour_frames.answer(noise[:12].ljust(12, b"\0") + ethertype + noise) is None
