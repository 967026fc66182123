"""What a trace tells: that it changes nothing, misses nothing, and reads as the program does."""

from __future__ import annotations

import json
import re
import struct
from pathlib import Path

import pytest

from softnic import cli
from softnic.dataplane import GROUP, Entry, GroupMember, Match, Op, Update
from softnic.native import NativeDataPlane, compile_program
from softnic.pcap import read_frames
from softnic.stf.runner import Runner
from softnic.stf.script import parse
from softnic.trace.events import (
    ActionRun,
    Clone,
    Decoder,
    Drop,
    Egress,
    Extern,
    If,
    Out,
    Parsed,
    Pass,
    Pick,
    State,
    TableApply,
    Trace,
)
from softnic.trace.render import as_text

SOFTNIC = Path(__file__).parent.parent
PROGRAMS, SCRIPTS = SOFTNIC / "programs", SOFTNIC / "stf"
CPU_PORT = 510
PACKET = bytes.fromhex("00000000000100000000000288b5") + bytes(46)

WRITES = """
updates {
  entity { table_entry {
    table_id: %(table)d
    match { field_id: 1 exact { value: "\\x01" } }
    action { action { action_id: %(action)d params { param_id: 1 value: "\\x03" } } }
  } }
}
"""


def traced(name: str) -> NativeDataPlane:
    plane = NativeDataPlane({}, cpu_port=CPU_PORT)
    program = compile_program((PROGRAMS / f"{name}.json").read_bytes(), traced=True)
    plane.load(program)
    plane.trace()
    return plane


def one(plane: NativeDataPlane, port: int, frame: bytes) -> Trace:
    """The trace of one packet, whose frames out are those that came out."""
    out = plane.inject(port, frame)
    (records,) = plane.traces(0)
    assert plane.program is not None
    trace = Decoder(plane.program).trace(records)  # type: ignore[arg-type]
    assert [(e.port, e.frame) for e in trace.events if isinstance(e, Out)] == out
    return trace


@pytest.mark.parametrize("script", sorted(SCRIPTS.glob("*.stf")), ids=lambda p: p.stem)
def test_a_traced_program_does_what_the_ordinary_one_does(script: Path) -> None:
    program = compile_program((PROGRAMS / f"{script.stem}.json").read_bytes(), traced=True)
    plane = NativeDataPlane({}, cpu_port=None)
    plane.load(program)
    plane.trace()
    assert Runner(plane, program).run(parse(script.read_text())) == []
    decoder = Decoder(program)
    for records in plane.traces(0):
        trace = decoder.trace(records)
        assert isinstance(trace.events[0], Pass)
        assert isinstance(trace.events[-1], Out | Drop)
        assert list(as_text(trace, 1))
    plane.close()


@pytest.mark.parametrize("name", ["entities", "groups"])
def test_the_ordinary_build_has_no_call_of_it(name: str) -> None:
    source = compile_program((PROGRAMS / f"{name}.json").read_bytes()).source
    assert not re.search(r"sn_trace_\w+\(", source)


def test_states_tables_actions_externs_and_where_it_left() -> None:
    plane = traced("entities")
    entry = Entry(Match(PACKET[:6], b"\xff" * 6), "IngressImpl.forward", b"\0\3")
    plane.write([Update(Op.INSERT, "IngressImpl.exact_table", entry)])
    trace = one(plane, 7, PACKET)
    assert (trace.port, trace.length, trace.missing) == (7, 60, 0)
    assert [e.name for e in trace.events if isinstance(e, State)] == ["start", "parse_ethernet"]
    (parsed,) = (e for e in trace.events if isinstance(e, Parsed))
    assert (parsed.error, parsed.length) == ("NoError", 14)
    tables = {e.name: e for e in trace.events if isinstance(e, TableApply)}
    hit = tables["IngressImpl.exact_table"]
    assert (hit.hit, hit.entry, hit.action) == (True, 0, "IngressImpl.forward")
    assert hit.key == {"hdr.ethernet.dst": 1}
    missed = tables["IngressImpl.ternary_table"]
    assert (missed.hit, missed.entry, missed.priority) == (False, None, None)
    assert missed.key == {"dst": 1, "port": 7}
    (forward,) = (e for e in trace.events if isinstance(e, ActionRun) and "forward" in e.name)
    assert forward.params == {"port": 3}
    assert [(c.header, c.field, c.value) for c in forward.changes] == [
        ("standard_metadata", "egress_spec", 3)
    ]
    externs = [(e.op, e.target, dict(e.arguments)) for e in trace.events if isinstance(e, Extern)]
    assert ("count", "IngressImpl.ports", {"index": 7}) in externs
    assert ("register_write", "IngressImpl.seen", {"index": 0, "value": 1}) in externs
    assert all(e.source.startswith("entities.p4:") for e in trace.events if isinstance(e, Extern))
    (condition, *_) = (e for e in trace.events if isinstance(e, If))
    assert (condition.condition, condition.value) == ("hdr.packet_out.isValid()", False)
    assert isinstance(trace.events[-1], Out)
    assert trace.events[-1].port == 3
    plane.close()


