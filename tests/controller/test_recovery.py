"""Restarts of the daemon and of the device: what goes on, what comes back, what is cleaned up."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address

from finsy.proto import p4r
from lab import (
    CLIENT,
    CLIENT_MAC,
    FW,
    FW_MAC,
    NETWORK,
    ROUTER_MAC,
    SYN_OPTIONS,
    Lab,
    P4Client,
    ends,
    segment,
)

from dysco.agent.model import FiveTuple, Mapping, MappingKey, Side
from dysco.agent.packet import ACK, FIN, SYN, Segment
from dysco.controller.mappings import MappingCodec
from dysco.controller.pipeline import load

TO_CLIENT = {"src_mac": ROUTER_MAC, "dst_mac": CLIENT_MAC}


def is_syn(got: Segment) -> bool:
    return got.is_syn


def send_syn(made: Lab, sport: int, dport: int = 80) -> Segment:
    """A client's SYN; as it left to the network."""
    made.send(CLIENT, segment(ends(sport, dport), SYN, options=SYN_OPTIONS))
    return made.receive(NETWORK, lambda s: s.is_syn and s.tuple.dst == ip_address("10.0.4.2"))


def establish(made: Lab, sport: int) -> FiveTuple:
    """A session of the client's; its subsession."""
    sent = send_syn(made, sport).tuple
    made.send(NETWORK, segment(sent.reversed, SYN | ACK, 7000, 1001, **TO_CLIENT))
    made.receive(CLIENT, lambda s: s.tuple.dport == sport and bool(s.flags & SYN))
    made.send(CLIENT, segment(ends(sport), ACK, 1001, 7001))
    made.receive(NETWORK, lambda s: s.tuple == sent and not s.flags & SYN)
    made.session(sport, "established")
    return sent


def carries(made: Lab, sport: int, subsession: FiveTuple) -> None:
    text = f"{sport} goes on".encode()
    made.send(CLIENT, segment(ends(sport), ACK, 1001, 7001, payload=text))
    assert made.receive(NETWORK, lambda s: s.payload == text).tuple == subsession
    made.send(NETWORK, segment(subsession.reversed, ACK, 7001, 1001, payload=text, **TO_CLIENT))
    assert made.receive(CLIENT, lambda s: s.payload == text).tuple == ends(sport).reversed


def finish(made: Lab, sport: int, subsession: FiveTuple) -> None:
    made.send(CLIENT, segment(ends(sport), FIN | ACK, 1001, 7001))
    made.send(NETWORK, segment(subsession.reversed, FIN | ACK, 7001, 1002, **TO_CLIENT))
    made.gone(sport)


def test_sessions_outlive_kill_9_of_the_daemon(bench: Lab) -> None:
    bench.config(pending_timeout=30.0, setup_timeout=5.0)
    first = bench.dyscod()
    bench.ctl("policy", "add", "--match", "dst port 80", "--chain", "scrub", "--name", "web")
    bench.ctl("policy", "add", "--match", "dst port 81", "--chain", "fw,scrub", "--name", "two")
    opened = {sport: establish(bench, sport) for sport in (42000, 42001)}
    ids = {sport: bench.sessions()[sport]["id"] for sport in opened}
    # One whose SYN the middlebox has not sent on yet, one whose SYN-ACK is yet to come.
    bench.send(CLIENT, segment(ends(42002, 81), SYN, options=SYN_OPTIONS))
    delivered = bench.receive(FW, is_syn)
    waiting = send_syn(bench, 42003)
    first.kill()

    for sport, subsession in opened.items():
        carries(bench, sport, subsession)
    second = bench.dyscod()
    listed = bench.sessions()
    assert {sport: listed[sport]["id"] for sport in opened} == ids
    assert {s: listed[s]["state"] for s in listed} == {
        42000: "established",
        42001: "established",
        42002: "sent",
        42003: "sent",
    }
    assert all(hop["recovered"] for s in listed.values() for hop in s["hops"])
    assert listed[42002]["hosts"] == ["client", "fw", "scrub"]
    assert bench.client.get("v1", "policies")[0]["name"] == "web", "policies are kept too"

    # The set-ups go on where they were: the middlebox sends on, the answer comes.
    bench.send(FW, segment(ends(42002, 81), SYN, options=delivered.options, src_mac=FW_MAC))
    assert bench.receive(NETWORK, is_syn).tuple.src == ip_address("10.0.1.3")
    bench.send(NETWORK, segment(waiting.tuple.reversed, SYN | ACK, 7000, 1001, **TO_CLIENT))
    assert bench.receive(CLIENT, lambda s: bool(s.flags & SYN)).tuple == ends(42003).reversed
    bench.session(42003, "established")
    # New ones start; none of their ports is one in use.
    fresh = establish(bench, 42004)
    assert fresh not in opened.values()
    for sport, subsession in {**opened, 42003: waiting.tuple, 42004: fresh}.items():
        finish(bench, sport, subsession)
    bench.gone(42002)
    assert bench.client.get("v1", "devices", "nic1")["entries"] == 0
    assert second.stop() == 0
    assert "stopped; sessions go on in the devices" in second.text()


