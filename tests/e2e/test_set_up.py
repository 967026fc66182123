"""Set-up that isn't smooth: SYNs and SYN-ACKs lost at every place, and SYNs with data."""

from __future__ import annotations

import json

import pytest
from chained import Conversation, Network, nft

from dysco.topo.capture import Capture, Kind, segments
from dysco.topo.packets import Flags
from dysco.topo.path import Where, follow, host_tap, taps

CHAIN = ("client", "firewall", "nat", "counter", "server")
PORT = 87
"""As port 80, but without NGINX."""

FIRST_SYN = "tcp flags & (syn | ack) == syn numgen inc mod 2 == 0 drop"
FIRST_SYN_ACK = "tcp flags & (syn | ack) == (syn | ack) numgen inc mod 2 == 0 drop"


@pytest.mark.parametrize(
    ("host", "hook", "rule", "version"),
    [
        ("firewall", "prerouting", FIRST_SYN, 4),
        ("nat", "prerouting", FIRST_SYN, 4),
        ("nat", "prerouting", FIRST_SYN, 6),
        ("nat", "postrouting", FIRST_SYN, 4),
        ("nat", "postrouting", FIRST_SYN, 6),
        ("server", "prerouting", FIRST_SYN, 4),
        ("router", "prerouting", f'iifname "to-nic2" {FIRST_SYN}', 6),
        ("server", "output", FIRST_SYN_ACK, 4),
        ("nat", "prerouting", FIRST_SYN_ACK, 6),
        ("router", "prerouting", f'iifname "to-nic5" {FIRST_SYN_ACK}', 4),
    ],
)
def test_a_handshake_segment_is_lost(
    network: Network, host: str, hook: str, rule: str, version: int
) -> None:
    """The SYN that TCP sends again goes the same way; no tag reaches an end host."""
    namespace = network.topology.routers.get(host) or network.host(host)
    with Capture(taps(network.topology, CHAIN), Kind.CONTROL) as capture:
        with nft(namespace, hook, rule):
            talk = Conversation(network, PORT, version)
        talk.exchange()
        talk.reset()
    for end in ("client", "server"):
        for _, segment in segments(capture.frames, host_tap(end)):
            assert not segment.has_tag
            assert not segment.has_dysco_header
    at_client = [s for _, s in segments(capture.frames, host_tap("client")) if s.is_first]
    at_server = [s for _, s in segments(capture.frames, host_tap("server")) if s.is_first]
    answers = [s for f, s in segments(capture.frames, host_tap("server")) if f.outgoing]
    answers = [s for s in answers if s.flags & Flags.SYN]
    assert len(at_client) + len(answers) > 2, "nothing was lost: the test tests nothing"
    assert len({s.tuple for s in at_client}) == len({s.tuple for s in at_server}) == 1
    ways = {(seen.host, seen.where): seen.tuple for seen in follow(capture.frames, CHAIN)}
    assert None not in ways.values()
    nat = network.topology.spec.host("nat")
    sees = ways["server", Where.GOT]
    assert sees is not None
    assert sees.src == (nat.ipv4 if version == 4 else nat.ipv6)


def test_no_port_is_wasted_on_repetitions(network: Network) -> None:
    """A SYN that comes again keeps its subsessions."""
    with Capture(taps(network.topology, CHAIN), Kind.CONTROL) as capture:
        with nft(network.host("server"), "prerouting", FIRST_SYN):
            talk = Conversation(network, PORT)
        talk.reset()
    for host in CHAIN[:-1]:
        seen = [s for _, s in segments(capture.frames, f"{host}-network") if s.is_first]
        mine = network.topology.spec.host(host).ipv4
        assert len({s.tuple for s in seen if s.tuple.src == mine}) == 1


@pytest.mark.parametrize("version", [4, 6])
def test_fast_open(network: Network, version: int) -> None:
    """The request travels in the SYN, beside the Dysco header, and is answered from it."""
    network.fetch(80, version, path="who", options=("--tcp-fastopen",))  # gets a cookie
    with Capture(taps(network.topology, CHAIN)) as capture:
        network.fetch(80, version, path="who", options=("--tcp-fastopen",))
    answer = (network.directory / "got").read_text().strip()
    assert answer == network.address("nat", version)
    way = {(seen.host, seen.where): seen.syn for seen in follow(capture.frames, CHAIN)}
    sent, got = way["client", Where.SENT], way["server", Where.GOT]
    assert sent is not None
    assert got is not None
    assert sent.payload.startswith(b"GET /who")
    assert got.payload == sent.payload
    for host in CHAIN[:-1]:
        travelled = way[host, Where.LEFT]
        assert travelled is not None
        assert travelled.has_dysco_header
        assert travelled.payload.endswith(sent.payload)
    requests = [
        s for _, s in segments(capture.frames, host_tap("server")) if b"GET /who" in s.payload
    ]
    assert len(requests) == 1, "the data was sent again"


def test_fast_open_data_that_does_not_fit(network: Network) -> None:
    """Data that fills the SYN leaves no room for the header: TCP sends it again by itself."""
    before = network.counted("client", "open_data_dropped")
    options = ("--tcp-fastopen", "-H", "X-Long: " + "x" * 4000)
    network.fetch(80, path="who", options=options)
    got = network.fetch(80, path="who", options=options)
    assert got.status == 200
    assert network.counted("client", "open_data_dropped") > before


def test_all_chains_are_as_the_policy_says(network: Network) -> None:
    """Also of sessions that were set up with losses: no hop twice, none missing."""
    with nft(network.host("nat"), "prerouting", FIRST_SYN):
        talk = Conversation(network, PORT)
    chains = network.controller.ctl("chain", "show", f"tcp and dst port {PORT}", "--limit", "1")
    assert [hop["host"] for hop in chains[0]["hops"]] == list(CHAIN), json.dumps(chains, indent=1)
    talk.reset()