def test_the_priority_of_an_entry_that_has_one() -> None:
    plane = traced("entities")
    for priority, mask in ((5, b"\xff" * 6), (9, b"\0" * 6)):
        match = Match(bytes(5) + b"\1" if priority == 5 else bytes(6), mask, priority)
        wild = Match(match.key + b"\0\0", match.mask + b"\0\0", priority)
        entry = Entry(wild, "IngressImpl.mark", bytes(6))
        plane.write([Update(Op.INSERT, "IngressImpl.ternary_table", entry)])
    trace = one(plane, 1, PACKET)
    (hit,) = (e for e in trace.events if isinstance(e, TableApply) and "ternary" in e.name)
    assert (hit.hit, hit.priority, hit.entry) == (True, 9, 1)
    plane.close()


def test_headers_that_come_and_go() -> None:
    plane = traced("entities")
    entry = Entry(Match(PACKET[:6], b"\xff" * 6), "IngressImpl.punt", b"\0\5")
    plane.write([Update(Op.INSERT, "IngressImpl.exact_table", entry)])
    trace = one(plane, 1, PACKET)
    (punt,) = (e for e in trace.events if isinstance(e, ActionRun) and "punt" in e.name)
    changes = {(c.header, c.field): c.value for c in punt.changes}
    assert changes["packet_in", "$valid$"] == 1
    assert changes["packet_in", "reason"] == 5
    back = one(plane, CPU_PORT, b"\0\3" + PACKET)
    gone = [c.value for e in back.events for c in e.changes if c.field == "$valid$"]
    assert gone == [1, 1, 0]
    plane.close()


def test_a_copy_and_a_drop() -> None:
    plane = traced("entities")
    entry = Entry(Match(PACKET[:6], b"\xff" * 6), "IngressImpl.sample", b"\0\3")
    plane.write([Update(Op.INSERT, "IngressImpl.exact_table", entry)])
    lost = one(plane, 1, PACKET)
    assert [e.reason for e in lost.events if isinstance(e, Drop)] == ["no-clone-session"]
    assert not [e for e in lost.events if isinstance(e, Clone)]
    dropped = one(plane, 13, PACKET)
    assert [(e.reason, e.port) for e in dropped.events if isinstance(e, Drop)] == [("program", 13)]
    plane.close()


def test_a_group_and_the_member_that_was_chosen() -> None:
    plane = traced("groups")
    for member in (1, 2):
        plane.set_member("I.hops", member, "I.via", (10 + member).to_bytes(2, "big"))
    plane.set_group("I.hops", 4, [GroupMember(1, watch_port=3), GroupMember(2)])
    entry = Entry(Match(b"\0", b"\xff"), GROUP, b"\0\0\0\4")
    plane.write([Update(Op.INSERT, "I.route", entry)])
    trace = one(plane, 1, struct.pack(">HHBB", 0, 0, 0, 0))
    (pick,) = (e for e in trace.events if isinstance(e, Pick))
    assert (pick.profile, pick.kind, pick.id, pick.member) == ("I.hops", "group", 4, 2)
    assert "  profile I.hops: group 4, member 2" in list(as_text(trace, 1))
    plane.close()


def test_what_nobody_reads_is_counted_and_bounded() -> None:
    plane = traced("groups")
    for _ in range(4100):
        plane.inject(1, bytes(6))
    kept = 0
    while batch := plane.traces(0):
        kept += len(batch)
    assert (kept, plane.traces_missed) == (4096, 4)
    plane.close()


def test_a_program_without_probes_is_refused_and_makes_no_traces() -> None:
    program = compile_program((PROGRAMS / "groups.json").read_bytes())
    with pytest.raises(ValueError, match="compiled for traces"):
        Decoder(program)
    plane = NativeDataPlane({}, cpu_port=None)
    plane.load(program)
    plane.trace()
    plane.inject(1, bytes(6))
    assert plane.traces(0) == []
    plane.close()


# ---- the command


