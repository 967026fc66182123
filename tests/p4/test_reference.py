"""The P4 program on softnic does with each segment what the executable reference does.

Random legs in random states of a reconfiguration, and random segments near all that matters: the
cutoffs, the windows, the wrap of the sequence numbers. What leaves must be the same, and the
registers afterwards.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from copy import deepcopy
from dataclasses import asdict, replace

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from leg_device import (
    EPOCH,
    MAC,
    NEXT_MAC,
    OUT_PORTS,
    PEER,
    PORT,
    SLOT,
    TOKEN,
    Device,
    Sent,
    Told,
    frame,
    sack_option,
    session,
    split_options,
    subsession,
    timestamps_option,
    without_isn,
)

from dysco.agent.events import Reason, Submit
from dysco.agent.reconfigure import arrival, departure, gate, handover, in_band
from dysco.agent.reconfigure.segment import ACK, CWR, ECE, FIN, PSH, RST, SYN, Segment
from dysco.agent.reconfigure.serial import add
from dysco.agent.reconfigure.state import (
    Announcement,
    Entry,
    Gate,
    NewWay,
    OldWay,
    Path,
    Registers,
    To,
    Way,
    switching,
)
from dysco.controller import legs

EXAMPLES = settings(
    max_examples=int(os.environ.get("EXAMPLES", "60")),
    deadline=None,
    phases=(Phase.explicit, Phase.reuse, Phase.generate, Phase.shrink),
)
"""`EXAMPLES=10000 pytest tests/p4/test_reference.py` looks further."""

NUMBERS = st.integers(0, 2**32 - 1) | st.integers(-3000, 3000).map(lambda n: n % 2**32)
NEAR = st.sampled_from((-2, -1, 0, 1, 2)) | st.integers(-4000, 4000)
# A host's segments have an ACK, or are a RST (RFC 9293, 3.5.2); a stranger's may have anything.
FLAGS = (ACK, ACK, ACK, ACK, ACK | PSH, ACK | FIN, ACK | PSH | FIN, RST, RST | ACK)
OUTWARD = st.sampled_from(FLAGS)
INWARD = st.sampled_from((*FLAGS, 0, PSH, FIN))
SIZES = st.sampled_from((0, 0, 0, 1, 2, 100, 101, 1448, 3001, 64000))
SCALES = st.sampled_from((0, 1, 7, 14))


@pytest.fixture(scope="module", params=[4, 6], ids=["v4", "v6"])
def device(request: pytest.FixtureRequest) -> Iterator[Device]:
    made = Device(request.param)
    yield made
    made.close()


def some(values: st.SearchStrategy[int]) -> st.SearchStrategy[int | None]:
    return st.none() | values


@st.composite
def old_ways(draw: st.DrawFn, floor_near: int) -> OldWay:
    plain = draw(st.booleans())
    number = st.just(0) if plain else NUMBERS
    floor = draw(some(NEAR.map(lambda n: add(floor_near, n))))
    return OldWay(draw(number), draw(number), draw(number), draw(SCALES), floor)


@st.composite
def legs_in_use(draw: st.DrawFn) -> tuple[Entry, Registers]:
    """A leg at some point of a reconfiguration, or outside of one, and what its packets left."""
    out, inn, ts_out, ts_in = (draw(NUMBERS) for _ in range(4))
    near = {name: draw(NEAR) for name in ("max", "una", "ack", "given", "switch", "old", "sent")}
    new = None
    if draw(st.booleans()) or draw(st.booleans()):
        new = NewWay(
            token=TOKEN,
            epoch=EPOCH,
            isn_out=draw(NUMBERS),
            isn_in=draw(NUMBERS),
            delta_in=draw(NUMBERS),
            delta_out=draw(NUMBERS),
            ts_in=draw(NUMBERS),
            ts_shift=draw(some(NUMBERS)),
            scale_in=draw(SCALES),
            edge=draw(some(NEAR.map(lambda n: add(out, 3 * n)))),
        )
    entry = Entry(
        old=draw(old_ways(out)),
        new=new,
        path=draw(st.sampled_from(Path)),
        scale_own=draw(SCALES),
        scale_heard=draw(SCALES),
        jump=draw(st.sampled_from((1 << 30, 1 << 30, 1000))),
    )
    latched = draw(st.sampled_from((EPOCH, EPOCH, EPOCH, 0, EPOCH - 1)))
    known = draw(st.sampled_from((EPOCH, EPOCH, 0, EPOCH - 1))) if latched == EPOCH else 0
    registers = Registers(
        isn=draw(NUMBERS),
        snd_max=add(out, near["max"]),
        fin_sent=draw(st.booleans()),
        snd_una=add(out, near["una"]),
        edge_out=add(out, draw(NEAR) * 20),
        ts_sent=add(ts_out, near["sent"]),
        rcv_ack=add(inn, near["ack"]),
        edge_in=add(inn, draw(NEAR) * 20),
        ts_given=add(ts_in, near["given"]),
        ts_switch=add(ts_in, near["switch"]),
        ts_old=add(ts_in, near["old"]),
        latched=latched,
        revoked=draw(st.sampled_from((0, 0, 0, EPOCH))),
        known=known,
        told=draw(st.sampled_from((0, EPOCH))),
        cutoff_out=out,
        cutoff_in=inn,
        last_way=draw(st.sampled_from(Way)),
    )
    return entry, registers


@st.composite
def segments(
    draw: st.DrawFn, seq: int, ack: int, tsval: int, tsecr: int, flags: st.SearchStrategy[int]
) -> Segment:
    """A segment near these numbers."""
    size = draw(SIZES)
    stamped = draw(st.booleans())
    blocks = []
    for _ in range(draw(st.integers(0, 3 if stamped else 4))):
        start = add(ack, draw(NEAR))
        blocks.append((start, add(start, draw(st.integers(1, 3000)))))
    return Segment(
        add(seq, draw(NEAR) - draw(st.sampled_from((0, size)))),
        add(ack, draw(NEAR)),
        draw(flags) | draw(st.sampled_from((0, 0, 0, ECE, CWR, ECE | CWR))),
        draw(st.integers(0, 0xFFFF)),
        bytes(n & 0xFF for n in range(size)),
        tuple(blocks),
        add(tsval, draw(NEAR)) if stamped else None,
        add(tsecr, draw(NEAR)) if stamped else 0,
    )


@st.composite
def arrangements(draw: st.DrawFn, segment: Segment) -> bytes:
    """The segment's options in some order, others and padding between them."""
    wanted = [o for o in (timestamps_option(segment), sack_option(segment)) if o]
    wanted = draw(st.permutations(wanted))
    room = 40 - sum(map(len, wanted))
    out = b""
    for part in [*wanted, b""]:
        for _ in range(draw(st.integers(0, 2))):
            kind = draw(st.sampled_from((1, 1, 1, 19, 253)))
            size = 1 if kind == 1 else draw(st.integers(2, 7))
            if size <= room:
                room -= size
                out += b"\1" if kind == 1 else bytes([kind, size]) + b"\xa5" * (size - 2)
        out += part
    # An end of the list, or no-operations.
    return out + draw(st.sampled_from((b"\0", b"\1"))) * (-len(out) % 4)


