"""Packet-in to packet-out: sessions through a real device, frame by frame."""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import ip_address
from itertools import count

import pytest
from lab import (
    CLIENT,
    CLIENT_MAC,
    FW,
    FW_MAC,
    KEY,
    NETWORK,
    ROUTER_MAC,
    SYN_OPTIONS,
    Lab,
    ends,
    lab,
    segment,
)

from dysco.agent.header import Header, decode
from dysco.agent.model import FiveTuple
from dysco.agent.options import take_tag
from dysco.agent.packet import ACK, FIN, RST, SYN, Segment
from dysco.agent.trust import TAG_SIZE, Nonce, TrustGroup

NONCES = count(1)
GROUP = TrustGroup("lab", KEY)


@pytest.fixture(scope="module")
def running(caged: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    with lab(tmp_path_factory.mktemp("sessions")) as made:
        made.softnic()
        made.config()
        made.dyscod()
        made.ctl("policy", "add", "--match", "dst port 80", "--chain", "scrub", "--name", "web")
        made.ctl("policy", "add", "--match", "dst port 81", "--chain", "fw", "--name", "local")
        yield made


@pytest.fixture(autouse=True)
def clean(running: Lab) -> None:
    running.drain()


def is_syn(got: Segment) -> bool:
    return got.is_syn


def header_of(syn: Segment) -> Header:
    header, length = decode(syn.payload)
    signed = length - TAG_SIZE
    assert GROUP.verify(
        syn.payload[:signed], syn.seq, syn.payload[length:], syn.payload[signed:length]
    )
    return header


def dysco_syn(
    session: FiveTuple, *, number: int, subsession: FiveTuple, chain: tuple[str, ...] = ()
) -> Segment:
    """A SYN as another host's agent sends it."""
    header = Header(
        GROUP.id,
        0xABC0000000000 + number,
        5,
        1,
        True,
        Nonce(1, next(NONCES)),
        session,
        session,
        subsession,
        tuple(map(ip_address, chain)),
    ).encode()
    payload = header + GROUP.sign(header, 1000, b"")
    return segment(
        subsession, SYN, options=SYN_OPTIONS, payload=payload, src_mac=ROUTER_MAC, dst_mac=FW_MAC
    )


@pytest.mark.parametrize(("src", "dst"), [("10.0.1.2", "10.0.5.2"), ("fd00:1::2", "fd00:5::2")])
def test_a_session_opens_carries_and_closes(running: Lab, src: str, dst: str) -> None:
    port = 41000 if ":" in src else 41001
    session = ends(port, src=src, dst=dst)
    running.send(CLIENT, segment(session, SYN, options=SYN_OPTIONS))
    syn = running.receive(NETWORK, is_syn)
    header = header_of(syn)
    assert header.session == header.delivered == session
    assert header.subsession == syn.tuple
    assert (syn.tuple.src, syn.dst_mac) == (session.src, ROUTER_MAC)
    assert str(syn.tuple.dst) == ("fd00:4::2" if ":" in src else "10.0.4.2")
    assert header.chain == ()
    # The answer comes back along the subsession, the host sees its session.
    back = {"src_mac": ROUTER_MAC, "dst_mac": CLIENT_MAC}
    running.send(NETWORK, segment(syn.tuple.reversed, SYN | ACK, 7000, 1001, **back))
    answer = running.receive(CLIENT, lambda s: bool(s.flags & SYN))
    assert answer.tuple == session.reversed
    assert answer.dst_mac == CLIENT_MAC
    running.send(CLIENT, segment(session, ACK, 1001, 7001, payload=b"hello"))
    data = running.receive(NETWORK, lambda s: s.payload == b"hello")
    assert data.tuple == syn.tuple
    found = running.session(port, "established")
    (hop,) = running.client.get("v1", "sessions", found["id"])["hops"]
    assert hop["next"]["sent"]["packets"] >= 1
    assert hop["next"]["received"] == {"packets": 1, "bytes": len(answer.build().ljust(60))}
    # FINs both ways end it, and the device is empty again.
    running.send(CLIENT, segment(session, FIN | ACK, 1006, 7001))
    running.receive(NETWORK, lambda s: bool(s.flags & FIN))
    running.send(NETWORK, segment(syn.tuple.reversed, FIN | ACK, 7001, 1007, **back))
    running.receive(CLIENT, lambda s: bool(s.flags & FIN))
    running.gone(port)
    assert running.client.get("v1", "devices", "nic1")["entries"] == len(running.sessions()) * 2


def test_a_middlebox_gets_the_session_and_sends_it_on(running: Lab) -> None:
    session = ends(41010, src="10.0.9.9")
    came = ends(61500, 61600, "10.0.9.1", "10.0.1.3")
    running.send(NETWORK, dysco_syn(session, number=10, subsession=came))
    delivered = running.receive(FW, is_syn)
    options, tag = take_tag(delivered.options)
    assert delivered.tuple == session
    assert (options, delivered.payload) == (SYN_OPTIONS, b"")
    assert tag is not None
    assert delivered.dst_mac == FW_MAC
    # As a NAT sends it on, with the tag: still known, and the tag stays on its link.
    masked = ends(50000, src="10.0.1.3")
    running.send(FW, segment(masked, SYN, options=delivered.options, src_mac=FW_MAC))
    sent = running.receive(NETWORK, is_syn)
    header = header_of(sent)
    assert (header.session, header.delivered) == (session, masked)
    assert header.session_id == 0xABC000000000A
    assert (sent.options, take_tag(sent.options)[1]) == (SYN_OPTIONS, None)
    chain = running.client.get("v1", "chains", f"{header.session_id:013x}")
    assert chain["complete"] is False
    assert chain["hops"][0]["host_sent"]["sport"] == 50000
    # A RST from the far end comes back as the middlebox's own connection's.
    refused = segment(sent.tuple.reversed, RST | ACK, 0, 1001, src_mac=ROUTER_MAC, dst_mac=FW_MAC)
    running.send(NETWORK, refused)
    assert running.receive(FW, lambda s: bool(s.flags & RST)).tuple == masked.reversed
    running.send(FW, segment(session.reversed, RST | ACK, 0, 1001, src_mac=FW_MAC))
    assert running.receive(NETWORK, lambda s: bool(s.flags & RST)).tuple == came.reversed
    running.gone(41010)


def test_two_hosts_of_one_device_in_one_chain(running: Lab) -> None:
    session = ends(41020, 81)
    running.send(CLIENT, segment(session, SYN, options=SYN_OPTIONS))
    delivered = running.receive(FW, is_syn)
    assert delivered.tuple == session
    running.send(FW, segment(session, SYN, options=delivered.options, src_mac=FW_MAC))
    sent = running.receive(NETWORK, is_syn)
    back = segment(sent.tuple.reversed, SYN | ACK, 7000, 1001, src_mac=ROUTER_MAC, dst_mac=FW_MAC)
    running.send(NETWORK, back)
    assert running.receive(FW, lambda s: bool(s.flags & SYN)).tuple == session.reversed
    running.send(FW, segment(session.reversed, SYN | ACK, 7000, 1001, src_mac=FW_MAC))
    assert running.receive(CLIENT, lambda s: bool(s.flags & SYN)).tuple == session.reversed
    found = running.session(41020, "established")
    assert found["hosts"] == ["client", "fw"]
    running.ctl("session", "close", str(found["id"]))
    running.gone(41020)


def test_a_syn_again_goes_the_same_way(running: Lab) -> None:
    session = ends(41030)
    syns = []
    for _ in range(3):
        running.send(CLIENT, segment(session, SYN, options=SYN_OPTIONS))
        syns.append(running.receive(NETWORK, is_syn))
    assert len({syn.tuple for syn in syns}) == 1
    assert len({header_of(syn).session_id for syn in syns}) == 1
    assert len({header_of(syn).nonce for syn in syns}) == 3, "or the second would be a replay"
    running.gone(41030)


def test_nobody_answers(running: Lab) -> None:
    before = running.counter("hosts", "client", "setup_timeout")
    session = ends(41040)
    running.send(CLIENT, segment(session, SYN, options=SYN_OPTIONS))
    syn = running.receive(NETWORK, is_syn)
    reset = running.receive(CLIENT, lambda s: bool(s.flags & RST))
    assert (reset.tuple, reset.ack) == (session.reversed, 1001)
    # The SYN is taken back, so that who got it does not stay half open.
    assert running.receive(NETWORK, lambda s: bool(s.flags & RST)).tuple == syn.tuple
    running.gone(41040)
    assert running.counter("hosts", "client", "setup_timeout") == before + 1
    log = running.running[1].text()
    (line,) = [x for x in log.splitlines() if "(setup_timeout)" in x and ":41040" in x]
    assert f"session {header_of(syn).session_id:013x} ({session})" in line
    assert "is 10.0.4.2 up?" in line


def test_a_middlebox_that_swallows_a_syn(running: Lab) -> None:
    session = ends(41050, src="10.0.9.9")
    came = ends(61501, 61601, "10.0.9.1", "10.0.1.3")
    running.send(NETWORK, dysco_syn(session, number=50, subsession=came))
    running.receive(FW, is_syn)
    running.counted("fw", "pending_timeout")
    running.gone(41050)


@pytest.mark.parametrize(
    ("fault", "counter"),
    [
        ("forged", "header_forged"),
        ("magic only", "header_malformed"),
        ("cut", "header_malformed"),
        ("version", "header_wrong_version"),
        ("group", "header_unknown_group"),
        ("replayed", "header_replayed"),
        ("misdirected", "header_misdirected"),
    ],
)
def test_a_bad_header_is_counted_told_and_never_delivered(
    running: Lab, fault: str, counter: str
) -> None:
    number = 100 + len(fault)
    session = ends(41100 + number, src="10.0.9.9")
    came = ends(61000 + number, 61700, "10.0.9.1", "10.0.1.3")
    syn = dysco_syn(session, number=number, subsession=came)
    match fault:
        case "forged":
            syn.payload = syn.payload[:-1] + bytes((syn.payload[-1] ^ 1,))
        case "magic only":
            syn.payload = syn.payload[:4] + bytes(96)
            counter = "header_wrong_version"
        case "cut":
            syn.payload = syn.payload[:79]
        case "version":
            syn.payload = syn.payload[:4] + b"\x02" + syn.payload[5:]
        case "group":
            syn.payload = syn.payload[:8] + b"\0\0\0\0" + syn.payload[12:]
        case "misdirected":
            other = ends(came.sport, came.dport, "10.0.9.1", "10.0.7.7")
            syn.payload = dysco_syn(session, number=number, subsession=other).payload
        case "replayed":
            running.send(NETWORK, syn)
            running.receive(FW, is_syn)
    before = running.counter("hosts", "fw", counter)
    running.send(NETWORK, syn)
    running.counted("fw", counter, before + 1)
    running.silent(FW, lambda s: True)
    (*_, line) = [x for x in running.running[1].text().splitlines() if f"({counter})" in x]
    assert f"header in {came} from port 1" in line
    # It did no harm: the next one is served.
    good = ends(41500 + number, src="10.0.9.9")
    its = ends(61000 + number, 61701, "10.0.9.1", "10.0.1.3")
    running.send(NETWORK, dysco_syn(good, number=number + 500, subsession=its))
    assert running.receive(FW, is_syn).tuple == good


def test_a_network_nat_is_revealed(running: Lab) -> None:
    session = ends(41060, src="10.0.9.9")
    came = ends(61502, 61602, "10.0.9.1", "10.0.1.3")
    syn = dysco_syn(session, number=60, subsession=came)
    syn.tuple = ends(1234, 61602, "10.0.8.8", "10.0.1.3")
    running.send(NETWORK, syn)
    running.receive(FW, is_syn)
    assert running.counter("hosts", "fw", "network_nat") == 1
    # Answers go back to where it came from.
    running.send(FW, segment(session.reversed, SYN | ACK, 7000, 1001, src_mac=FW_MAC))
    assert running.receive(NETWORK, lambda s: bool(s.flags & SYN)).tuple == syn.tuple.reversed
