"""Policies, headers and hosts that are wrong: a defined outcome, a counter, a line in the log."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
from chained import Conversation, Network, connect, raw_socket

from dysco.agent.packet import Segment, parse
from dysco.topo.capture import Capture, Frame, Kind, segments
from dysco.topo.path import host_tap, network_tap, taps
from dysco.topo.process import ProcessError
from dysco.topo.waiting import wait_until

REFUSED = r"session [0-9a-f]{13} \(10\.0\.1\.2:\d+ > 10\.0\.5\.2:{port}\): {why}.*\({counter}\)"


def logged(network: Network, port: int, why: str, counter: str) -> bool:
    """True if a line of the log names the session, the reason and the counter."""
    pattern = REFUSED.replace("{port}", str(port)).replace("{why}", why)
    return re.search(pattern.replace("{counter}", counter), network.log()) is not None


# The chain's host is down


def test_a_host_that_is_down_and_a_strict_policy(network: Network) -> None:
    """The client gets a RST when the set-up's time is over."""
    before = network.counted("client", "setup_timeout")
    with pytest.raises(ConnectionRefusedError):
        connect(network, 82)
    assert network.counted("client", "setup_timeout") == before + 1
    assert logged(network, 82, "no SYN-ACK within", "setup_timeout")
    assert network.works(80)


def test_a_host_that_is_down_and_a_lenient_policy(network: Network) -> None:
    """The session goes directly when the set-up's time is over."""
    before = network.counted("client", "session_direct")
    got = network.fetch(83, path="who")
    assert got.status == 200
    assert (network.directory / "got").read_text().strip() == network.address("client")
    assert network.counted("client", "session_direct") == before + 1
    assert logged(network, 83, "no SYN-ACK within", "setup_timeout")


# Policies that can't be


@pytest.mark.parametrize(
    ("chain", "why"),
    [
        (("firewall", "nosuchhost"), "'nosuchhost' is no host, no address and no kind"),
        (("firewall", "10.9.9.9"), "10.9.9.9 is no address of a host"),
        (("firewall", "nat", "firewall"), "firewall comes twice, which is a loop"),
        (("client",), "client is an end host"),
    ],
)
def test_a_policy_is_refused(network: Network, chain: tuple[str, ...], why: str) -> None:
    policies = network.controller.ctl("policy", "list")
    with pytest.raises(ProcessError, match=f"(?s)status 5.*{why}"):
        network.controller.add_policy("tcp and dst port 99", chain)
    assert network.controller.ctl("policy", "list") == policies


def test_a_chain_that_comes_back_to_a_host(network: Network) -> None:
    """A kind that is named twice, with one host of the kind: found when the session starts."""
    before = network.counted("client", "policy_loop")
    with pytest.raises(ConnectionRefusedError):
        connect(network, 84)
    assert network.counted("client", "policy_loop") == before + 1
    assert logged(network, 84, "the chain names 'spare' twice", "policy_loop")
    assert network.works(85), "a lenient policy lets the session go directly"
    assert network.counted("client", "policy_loop") == before + 2


def test_a_chain_that_names_the_client_itself(network: Network) -> None:
    """A middlebox that starts a session whose chain it is in."""
    before = network.counted("firewall", "policy_loop")
    with pytest.raises(ConnectionRefusedError):
        connect(network, 86, client="firewall")
    assert network.counted("firewall", "policy_loop") == before + 1
    assert "where the session starts" in network.log()


# Headers that are not what they should be


@pytest.fixture(scope="module")
def dysco_syn(network: Network) -> Segment:
    """A SYN with its header, as it came to the firewall's device."""
    with Capture(taps(network.topology, ("firewall",)), Kind.CONTROL) as capture:
        assert network.works(80)
    frames = (
        frame.data
        for frame, segment in segments(capture.frames, network_tap("firewall"))
        if segment.has_dysco_header and frame.outgoing
    )
    return parse(next(frames))