def pcap(path: Path, frames: list[bytes], order: str = "<", magic: int = 0xA1B2C3D4) -> Path:
    data = struct.pack(f"{order}IHHiIII", magic, 2, 4, 0, 0, 65535, 1)
    for f in frames:
        data += struct.pack(f"{order}IIII", 1, 2, len(f), len(f)) + f
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("magic", [0xA1B2C3D4, 0xA1B23C4D])
def test_pcap_files_of_either_order(tmp_path: Path, order: str, magic: int) -> None:
    frames = [PACKET, PACKET[:14], b""]
    assert list(read_frames(pcap(tmp_path / "a.pcap", frames, order, magic))) == frames


def test_a_capture_that_is_none(tmp_path: Path) -> None:
    bad = tmp_path / "a.pcap"
    bad.write_bytes(b"\x0a\x0d\x0d\x0a" + bytes(40))
    with pytest.raises(ValueError, match="editcap"):
        list(read_frames(bad))
    pcap(bad, [PACKET]).write_bytes(bad.read_bytes()[:-1])
    with pytest.raises(ValueError, match="within a packet"):
        list(read_frames(bad))


def test_entries_in_either_format_and_json(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    info = (PROGRAMS / "entities.p4info.txtpb").read_text()
    table, action = (_id(info, f"IngressImpl.{name}") for name in ("exact_table", "forward"))
    text, script = tmp_path / "entries.txtpb", tmp_path / "entries.stf"
    text.write_text(WRITES % {"table": table, "action": action})
    script.write_text("add exact_table hdr.ethernet.dst:1 forward(port:3)\n")
    packets = pcap(tmp_path / "in.pcap", [PACKET, b"\0" * 14])
    told = []
    for entries in (text, script):
        command = ["trace", str(PROGRAMS / "entities.json"), str(packets), "--port", "2"]
        command += ["--entries", str(entries), "--p4info", str(PROGRAMS / "entities.p4info.txtpb")]
        assert cli.main([*command, "--json"]) == 0
        told.append([json.loads(line) for line in capsys.readouterr().out.splitlines()])
        assert cli.main(command) == 0
        assert "hit entry 0, IngressImpl.forward" in capsys.readouterr().out
    for first, second in told:
        assert (first["packet"], first["port"], first["length"]) == (1, 2, 60)
        assert first["events"][-1]["frame"] == PACKET.hex()
        assert second["events"][-1]["reason"] == "program"
    events = [[{k: v for k, v in e.items() if k != "set"} for e in t[0]["events"]] for t in told]
    assert events[0] == events[1]


def _id(info: str, name: str) -> int:
    before = info[: info.index(f'name: "{name}"')]
    return int(before.rpartition("id: ")[2].split()[0])


@pytest.mark.parametrize(
    ("entries", "words"),
    [
        ("updates { entity { table_entry { table_id: 7 } } }", "no table has id 7"),
        ("update {}", "not a p4.v1.WriteRequest"),
        (None, "need the program's P4Info"),
    ],
)
def test_entries_that_cannot_be_used(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], entries: str | None, words: str
) -> None:
    file = tmp_path / "entries.txtpb"
    file.write_text(entries or "")
    command = ["trace", str(PROGRAMS / "entities.json"), str(pcap(tmp_path / "p", [PACKET]))]
    command += ["--entries", str(file)]
    if entries is not None:
        command += ["--p4info", str(PROGRAMS / "entities.p4info.txtpb")]
    assert cli.main(command) == 2
    assert words in capsys.readouterr().err


def test_a_pass_of_each_kind_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    script = str(SCRIPTS / "switch.stf")
    command = ["trace", str(PROGRAMS / "switch.json"), script, "--entries", script, "--json"]
    assert cli.main(command) == 0
    events = [e for row in capsys.readouterr().out.splitlines() for e in json.loads(row)["events"]]
    kinds = {e["event"] for e in events}
    assert kinds >= {"pass", "state", "parsed", "if", "action", "egress", "deparse", "out"}
    assert all(isinstance(e["depth"], int) for e in events)


def test_egress_tells_the_port() -> None:
    plane = traced("entities")
    entry = Entry(Match(PACKET[:6], b"\xff" * 6), "IngressImpl.forward", b"\0\3")
    plane.write([Update(Op.INSERT, "IngressImpl.exact_table", entry)])
    (egress,) = (e for e in one(plane, 1, PACKET).events if isinstance(e, Egress))
    assert (egress.port, egress.instance, egress.rid) == (3, "normal", 0)
    plane.close()
