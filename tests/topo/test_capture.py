"""Captures, and what is read from them, on real links with real traffic."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address
from pathlib import Path

import pytest

from dysco.agent.model import FiveTuple
from dysco.topo import traffic
from dysco.topo.capture import (
    Capture,
    Kind,
    Tap,
    all_from,
    icmp_errors,
    segments,
    write_pcap,
)
from dysco.topo.packets import Flags, Segment, parse
from dysco.topo.spec import HostSpec, TopologySpec
from dysco.topo.topology import Topology
from dysco.topo.waiting import wait_until

SIZE = 300_000


@dataclass(frozen=True)
class Pair:
    topology: Topology
    taps: list[Tap]
    directory: Path


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    directory = tmp_path_factory.mktemp("pair")
    hosts = (HostSpec("a", 1, router="left"), HostSpec("b", 2, router="right"))
    spec = TopologySpec(hosts, routers=("left", "right"), backbone_mtu=1400)
    with Topology(spec, directory) as topology:
        web = traffic.WebServer(topology.hosts["b"], directory / "nginx")
        web.publish("file", os.urandom(SIZE))
        taps = [
            Tap("a", topology.hosts["a"], "eth0"),
            Tap("left", topology.routers["left"], "to-a"),
            Tap("b", topology.hosts["b"], "eth0"),
        ]
        yield Pair(topology, taps, directory)


@pytest.mark.parametrize("server", ["10.0.2.2", "[fd00:2::2]"])
def test_what_passed_was_seen(pair: Pair, server: str) -> None:
    with Capture(pair.taps) as capture:
        traffic.download(pair.topology.hosts["a"], f"http://{server}/file", pair.directory / "got")
    assert capture.missed == 0
    first = next(segment for _, segment in segments(capture.frames, "a"))
    assert first.is_first
    assert str(first.tuple.dst) == server.strip("[]")
    assert first.tuple.dport == 80
    there = [s for _, s in segments(capture.frames, "a") if s.tuple == first.tuple.reversed]
    assert sum(segment.length for segment in there) >= SIZE
    assert there[0].flags == Flags.SYN | Flags.ACK
    mine = [frame for frame in capture.frames if frame.tap == "a"]
    assert {frame.outgoing for frame, s in segments(mine) if s.tuple == first.tuple} == {True}
    assert {frame.outgoing for frame, s in segments(mine) if s.tuple != first.tuple} == {False}


def test_both_ends_of_a_link_see_the_same(pair: Pair) -> None:
    with Capture(pair.taps) as capture:
        traffic.download(pair.topology.hosts["a"], "http://10.0.2.2/file", pair.directory / "got")
    at_a = [frame for frame in capture.frames if frame.tap == "a"]
    at_router = [frame for frame in capture.frames if frame.tap == "left"]
    at_b = [frame for frame in capture.frames if frame.tap == "b"]
    assert all_from(at_a, at_router)
    assert all_from(at_router, at_a)
    assert all_from(at_a[1:], at_a)
    assert not all_from(at_a, at_a[1:])
    assert not all_from(at_b, at_a)  # the routers changed TTL and MAC addresses


@pytest.mark.parametrize("server", ["10.0.2.2", "[fd00:2::2]"])
def test_control_segments_alone(pair: Pair, server: str) -> None:
    with Capture(pair.taps, Kind.CONTROL) as capture:
        traffic.download(pair.topology.hosts["a"], f"http://{server}/file", pair.directory / "got")
    flags = [s.flags & 7 for frame, s in segments(capture.frames, "a") if frame.outgoing]
    assert flags == [Flags.SYN, Flags.FIN]
    assert len(capture.frames) == 3 * 4


def test_icmp_errors_are_read(pair: Pair) -> None:
    """The server's first full segments don't fit the link between the routers."""
    pair.topology.hosts["b"].run(["ip", "route", "flush", "cache"])
    with Capture(pair.taps) as capture:
        traffic.download(pair.topology.hosts["a"], "http://10.0.2.2/file", pair.directory / "got")
    errors = [error for _, error in icmp_errors(capture.frames, "b")]
    assert errors
    assert {(error.type, error.code, error.mtu) for error in errors} == {(3, 4, 1400)}
    first = next(segment for _, segment in segments(capture.frames, "a"))
    assert {error.quoted for error in errors} == {first.tuple.reversed}


@pytest.mark.parametrize(
    ("flags", "options", "payload", "header", "tag"),
    [
        (2, bytes([1, 1, 253, 6, 1, 2, 3, 4]), b"DySC and so on", True, True),
        (2, bytes([2, 4, 5, 180]), b"DySC and so on", True, False),
        (2, b"", b"GET / HTTP/1.1", False, False),
        (18, b"", b"DySC and so on", False, False),
        (2, bytes([253, 0, 0, 0]), b"", False, True),
        (2, bytes([0, 253, 2, 0]), b"", False, False),
        (2, bytes([8, 0, 253, 2]), b"", False, False),
    ],
)
def test_a_dysco_header_and_a_tag_are_recognised(
    flags: int, options: bytes, payload: bytes, header: bool, tag: bool
) -> None:
    offset = (20 + len(options)) // 4 << 4
    tcp = bytes([0x12, 0x34, 0, 80]) + bytes(8) + bytes([offset, flags]) + bytes(6)
    tcp += options + payload
    length = (20 + len(tcp)).to_bytes(2, "big")
    ip = bytes([0x45, 0]) + length + bytes(4) + bytes([64, 6]) + bytes(2)
    ip += bytes([10, 0, 0, 1, 10, 0, 0, 2])
    segment = parse(bytes(12) + b"\x08\x00" + ip + tcp).transport
    assert isinstance(segment, Segment)
    assert segment.tuple == FiveTuple(IPv4Address("10.0.0.1"), 0x1234, IPv4Address("10.0.0.2"), 80)
    assert (segment.has_dysco_header, segment.has_tag) == (header, tag)
    assert segment.length == len(payload)


def test_pcap_files_can_be_read_by_others(pair: Pair, tmp_path: Path) -> None:
    with Capture(pair.taps) as capture:
        traffic.download(pair.topology.hosts["a"], "http://10.0.2.2/who", tmp_path / "got")
    write_pcap(capture.frames, tmp_path / "pcap")
    text = pair.topology.hosts["a"].run(["tcpdump", "-nr", str(tmp_path / "pcap" / "b.pcap")])
    assert "10.0.1.2" in text
    assert "10.0.2.2.80: Flags [S]" in text


def test_counting_while_it_runs(pair: Pair) -> None:
    with Capture(pair.taps[:1]) as capture:
        with pair.topology.hosts["a"].entered():
            sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        with sender:
            sender.sendto(b"x", ("10.0.2.2", 9))
        wait_until(lambda: capture.count(lambda frame: frame.outgoing) == 1, "the datagram")
