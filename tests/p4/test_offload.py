"""Super-segments with offloaded checksums, as hosts send them: split, shortened, translated.

What leaves must be right once whoever is behind the port has completed its checksum and cut it.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import replace
from typing import NamedTuple

import pytest
from leg_device import (
    CPU,
    EPOCH,
    OUT_PORTS,
    PEER_PORT,
    PORT,
    TOKEN,
    Device,
    announcement_of,
    frame,
    is_udp,
    segment_of,
    session,
    subsession,
)

from dysco.agent import packet
from dysco.agent.reconfigure import arrival, departure
from dysco.agent.reconfigure.segment import ACK, PSH, Segment
from dysco.agent.reconfigure.serial import add
from dysco.agent.reconfigure.state import (
    Announcement,
    Entry,
    NewWay,
    OldWay,
    Path,
    Registers,
    To,
    Way,
)

_VNET = struct.Struct("=BBHHHH")
_NEEDS_CSUM, _TCPV4, _TCPV6 = 1, 1, 4
MSS = 1400
OUT, IN = 0xFFFF0000, 0x7FFFFFFF
ENTRY = Entry(
    OldWay(seq_out=5000, seq_in=-7000, ts_in=99),
    NewWay(TOKEN, EPOCH, 1000, 2000, 0, 0, 300, None, 7),
    scale_own=7,
    scale_heard=7,
)
SWITCHED = Registers(
    snd_max=OUT + 3000,
    snd_una=OUT,
    edge_out=OUT + 60000,
    ts_sent=70,
    rcv_ack=add(IN, -500),
    edge_in=add(IN, 60000),
    ts_given=90,
    ts_switch=80,
    ts_old=82,
    latched=EPOCH,
    known=EPOCH,
    cutoff_out=OUT,
    cutoff_in=IN,
)
SACK = ((add(IN, -100), add(IN, 50)), (add(IN, 200), add(IN, 300)))


class Left(NamedTuple):
    """A frame that left, its checksum completed."""

    port: int
    data: bytes
    gso_size: int
    """0: it is not to be cut."""


@pytest.fixture(scope="module", params=[4, 6], ids=["v4", "v6"])
def device(request: pytest.FixtureRequest) -> Iterator[Device]:
    made = Device(request.param)
    made.set_entry(ENTRY)
    yield made
    made.close()


def run(device: Device, port: int, data: bytes) -> list[Left]:
    """Send a frame as a host's kernel does: checksum of the pseudo-header only, to be cut.

    Packet-ins are left out.
    """
    is_v4 = data[12:14] == b"\x08\x00"
    start = 34 if is_v4 else 54
    ends = data[26:34] if is_v4 else data[22:54]
    size = len(data) - start
    partial = 0xFFFF - packet.checksum(b"", int.from_bytes(ends, "big") + 6 + size)
    data = data[: start + 16] + partial.to_bytes(2, "big") + data[start + 18 :]
    header = start + (data[start + 12] >> 4) * 4
    gso = (_TCPV4 if is_v4 else _TCPV6) if len(data) - header > MSS else 0
    vnet = _VNET.pack(_NEEDS_CSUM, gso, header, MSS if gso else 0, start, 16)
    sent = device.plane.inject_vnet(port, data, vnet)
    return [completed(s.port, s.frame, s.vnet) for s in sent if s.port != CPU]


def completed(port: int, data: bytes, vnet: bytes) -> Left:
    """What the kernel, or the hardware, makes of it."""
    flags, gso, header, size, start, offset = _VNET.unpack(vnet)
    if flags & _NEEDS_CSUM:
        total = packet.checksum(data[start:])
        at = start + offset
        data = data[:at] + total.to_bytes(2, "big") + data[at + 2 :]
    if gso:
        assert flags & _NEEDS_CSUM
        tcp = 34 if data[12:14] == b"\x08\x00" else 54
        assert header == tcp + (data[tcp + 12] >> 4) * 4
        assert len(data) - header > size == MSS
    return Left(port, data, size if gso else 0)


Item = tuple[int, Segment | Announcement, int]
"""Port, what leaves there, and how it is cut."""


def expected(sent: departure.Sent) -> list[Item]:
    """What the rules say."""
    ports = {
        To.OLD: OUT_PORTS[Path.FIRST],
        To.NEW: OUT_PORTS[Path.SECOND],
        To.HOST: PORT,
        To.PEER: PEER_PORT,
    }
    out: list[Item] = []
    for to, what in sent:
        if to is not To.SPLIT:
            long = isinstance(what, Segment) and len(what.data) > MSS
            out.append((ports[to], what, MSS if long else 0))
    return sorted(out, key=str)


def left(device: Device, frames: list[Left]) -> list[Item]:
    """What left."""
    out: list[Item] = []
    for port, data, size in frames:
        what: Segment | Announcement
        if is_udp(data):
            what = announcement_of(data, device.version)
        else:
            what, _ = segment_of(data, device.ends_of(port))
        out.append((port, what, size))
    return sorted(out, key=str)


@pytest.mark.parametrize("size", [0, 100, MSS, 5 * MSS, 60000])
@pytest.mark.parametrize("sack", [(), SACK[:1], SACK], ids=["", "sack", "sacks"])
@pytest.mark.parametrize("ack", [-400, 10])
@pytest.mark.parametrize("seq", [-70000, 0])
def test_departure(
    device: Device, size: int, sack: tuple[tuple[int, int], ...], ack: int, seq: int
) -> None:
    segment = Segment(
        add(OUT, seq), add(IN, ack), ACK | PSH, 500, bytes(size), sack, tsval=71, tsecr=85
    )
    registers = replace(SWITCHED)
    device.set_registers(registers)
    wanted = departure.from_host(ENTRY, registers, segment)
    got = run(device, PORT, frame(session(device.version), segment))
    assert left(device, got) == expected(wanted)


@pytest.mark.parametrize("size", [100, 5 * MSS, 60000])
@pytest.mark.parametrize("done", [False, True])
@pytest.mark.parametrize("way", Way)
def test_arrival(device: Device, size: int, done: bool, way: Way) -> None:
    registers = replace(SWITCHED, rcv_ack=IN if done else add(IN, -size))
    device.set_registers(registers)
    old, new = ENTRY.old, ENTRY.new
    assert new is not None
    seq, ack = (add(IN, -size - old.seq_in), add(OUT, old.seq_out))
    if way is Way.NEW:
        seq, ack = new.isn_in + 1, new.isn_out + 1 + 700
    segment = Segment(seq, ack, ACK, 500, bytes(size), (), tsval=400, tsecr=71)
    wanted = arrival.from_network(ENTRY, registers, way, segment)
    path = ENTRY.path if way is Way.OLD else ENTRY.path.other
    data = frame(subsession(device.version, path).reversed, segment)
    got = run(device, OUT_PORTS[path], data)
    assert left(device, got) == expected(wanted)
