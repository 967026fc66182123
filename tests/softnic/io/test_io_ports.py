"""Frames of every length, ports that come and go, and counters that tell what was lost."""

from __future__ import annotations

import socket
import struct
import time

import pytest
from rig import CPU_PORT, MTU, Wire, frame, until

from softnic.dataplane import Replica

SOL_PACKET, PACKET_AUXDATA, PACKET_VNET_HDR = 263, 8, 15


@pytest.mark.parametrize("size", [14, 15, 59, 60, 64, 1514, 1518, 4096, MTU, MTU + 14])
def test_frames_of_every_length_pass_as_they_came(wire: Wire, size: int) -> None:
    wire.send(1, frame(size=size))
    assert wire.receive(2) == frame(size=size)
    until(lambda: wire.port(1).rx_bytes == wire.port(2).tx_bytes == size, "it was counted")


def test_a_tag_stays_where_it_was(wire: Wire) -> None:
    tagged = frame()[:12] + b"\x81\x00\x20\x07" + frame()[12:]
    wire.sockets[2].setsockopt(SOL_PACKET, PACKET_AUXDATA, 1)
    wire.send(1, tagged)
    # The kernel takes the tag off on its way to our socket, and tells what it was.
    data, ((_, _, told),), _, _ = wire.sockets[2].recvmsg(2048, 64)
    assert data == frame()
    *_, tci, tpid = struct.unpack("=IIIHHHH", told)
    assert (tci, tpid) == (0x2007, 0x8100)


def test_a_frame_longer_than_the_next_link_takes_is_counted(wire: Wire) -> None:
    wire.ip.link("set", index=wire.index("p2"), mtu=1500)
    wire.send(1, frame(size=4000))
    until(lambda: wire.port(2).drops == {"too-big": 1}, "the drop was counted")
    wire.send(1, frame())
    assert wire.receive(2) == frame()


def test_a_super_segment_goes_through_in_one_piece(wire: Wire) -> None:
    """60 KB of TCP with its checksum left to the device, as a host with offloads sends it."""
    payload = bytes(i % 251 for i in range(60_000))
    tcp = struct.pack(">HHIIBBHHH", 1000, 80, 1, 2, 0x50, 0x18, 1000, 0, 0)
    ip = struct.pack(
        ">BBHHHBBH4s4s", 0x45, 0, 40 + len(payload), 1, 0, 64, 6, 0, b"\x0a\0\0\1", b"\x0a\0\0\2"
    )
    whole = frame()[:12] + b"\x08\x00" + ip + tcp + payload
    for port in (1, 2):
        wire.sockets[port].setsockopt(SOL_PACKET, PACKET_VNET_HDR, 1)
    needs_csum, tcpv4 = 1, 1
    vnet = struct.pack("=BBHHHH", needs_csum, tcpv4, 54, 1448, 34, 16)
    wire.send(1, vnet + whole)
    got = wire.receive(2)
    assert got[10:24] == whole[:14]
    assert got[10 + 54 :] == payload
    assert struct.unpack("=BBHHHH", got[:10])[:2] == (needs_csum, tcpv4)
    until(lambda: wire.port(2).tx_frames == 1, "it was counted as one frame")


def test_a_port_that_vanishes_comes_back(wire: Wire) -> None:
    wire.cut(2)
    until(lambda: not wire.port(2).up, "the port was down")
    wire.send(1, frame())
    until(lambda: wire.port(2).drops == {"port-down": 1}, "the drop was counted")
    wire.link(2)
    until(lambda: wire.port(2).up, "the port was up again")
    wire.send(1, frame())
    assert wire.receive(2) == frame()


def test_a_receiving_port_that_vanishes_comes_back(wire: Wire) -> None:
    for _ in range(3):
        wire.cut(1)
        until(lambda: not wire.port(1).up, "the port was down")
        wire.link(1)
        until(lambda: wire.port(1).up, "the port was up again")
        wire.send(1, frame())
        assert wire.receive(2) == frame()


def test_a_port_without_carrier_is_down(wire: Wire) -> None:
    wire.state("f2", "down")
    until(lambda: not wire.port(2).up, "the port was down")
    wire.state("f2", "up")
    until(lambda: wire.port(2).up, "the port was up again")


def test_a_backup_takes_over_and_gives_back(wire: Wire) -> None:
    """A copy for port 2 goes to the CPU port while port 2 is down."""
    wire.plane.set_multicast_group(7, [Replica(2, 1, (Replica(CPU_PORT, 2),))])
    flood = wire.plane.default("IngressImpl.exact_table")
    wire.plane.set_default("IngressImpl.exact_table", "IngressImpl.flood", b"\0\7")
    assert flood[0] == "IngressImpl.drop"
    wire.send(1, frame(9))
    assert wire.receive(2) == frame(9)
    wire.state("f2", "down")
    until(lambda: not wire.port(2).up, "the port was down")
    wire.send(1, frame(9))
    until(lambda: wire.port(CPU_PORT).tx_frames == 1, "the copy went to the CPU port")
    wire.state("f2", "up")
    until(lambda: wire.port(2).up, "the port was up again")
    wire.send(1, frame(9))
    assert wire.receive(2) == frame(9)
    assert wire.port(CPU_PORT).tx_frames == 1


def test_frames_for_ports_that_are_not_there_are_counted(wire: Wire) -> None:
    wire.forward(5, 77)
    wire.send(1, frame(5))
    until(lambda: wire.port(-1).drops == {"no-port": 1}, "the drop was counted")


def test_nothing_is_lost_without_being_counted(wire: Wire) -> None:
    """More frames than can pass: each arrived, or one of the counters has it."""
    sender = wire.sockets[1]
    sender.setblocking(False)
    sent, end = 0, time.monotonic() + 1.0
    while time.monotonic() < end:
        try:
            sender.send(frame())
            sent += 1
        except OSError:
            continue
    sender.settimeout(5)

    def settled() -> bool:
        one, two = wire.port(1), wire.port(2)
        lost = sum(one.drops.values()) + sum(two.drops.values())
        return two.tx_frames + lost >= sent

    until(settled, "every frame was sent on or counted")
    assert wire.port(2).tx_frames > sent // 10


def test_two_devices_on_one_interface_both_see_it(wire: Wire) -> None:
    """A packet socket takes nothing away from others, such as tcpdump."""
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0) as other:
        other.bind(("p1", 3))
        other.settimeout(5)
        wire.send(1, frame())
        assert wire.receive(2) == frame()
        while other.recv(2048) != frame():
            pass


def test_an_idle_device_costs_next_to_nothing(wire: Wire) -> None:
    with open("/proc/self/stat") as stat:
        before = sum(map(int, stat.read().rpartition(")")[2].split()[11:13]))
    time.sleep(1.0)  # what is measured is the time in which nothing happens
    with open("/proc/self/stat") as stat:
        ticks = sum(map(int, stat.read().rpartition(")")[2].split()[11:13])) - before
    assert ticks <= 2