def expected_of(sent: departure.Sent) -> Counter[tuple[To, Segment]]:
    """What the device must send. Without timestamps their echo means nothing."""
    return Counter(
        (to, what if what.tsval is not None else replace(what, tsecr=0))
        for to, what in sent
        if isinstance(what, Segment) and to not in (To.SPLIT, To.HELD)
    )


def drains(entry: Entry, before: Registers, after: Registers, told: int) -> bool:
    new = entry.new
    return (
        new is not None
        and before.latched == before.known == new.epoch
        and arrival.drained(after)
        and told != new.epoch
    )


def compare(
    device: Device,
    entry: Entry,
    before: Registers,
    after: Registers,
    told: int,
    expected: departure.Sent,
    got: Sequence[object],
) -> None:
    """The device did what the reference did."""
    sent = Counter((s.to, s.segment) for s in got if isinstance(s, Sent))
    assert sent == expected_of(expected)
    announced = [item for item in got if isinstance(item, Announcement)]
    assert announced == [what for to, what in expected if to is To.PEER]
    assert asdict(device.registers()) == asdict(without_isn(after))
    packet_ins = [item for item in got if isinstance(item, Told)]
    reports = [legs.parse_report(p.frame) for p in packet_ins if p.reason is Reason.LEG]
    split = [p for p in packet_ins if p.reason is Reason.SPLIT]
    assert len(split) == sum(to is To.SPLIT for to, _ in expected)
    if drains(entry, before, after, told):
        (report,) = reports
        assert report.events == legs.Event.DRAINED
        assert report.slot == SLOT
        assert report.registers == reported(after)
    else:
        assert not reports