def test_entries_that_nobody_can_explain(bench: Lab) -> None:
    """Of no host of ours, of another version, of set-ups cut short: each has its outcome."""
    daemon = bench.dyscod()
    bench.ctl("policy", "add", "--match", "dst port 80", "--chain", "scrub")
    kept, halved = establish(bench, 43000), establish(bench, 43001)
    orphan = establish(bench, 43002)
    daemon.kill()
    codec = MappingCodec(load())

    def mapping(host: int, sport: int, metadata: bytes) -> Mapping:
        mapped = ends(64000, sport, "10.0.1.2", "10.0.4.2")
        return Mapping(MappingKey(Side.OUTBOUND, host, ends(sport)), mapped, metadata, 0.0)

    with P4Client(bench) as other:
        held = [m for e in other.entries(*codec.table_ids) if (m := codec.mapping(e))]
        assert len(held) == 6
        client = held[0].key.host
        stranger = mapping(client ^ 1, 43003, b"")
        newer = mapping(client, 43004, b"\xff of another version")
        other.write(p4r.Update.INSERT, codec.entry(stranger), codec.entry(newer))
        inbound = next(m for m in held if m.key.tuple == halved.reversed)
        outbound = next(m for m in held if m.mapped == orphan)
        other.write(p4r.Update.DELETE, codec.key_entry(inbound.key))
        other.write(p4r.Update.DELETE, codec.key_entry(outbound.key))

    again = bench.dyscod()
    assert set(bench.sessions()) == {43000, 43001}
    assert "1 session entries belong to no host of the configuration: taken out" in again.text()
    assert "1 mappings are not this version's and stay until they idle out" in again.text()
    assert str(newer.key.tuple) in again.text()
    assert bench.counter("hosts", "client", "metadata_unknown") == 1
    assert bench.counter("hosts", "client", "mapping_orphaned") == 1
    assert bench.counter("hosts", "client", "session_recovered") == 2
    # What was half there is whole again, what was there stays.
    carries(bench, 43000, kept)
    carries(bench, 43001, halved)
    again.kill()
    with P4Client(bench, 2**63 + 10_000) as other:
        left = {m for e in other.entries(*codec.table_ids) if (m := codec.mapping(e))}
    keys = {m.key for m in left}
    assert newer in {replace(m) for m in left}
    assert stranger.key not in keys
    assert orphan.reversed not in {key.tuple for key in keys}
    assert len(left) == 5


def test_a_device_that_goes_away_and_comes_back(bench: Lab) -> None:
    daemon = bench.dyscod()
    bench.ctl("policy", "add", "--match", "dst port 80", "--chain", "scrub", "--name", "web")
    establish(bench, 44000)
    device = bench.running[0]
    device.kill()
    daemon.wait_for("trying again")
    (shown,) = bench.client.get("v1", "devices")
    assert (shown["ready"], shown["state"]) == (False, "connecting")
    assert shown["problem"]
    bench.ctl("policy", "list")
    text = bench.ctl("session", "show", "0000000000001", code=4)
    assert "there is no session" in text
    # Policies may be changed meanwhile: they come to the device when it is there.
    bench.ctl("policy", "add", "--match", "dst port 82", "--chain", "scrub", "--name", "late")
    bench.ctl("policy", "remove", "web")
    bench.softnic()
    daemon.wait_for("device nic1: ready", times=2)
    # The device is empty: the session is gone with it, and is not listed as if it were not.
    assert bench.sessions() == {}
    assert bench.client.get("v1", "devices", "nic1")["problem"] == ""
    bench.drain()
    assert send_syn(bench, 44001, 82)
    bench.send(CLIENT, segment(ends(44002, 80), SYN, options=SYN_OPTIONS))
    assert bench.receive(NETWORK, is_syn).tuple == ends(44002, 80), "no policy any more"
    # One line for the whole outage, not one for every attempt.
    assert daemon.text().count("trying again") <= 3


def test_idle_sessions_are_released(bench: Lab) -> None:
    bench.config(idle_timeout=0.6)
    daemon = bench.dyscod()
    bench.ctl("policy", "add", "--match", "dst port 80", "--chain", "scrub")
    establish(bench, 45000)
    bench.gone(45000)
    assert bench.counter("hosts", "client", "session_idle") == 1
    assert bench.client.get("v1", "devices", "nic1")["entries"] == 0
    assert "Traceback" not in daemon.text()


def test_silence_that_another_controller_was_told_of(bench: Lab) -> None:
    """A device tells of an idle entry once; the next daemon sees by itself what is overdue."""
    bench.config(idle_timeout=0.6)
    first = bench.dyscod()
    bench.ctl("policy", "add", "--match", "dst port 80", "--chain", "scrub")
    establish(bench, 45050)
    first.kill()
    with P4Client(bench) as other:
        told = 0
        while told < 2:  # both entries of the session
            told += len(other.told().idle_timeout_notification.table_entry)
    bench.dyscod()
    bench.gone(45050)
    assert bench.counter("hosts", "client", "session_idle") == 1
    assert bench.client.get("v1", "devices", "nic1")["entries"] == 0


def test_an_answer_while_no_daemon_was_there(bench: Lab) -> None:
    """Nobody saw the SYN-ACK, but its entries did: the session is not taken for a dead one."""
    first = bench.dyscod()
    bench.ctl("policy", "add", "--match", "dst port 80", "--chain", "scrub")
    answered, silent = send_syn(bench, 45100).tuple, send_syn(bench, 45101).tuple
    first.kill()
    bench.send(NETWORK, segment(answered.reversed, SYN | ACK, 7000, 1001, **TO_CLIENT))
    assert bench.receive(CLIENT, lambda s: bool(s.flags & SYN)).tuple == ends(45100).reversed
    bench.send(CLIENT, segment(ends(45100), ACK, 1001, 7001))
    bench.receive(NETWORK, lambda s: s.tuple == answered)
    again = bench.dyscod()
    assert bench.sessions()[45100]["state"] == "established", "at once"
    assert bench.sessions()[45101]["state"] == "sent"
    assert bench.counter("hosts", "client", "answer_missed") == 1
    assert f"({ends(45100)}): its SYN-ACK passed unseen; it goes on" in again.text()
    bench.gone(45101)
    assert bench.counter("hosts", "client", "setup_timeout") == 1
    carries(bench, 45100, answered)
    finish(bench, 45100, answered)
    assert silent != answered
