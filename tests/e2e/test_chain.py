"""HTTP through firewall, NAT and counter: what the demo proves, and that the proof can fail."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
from chained import SIZE, Conversation, Network

from dysco.topo import boxes, proof, traffic
from dysco.topo.boxes import Counters
from dysco.topo.capture import Capture, Frame, segments
from dysco.topo.path import host_tap, network_tap, taps
from dysco.topo.proof import Claim, Recording, chain_claims

CHAIN = ("client", "firewall", "nat", "counter", "server")
BOXES = CHAIN[1:-1]
PORT = 87
"""As port 80, but without NGINX."""


def counters(network: Network) -> dict[str, Counters]:
    return {box: boxes.counters(network.host(box)) for box in BOXES}


@pytest.fixture(scope="module", params=[4, 6])
def recording(request: pytest.FixtureRequest, network: Network) -> Recording:
    version: int = request.param
    before = counters(network)
    with Capture(taps(network.topology, CHAIN)) as capture:
        talk = Conversation(network, PORT, version)
        talk.exchange(200_000)
        (shown,) = network.controller.ctl("chain", "show", f"tcp and src port {talk.local_port}")
        talk.finish()
    return Recording(
        network.topology.spec,
        CHAIN,
        version,
        capture.frames,
        capture.missed,
        proof.grown(before, counters(network)),
        {box: boxes.connections(network.host(box)) for box in ("firewall", "nat")},
        shown,
    )


def problems(claims: list[Claim]) -> list[str]:
    return [problem for claim in claims for problem in claim.problems]


@pytest.mark.parametrize("version", [4, 6])
def test_http_has_the_right_bytes(network: Network, version: int) -> None:
    got = network.fetch(80, version)
    assert (got.status, got.size, got.sha256) == (200, SIZE, network.sha256)


def test_a_session_goes_through_its_chain(recording: Recording) -> None:
    assert problems(chain_claims(recording)) == []


def without_tap(tap: str) -> Callable[[Recording], Recording]:
    return lambda r: replace(r, frames=[f for f in r.frames if f.tap != tap])


def moved(tap: str, to: str) -> Callable[[Recording], Recording]:
    def change(frame: Frame) -> Frame:
        return replace(frame, tap=to) if frame.tap == tap else frame

    return lambda r: replace(r, frames=[*r.frames, *(change(f) for f in r.frames if f.tap == tap)])


def boxes_dropped(recording: Recording) -> Recording:
    counted = {**recording.counted, "firewall": Counters(5, 5, 1)}
    return replace(recording, counted=counted)


def one_way(recording: Recording) -> Recording:
    """Nothing of what the server sent."""
    server = recording.spec.host("server")
    return replace(
        recording,
        frames=[f for f, s in segments(recording.frames) if s.tuple.src != server.ipv4]
        if recording.version == 4
        else [f for f, s in segments(recording.frames) if s.tuple.src != server.ipv6],
    )


def another_order(recording: Recording) -> Recording:
    return replace(recording, chain=("client", "nat", "firewall", "counter", "server"))


@pytest.mark.parametrize(
    ("forged", "problem"),
    [
        (without_tap(host_tap("nat")), "nat: no SYN was captured"),
        (without_tap(network_tap("counter")), "counter: no SYN was captured"),
        (moved(host_tap("client"), network_tap("client")), "which belongs to nothing there"),
        (moved(network_tap("server"), host_tap("server")), "a Dysco header reached a host"),
        (moved(host_tap("counter"), host_tap("server")), "a tag reached an end host"),
        (moved(host_tap("counter"), network_tap("counter")), "a tag in the network"),
        (one_way, "nothing came back"),
        (another_order, "isn't from host to host"),
        (lambda r: replace(r, missed=3), "3 frames passed and were not captured"),
        (boxes_dropped, "firewall dropped 1 packets"),
        (lambda r: replace(r, connections={"nat": []}), "conntrack has no entry"),
        (lambda r: replace(r, shown=None), "doesn't list the session"),
    ],
)
def test_the_proof_can_fail(
    recording: Recording, forged: Callable[[Recording], Recording], problem: str
) -> None:
    found = problems(chain_claims(forged(recording)))
    assert any(problem in line for line in found), found


@pytest.mark.parametrize("version", [4, 6])
def test_the_server_sees_the_nat(network: Network, version: int) -> None:
    assert network.who(80, version) == network.address("nat", version)
    assert network.who(81, version) == network.address("client", version)


def test_many_requests_without_an_error(network: Network) -> None:
    before = network.dropped("firewall")
    url = network.url(80, 4, "who")
    load = traffic.load(network.host("client"), url, seconds=1, connections=8)
    assert load.errors == 0
    assert load.requests > 100
    assert network.dropped("firewall") == before


def test_many_connections_without_an_error(network: Network) -> None:
    """A connection for each request: set-up and end under load."""
    before = network.counted("server", "session_established")
    options = ("--parallel", "--parallel-max", "16", "--no-keepalive", "-H", "Connection: close")
    url = network.url(80, 4, "who?[1-60]")
    argv = ["curl", "--silent", "--fail", "--max-time", "20", *options, url]
    out = network.host("client").run(argv)
    assert out.split() == [network.address("nat")] * 60
    assert network.counted("server", "session_established") >= before + 60