def prepare(device: Device, entry: Entry, registers: Registers, told: int) -> Registers:
    device.set_entry(entry)
    device.set_registers(registers)
    device.set_drained(told)
    device.registers()
    return deepcopy(registers)


@EXAMPLES
@given(st.data())
def test_departure(device: Device, data: st.DataObject) -> None:
    entry, before = data.draw(legs_in_use())
    b = before
    segment = data.draw(segments(b.cutoff_out, b.cutoff_in, b.ts_sent, b.ts_given, OUTWARD))
    options = data.draw(arrangements(segment))
    told = data.draw(st.sampled_from((0, EPOCH)))
    after = prepare(device, entry, before, told)
    expected = departure.from_host(entry, after, segment)
    got = device.from_host(segment, options)
    compare(device, entry, before, after, told, expected, got)


@EXAMPLES
@given(st.data())
def test_arrival(device: Device, data: st.DataObject) -> None:
    entry, before = data.draw(legs_in_use())
    b, new, old = before, entry.new, entry.old
    way = data.draw(st.sampled_from(Way))
    if way is Way.NEW and new is not None:
        numbers = (add(new.isn_in, 1), add(new.isn_out, 1), new.ts_in, b.ts_sent)
    else:
        numbers = (
            add(b.cutoff_in, -old.seq_in),
            add(b.cutoff_out, old.seq_out),
            add(b.ts_given, -old.ts_in),
            b.ts_sent,
        )
    segment = data.draw(segments(*numbers, INWARD))
    options = data.draw(arrangements(segment))
    told = data.draw(st.sampled_from((0, EPOCH)))
    after = prepare(device, entry, before, told)
    got = device.from_network(way, segment, options)
    switched = switching(entry, before) is not None
    if way is Way.NEW and not switched and not segment.has_content:
        # Of the handshake.
        assert got == [Told(Reason.NEW_PATH, arriving(device, way, segment, options))]
        assert device.registers() == without_isn(before)
        return
    expected = arrival.from_network(entry, after, way, segment)
    compare(device, entry, before, after, told, expected, got)


def arriving(device: Device, way: Way, segment: Segment, options: bytes) -> bytes:
    path = device.entry.path if way is Way.OLD else device.entry.path.other
    return frame(subsession(device.version, path).reversed, segment, options)