def flipped(payload: bytes, at: int) -> bytes:
    return payload[:at] + bytes([payload[at] ^ 1]) + payload[at + 1 :]


@pytest.mark.parametrize(
    ("payload", "counter"),
    [
        (lambda p: p, "header_replayed"),
        (lambda p: flipped(p, 20), "header_forged"),
        (lambda p: flipped(p, len(p) - 1), "header_forged"),
        (lambda p: flipped(p, 4), "header_wrong_version"),
        (lambda p: flipped(p, 8), "header_unknown_group"),
        (lambda p: p[:60], "header_malformed"),
        (lambda p: p + b"x", "header_forged"),
        (lambda p: p[:6] + b"\xff\xff" + p[8:], "header_malformed"),
        (lambda p: b"DySC" + bytes(100), "header_"),
    ],
)
def test_a_forged_header(
    network: Network, dysco_syn: Segment, payload: Callable[[bytes], bytes], counter: str
) -> None:
    """Sent by the host without an agent: counted, told, and never delivered."""
    forged = dysco_syn.copy()
    forged.payload = payload(dysco_syn.payload)
    bystander = network.host("bystander")
    gateway = network.topology.spec.host("bystander").gateways[0]
    connect(network, 8080, client="bystander")  # so that the gateway's MAC is known
    mac = bystander.run(["ip", "neigh", "show", gateway]).split("lladdr ")[1].split()[0]
    forged.dst_mac = bytes.fromhex(mac.replace(":", ""))
    forged.src_mac = bytes.fromhex(network.topology.spec.host("bystander").mac.replace(":", ""))
    before = header_counts(network)
    with Capture(taps(network.topology, ("firewall",))) as capture:
        with raw_socket(bystander) as raw:
            raw.send(forged.build())
        wait_header_counted(network, before, counter)
        assert network.works(80), "another session suffers"
    assert [f for f in capture.frames if is_same(f, forged, host_tap("firewall"))] == []
    sent = [f for f in capture.frames if is_same(f, forged, network_tap("firewall"))]
    assert len(sent) == 1, "it didn't even come to the device"
    assert re.search(rf"header in {re.escape(str(forged.tuple))} from port 1: ", network.log())


def is_same(frame: Frame, syn: Segment, tap: str) -> bool:
    """True if a frame at `tap` is that SYN, with or without its header."""
    found = frame.packet.transport
    return frame.tap == tap and getattr(found, "sequence", None) == syn.seq


def header_counts(network: Network) -> dict[str, int]:
    with network.controller.api() as client:
        found = client.get("v1", "counters")["hosts"]["firewall"]
    return {name: count for name, count in found.items() if name.startswith("header_")}


def wait_header_counted(network: Network, before: dict[str, int], counter: str) -> None:
    """Until exactly that counter went up by one."""

    def changed() -> bool:
        now = header_counts(network)
        grown = {n: c - before.get(n, 0) for n, c in now.items() if c != before.get(n, 0)}
        assert all(name.startswith(counter) for name in grown), grown
        return sum(grown.values()) == 1

    wait_until(changed, f"{counter} to be counted", every=0.1)


def test_a_payload_without_the_magic_is_not_dysco(network: Network) -> None:
    """A SYN with data of its own to a port without a policy goes as it came."""
    network.fetch(8080, path="who", options=("--tcp-fastopen",))
    with Capture(taps(network.topology, ("client", "server"))) as capture:
        network.fetch(8080, path="who", options=("--tcp-fastopen",))
    syns = [s for _, s in segments(capture.frames, host_tap("server")) if s.is_first]
    assert [s.payload.startswith(b"GET /who") for s in syns] == [True]


def test_everything_went_on(network: Network) -> None:
    talk = Conversation(network, 88)
    talk.exchange()
    talk.finish()
    assert network.controller.process.running
    assert "please report this" not in network.log()
