"""What no policy is for, and what isn't TCP, is as if there were no Dysco."""

from __future__ import annotations

import os
import socket
import struct
from dataclasses import replace

import pytest
from chained import SIZE, Network

from dysco.agent.packet import checksum
from dysco.topo import boxes, proof
from dysco.topo.capture import Capture
from dysco.topo.path import taps

BOXES = ("firewall", "nat", "counter")


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize(("client", "port"), [("client", 8080), ("bystander", 80)])
def test_tcp_without_a_policy(network: Network, client: str, port: int, version: int) -> None:
    spec = network.topology.spec
    hosts = [name for name in (client, "server") if spec.host(name).device is not None]
    before = {box: boxes.counters(network.host(box)) for box in BOXES}
    with Capture(taps(network.topology, hosts)) as capture:
        got = network.fetch(port, version, client=client)
    assert (got.status, got.size, got.sha256) == (200, SIZE, network.sha256)
    ends = spec.host(client), spec.host("server")
    claim = proof.untouched("direct", capture.frames, capture.missed, *ends)
    assert claim.problems == ()
    # The proof can fail: one byte of one frame is another one.
    at = next(i for i, frame in enumerate(capture.frames) if frame.tap == "server")
    frame = capture.frames[at]
    forged = replace(frame, data=frame.data[:40] + bytes([frame.data[40] ^ 1]) + frame.data[41:])
    capture.frames[at] = forged
    claim = proof.untouched("direct", capture.frames, capture.missed, *ends)
    assert claim.problems[-1].startswith("server's device changed")
    after = {box: boxes.counters(network.host(box)) for box in BOXES}
    assert proof.not_counted(before, after).held
    assert network.who(port, version, client) == network.address(client, version)


@pytest.mark.parametrize("version", [4, 6])
def test_udp(network: Network, version: int) -> None:
    """Also on a port that a policy for TCP names."""
    family = socket.AF_INET if version == 4 else socket.AF_INET6
    with network.host("server").entered():
        server = socket.socket(family, socket.SOCK_DGRAM)
    with network.host("client").entered():
        client = socket.socket(family, socket.SOCK_DGRAM)
    with server, client:
        for end in (server, client):
            end.settimeout(5)
        server.bind(("", 80))
        client.sendto(b"there", (network.address("server", version), 80))
        data, source = server.recvfrom(100)
        assert (data, source[0]) == (b"there", network.address("client", version))
        server.sendto(b"and back", source)
        data, source = client.recvfrom(100)
        assert (data, source[0]) == (b"and back", network.address("server", version))


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("size", [56, 3000])
def test_ping(network: Network, version: int, size: int) -> None:
    """Also in fragments."""
    ping(network, version, size)


def ping(network: Network, version: int, size: int = 56) -> None:
    """An echo request and its reply (RFC 792, RFC 4443)."""
    family, protocol, request = {
        4: (socket.AF_INET, socket.IPPROTO_ICMP, 8),
        6: (socket.AF_INET6, socket.IPPROTO_ICMPV6, 128),
    }[version]
    rest = struct.pack("!HH", 4711, 1) + os.urandom(size)
    # The kernel computes the checksum of ICMPv6, not that of ICMP.
    sum_ = checksum(bytes([request, 0, 0, 0]) + rest) if version == 4 else 0
    with network.host("client").entered():
        raw = socket.socket(family, socket.SOCK_RAW, protocol)
    with raw:
        raw.settimeout(5)
        raw.sendto(
            struct.pack("!BBH", request, 0, sum_) + rest, (network.address("server", version), 0)
        )
        while True:
            data, source = raw.recvfrom(65536)
            if data.endswith(rest) and source[0] == network.address("server", version):
                return


@pytest.mark.parametrize("version", [4, 6])
def test_neighbours_are_found_through_a_device(network: Network, version: int) -> None:
    """ARP and neighbour discovery cross a device in both directions."""
    client = network.host("client")
    client.run(["ip", "neigh", "flush", "all"])
    router = network.topology.routers["router"]
    router.run(["ip", "neigh", "flush", "all"])
    ping(network, version)
    gateway = network.topology.spec.host("client").gateways[0 if version == 4 else 1]
    assert "lladdr" in client.run(["ip", "neigh", "show", gateway])
    own = network.address("client", version)
    assert "lladdr 02:00:00:00:01:02" in router.run(["ip", "neigh", "show", own])