@EXAMPLES
@given(st.data())
def test_a_syn_ack_begins(device: Device, data: st.DataObject) -> None:
    entry, before = data.draw(legs_in_use())
    entry = replace(entry, new=None, old=replace(entry.old, floor=None))
    segment = data.draw(segments(before.isn or 0, before.cutoff_in, 0, 0, st.just(SYN | ACK)))
    segment = replace(segment, sack=(), data=b"")
    if data.draw(st.booleans()):
        segment = replace(segment, seq=before.isn or 0)
    outward = data.draw(st.booleans())
    after = prepare(device, entry, before, 0)
    if outward:
        expected = departure.from_host(entry, after, segment)
        got = device.from_host(segment)
    else:
        expected = arrival.from_network(entry, after, Way.OLD, segment)
        got = device.from_network(Way.OLD, segment)
    # The controller has a copy.
    copies = [item for item in got if isinstance(item, Told)]
    assert [c.reason for c in copies] == [Reason.SENT if outward else Reason.RECEIVED]
    got = [item for item in got if item not in copies]
    compare(device, entry, before, after, 0, expected, got)


@EXAMPLES
@given(st.data())
def test_latch(device: Device, data: st.DataObject) -> None:
    entry, before = data.draw(legs_in_use())
    after = prepare(device, entry, before, 0)
    src, dst = session(device.version).src, PEER[device.version]
    got = device.submit(Submit.LATCH, legs.announcement(TOKEN, EPOCH, src, dst, MAC))
    if entry.new is None:
        assert got == []
    else:
        try:
            assert got == [handover.latch(entry, after)]
        except handover.ClosingError:
            check_report(got, legs.Event.CLOSING, after)
    assert device.registers() == without_isn(after)


def check_report(got: Sequence[object], events: legs.Event, registers: Registers) -> None:
    """Exactly one packet-in, which tells these registers."""
    (told,) = got
    assert isinstance(told, Told)
    assert told.reason is Reason.LEG
    report = legs.parse_report(told.frame)
    assert report == legs.Report(SLOT, events, reported(registers))


def reported(registers: Registers) -> Registers:
    """As a report has it."""
    return replace(registers, isn=None, hold=0, counts=Counter())


@EXAMPLES
@given(st.data())
def test_announcement(device: Device, data: st.DataObject) -> None:
    entry, before = data.draw(legs_in_use())
    message = Announcement(
        data.draw(st.sampled_from((TOKEN, TOKEN, TOKEN, 3))),
        data.draw(st.sampled_from((EPOCH, EPOCH, EPOCH, 0, EPOCH + 1))),
        add(before.cutoff_in, data.draw(NEAR) - (entry.new.delta_in if entry.new else 0)),
        add(before.cutoff_out, data.draw(NEAR) + (entry.new.delta_out if entry.new else 0)),
        data.draw(st.booleans()),
    )
    told = data.draw(st.sampled_from((0, EPOCH)))
    after = prepare(device, entry, before, told)
    got = device.announce(message)
    try:
        answer, news = handover.announced(entry, after, message)
    except handover.ClosingError:
        check_report(got, legs.Event.CLOSING, after)
    else:
        assert [item for item in got if isinstance(item, Announcement)] == (
            [] if answer is None else [answer]
        )
        reports = [item for item in got if isinstance(item, Told)]
        if news:
            events = legs.Event.ANNOUNCED
            if arrival.drained(after) and told != EPOCH:
                events |= legs.Event.DRAINED
            check_report(reports, events, after)
        else:
            assert not reports
    assert device.registers() == without_isn(after)


@EXAMPLES
@given(st.data())
def test_revoke(device: Device, data: st.DataObject) -> None:
    entry, before = data.draw(legs_in_use())
    after = prepare(device, entry, before, 0)
    src, dst = session(device.version).src, PEER[device.version]
    got = device.submit(Submit.REVOKE, legs.announcement(TOKEN, EPOCH, src, dst, MAC))
    if entry.new is None:
        assert got == []
    else:
        done = handover.revoke(entry, after)
        check_report(got, legs.Event.REVOKED if done else legs.Event(0), after)
    assert device.registers() == without_isn(after)


@EXAMPLES
@given(st.data())
def test_query(device: Device, data: st.DataObject) -> None:
    entry, before = data.draw(legs_in_use())
    prepare(device, entry, before, 0)
    check_report(device.submit(Submit.QUERY, legs.query(SLOT)), legs.Event(0), before)
    assert device.registers() == without_isn(before)


@st.composite
def gates(draw: st.DrawFn) -> tuple[Entry, Registers]:
    """A leg while its session's state moves."""
    entry, registers = draw(legs_in_use())
    hold = draw(st.sampled_from((2, 0xFFFFFFFE)))
    kind = draw(st.sampled_from(Gate))
    registers.hold = draw(st.sampled_from((0, hold, hold + 1)))
    return replace(entry, new=None, gate=kind, hold=0 if kind is Gate.OPEN else hold), registers


@EXAMPLES
@given(st.data())
def test_gate(device: Device, data: st.DataObject) -> None:
    """What is held reaches the agent whole, and nothing learns of it; what is let go passes."""
    entry, before = data.draw(gates())
    b, old = before, entry.old
    after = prepare(device, entry, before, 0)
    if data.draw(st.booleans()):
        numbers = (add(b.cutoff_in, -old.seq_in), add(b.cutoff_out, old.seq_out), b.ts_given, 0)
        segment = data.draw(segments(*numbers, INWARD))
        expected = arrival.from_network(entry, after, Way.OLD, segment)
        got = device.from_network(Way.OLD, segment)
    else:
        segment = data.draw(segments(b.cutoff_out, b.cutoff_in, b.ts_sent, b.ts_given, OUTWARD))
        whole = frame(session(device.version), segment)
        released = data.draw(st.booleans())
        expected = departure.from_host(entry, after, segment, released=released)
        if released:
            got = device.submit(Submit.RELEASED, whole, port=1)
        else:
            got = device.from_host(segment)
        held = [to for to, _ in expected] == [To.HELD]
        assert (Told(Reason.HELD, whole) in got) == held
        if held or entry.gate is Gate.SHUT:
            # Nor is anybody told of a FIN or RST that did not pass.
            assert len(got) == held
    compare(device, entry, before, after, 0, expected, got)


@EXAMPLES
@given(st.data())
def test_end_hold(device: Device, data: st.DataObject) -> None:
    entry, before = data.draw(gates())
    after = prepare(device, entry, before, 0)
    number = data.draw(st.sampled_from((2, 0xFFFFFFFE)))
    got = device.submit(Submit.END_HOLD, legs.end_hold(SLOT, number))
    over = gate.end_hold(entry, after, number)
    check_report(got, legs.Event.HOLD_OVER if over else legs.Event.STILL_HELD, after)
    assert device.registers() == without_isn(after)


@EXAMPLES
@given(st.data())
def test_seed(device: Device, data: st.DataObject) -> None:
    """A leg goes on where another device's ended; what was of another connection is gone."""
    entry, before = data.draw(gates())
    _, carried = data.draw(legs_in_use())
    prepare(device, entry, before, EPOCH)
    assert device.submit(Submit.SEED, legs.seed(SLOT, carried)) == []
    # What there is only with two paths, and to hold, means nothing now.
    kept = ("isn", "ts_switch", "ts_old", "cutoff_out", "cutoff_in", "last_way", "hold")
    none = dict.fromkeys(("latched", "revoked", "known", "told"), 0)
    after = replace(carried, **{name: getattr(before, name) for name in kept}, **none)
    assert device.registers() == without_isn(after)


@EXAMPLES
@given(st.data())
def test_a_message_in_band(device: Device, data: st.DataObject) -> None:
    """It is numbered for the path that the host's old data take, and leaves no trace."""
    entry, before = data.draw(legs_in_use())
    prepare(device, entry, before, 0)
    message = data.draw(st.binary(min_size=1, max_size=300))
    ends = session(device.version)
    data_ = in_band.segment(ends, MAC, message).build()
    got = device.submit(Submit.IN_BAND, data_, port=PORT)
    end, ack, window = in_band.numbers(entry, before)
    wanted = Segment(add(end, -len(message)), ack, ACK, window, message)
    assert got == [Sent(To.OLD, wanted, (in_band.OPTION,))]
    assert device.registers() == without_isn(before)


@EXAMPLES
@given(st.data())
def test_a_message_in_band_arrives(device: Device, data: st.DataObject) -> None:
    """By either path it is for the agent, as it came, and the leg knows nothing of it."""
    entry, before = data.draw(legs_in_use())
    prepare(device, entry, before, 0)
    path = data.draw(st.sampled_from(Path))
    at = in_band.Numbers(data.draw(NUMBERS), data.draw(NUMBERS), 100)
    away = subsession(device.version, path)
    made = in_band.segment(away.reversed, NEXT_MAC, b"DyCo and more", at)
    made.dst_mac = MAC
    arrived = made.build()
    got = device.inject(OUT_PORTS[path], arrived)
    assert got == [Told(Reason.CONTROL, arrived)]
    assert device.registers() == without_isn(before)


def test_a_cutoff_from_the_agent_is_taken_as_an_announcement(device: Device) -> None:
    """What one agent tells another goes into the data plane as if it had come from the network."""
    new = NewWay(TOKEN, EPOCH, 100, 200, 7, 9, 0, None, 0)
    entry = Entry(new=new)
    after = prepare(device, entry, Registers(isn=1, snd_max=5000, rcv_ack=6000), 0)
    message = Announcement(TOKEN, EPOCH, 6500, 70_000, known=False)
    src, dst = PEER[device.version], session(device.version).src
    data = legs.announcement(TOKEN, EPOCH, src, dst, MAC, cutoff=6500, edge=70_000, known=False)
    got = device.submit(Submit.ROUTE, data)
    answer, news = handover.announced(entry, after, message)
    assert news
    assert answer in got
    check_report([item for item in got if isinstance(item, Told)], legs.Event.ANNOUNCED, after)


@EXAMPLES
@given(st.data())
def test_split_parts(device: Device, data: st.DataObject) -> None:
    """What lies across the cutoff comes to the agent whole; its parts make what it would have."""
    entry, before = data.draw(legs_in_use())
    segment = data.draw(
        segments(before.cutoff_out, before.cutoff_in, before.ts_sent, before.ts_given, OUTWARD)
    )
    after = prepare(device, entry, before, EPOCH)
    expected = departure.from_host(entry, after, segment)
    if [to for to, _ in expected] != [To.SPLIT]:
        return
    got = device.from_host(segment)
    told = Told(Reason.SPLIT, frame(session(device.version), segment))
    assert told in got
    assert not any(isinstance(item, Sent) for item in got)
    switched = switching(entry, before) is not None
    cutoff = after.cutoff_out if switched else entry.old.floor
    assert cutoff is not None
    parts = departure.split(segment, cutoff)
    frames = legs.split(told.frame, cutoff)
    device.registers()
    for part, data_ in zip(parts, frames, strict=True):
        assert data_ == frame(session(device.version), part)
        after.counts.clear()
        start = deepcopy(after)
        wanted = departure.from_host(entry, after, part)
        got = device.submit(Submit.HOST, data_, port=1)
        compare(device, entry, start, after, EPOCH, wanted, got)


@EXAMPLES
@given(st.data())
def test_other_options_stay(device: Device, data: st.DataObject) -> None:
    entry, before = data.draw(legs_in_use())
    segment = data.draw(
        segments(before.cutoff_out, before.cutoff_in, before.ts_sent, before.ts_given, st.just(ACK))
    )
    segment = replace(segment, data=segment.data or b"x")
    options = data.draw(arrangements(segment))
    prepare(device, entry, before, EPOCH)
    others = [o for o in split_options(options) if o[0] not in (5, 8)]
    for item in device.from_host(segment, options):
        if isinstance(item, Sent) and item.segment.data:
            assert list(item.others) == others
