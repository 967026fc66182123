"""A device over P4Runtime: who is in charge, the program on it, its limits, its neighbours."""

from __future__ import annotations

import shutil
import signal
from pathlib import Path

from lab import (
    CLIENT,
    CLIENT_MAC,
    NETWORK,
    ROUTER_MAC,
    SYN_OPTIONS,
    Lab,
    P4Client,
    ends,
    segment,
)

from dysco.agent.packet import ACK, FIN, RST, SYN, Segment
from dysco.controller import pipeline as program
from dysco.controller.client import Client
from dysco.topo.waiting import wait_until

TO_CLIENT = {"src_mac": ROUTER_MAC, "dst_mac": CLIENT_MAC}
BUILD = Path(program.__file__).parents[2] / "p4src" / "v1model" / "build"


def is_syn(got: Segment) -> bool:
    return got.is_syn


def is_reset(got: Segment) -> bool:
    return bool(got.flags & RST)


def device_of(made: Lab, name: str) -> dict[str, object]:
    (device,) = Client(f"unix:{made.directory}/{name}.sock").get("v1", "devices")
    return dict(device)


def test_two_daemons_and_one_device(bench: Lab) -> None:
    """The higher election id is in charge; the other waits, says so, and takes over."""
    bench.config(name="second")
    first = bench.dyscod("--election-id", "10")
    second = bench.dyscod("--election-id", "5", name="second", ready="is in charge")
    second.wait_for("API at")
    assert "another controller with a higher election id" in second.text()
    shown = device_of(bench, "second")
    assert (shown["ready"], shown["state"]) == (False, "backup")
    assert shown["problem"] == "another controller is in charge"
    said = bench.ctl_of("second", "policy", "add", "--match", "tcp", "--chain", "scrub")
    assert "is in force" in said, "it is kept, and loaded when the device is ours"
    assert bench.ctl_of("second", "session", "list").strip() == "no sessions"

    # One that was started later with the default id, the time, takes over from both.
    bench.config(name="third")
    third = bench.dyscod(name="third")
    first.wait_for("is in charge")
    assert device_of(bench, "dyscod")["state"] == "backup"
    third.stop()
    # Both bid again, and the one that had the higher id wins.
    wait_until(lambda: device_of(bench, "dyscod")["ready"] is True, "the first to be in charge")
    wait_until(lambda: device_of(bench, "second")["state"] == "backup", "the second to wait")
    first.kill()
    wait_until(lambda: device_of(bench, "second")["ready"] is True, "the second to be in charge")
    # The policy that the second was given meanwhile is in force now.
    bench.send(CLIENT, segment(ends(46000), SYN, options=SYN_OPTIONS))
    assert bench.receive(NETWORK, is_syn).payload[:4] == b"DySC"
    assert second.stop() == 0


def small_program(directory: Path, size: int) -> Path:
    """The program with session tables of that size."""
    directory.mkdir()
    for name in (program.P4INFO_NAME, program.JSON_NAME):
        text = (BUILD / name).read_text()
        for old, new in (("size: 131072", f"size: {size}"), (":131072", f":{size}")):
            text = text.replace(old, new)
        assert "131072" not in text
        (directory / name).write_text(text)
    return directory


def test_a_full_table_refuses_one_session_and_harms_no_other(bench: Lab, tmp_path: Path) -> None:
    folder = small_program(tmp_path / "small", 2)
    daemon = bench.dyscod("--pipeline", str(folder))
    bench.ctl("policy", "add", "--match", "dst port 80", "--chain", "scrub")
    bench.ctl("policy", "add", "-m", "dst port 81", "-c", "scrub", "--on-failure", "direct")
    opened = {}
    for sport in (47000, 47001):
        bench.send(CLIENT, segment(ends(sport), SYN, options=SYN_OPTIONS))
        opened[sport] = bench.receive(NETWORK, is_syn).tuple
        answer = segment(opened[sport].reversed, SYN | ACK, 7000, 1001, **TO_CLIENT)
        bench.send(NETWORK, answer)
        bench.session(sport, "established")
    # Refused: a RST. Or direct: the SYN as it came.
    bench.send(CLIENT, segment(ends(47002), SYN, options=SYN_OPTIONS))
    assert bench.receive(CLIENT, is_reset).tuple == ends(47002).reversed
    bench.send(CLIENT, segment(ends(47003, 81), SYN, options=SYN_OPTIONS))
    direct = bench.receive(NETWORK, is_syn)
    assert (direct.tuple, direct.payload) == (ends(47003, 81), b"")
    assert bench.counter("hosts", "client", "install_failed") == 2
    assert bench.counter("hosts", "client", "session_refused") == 1
    assert bench.counter("hosts", "client", "session_direct") == 1
    lines = [x for x in daemon.text().splitlines() if "(install_failed)" in x]
    assert [str(ends(47002)) in lines[0], str(ends(47003, 81)) in lines[1]] == [True, True]
    assert "the device refused its mappings" in lines[0]
    # The two go on, and when one ends there is room for another.
    assert {47000, 47001} == set(bench.sessions())
    bench.send(CLIENT, segment(ends(47000), FIN | ACK, 1001, 7001))
    bench.send(NETWORK, segment(opened[47000].reversed, FIN | ACK, 7001, 1002, **TO_CLIENT))
    bench.gone(47000)
    bench.drain()
    bench.send(CLIENT, segment(ends(47004), SYN, options=SYN_OPTIONS))
    assert bench.receive(NETWORK, is_syn).payload[:4] == b"DySC"


def test_another_program_is_replaced_only_where_it_holds_no_sessions(
    bench: Lab, tmp_path: Path
) -> None:
    other = small_program(tmp_path / "other", 2)
    first = bench.dyscod("--pipeline", str(other))
    assert "pushing the P4 program" in first.text()
    bench.ctl("policy", "add", "--match", "dst port 80", "--chain", "scrub")
    bench.send(CLIENT, segment(ends(48000), SYN, options=SYN_OPTIONS))
    sent = bench.receive(NETWORK, is_syn)
    bench.send(NETWORK, segment(sent.tuple.reversed, SYN | ACK, 7000, 1001, **TO_CLIENT))
    bench.session(48000, "established")
    first.kill()

    second = bench.dyscod(ready="holds sessions")
    second.wait_for("API at")
    assert "start dyscod with --push-pipeline to replace it, which ends them" in second.text()
    assert device_of(bench, "dyscod")["ready"] is False
    assert "holds sessions" in bench.ctl("device", "list")
    second.stop()
    third = bench.dyscod("--push-pipeline")
    assert "pushing the P4 program" in third.text()
    assert bench.sessions() == {}
    third.stop()
    # The same program is left where it is.
    fourth = bench.dyscod()
    assert "pushing" not in fourth.text()
    # Another build of one interface, that is only another JSON, stays while it has sessions.
    bench.drain()
    bench.send(CLIENT, segment(ends(48001), SYN, options=SYN_OPTIONS))
    bench.receive(NETWORK, is_syn)
    fourth.kill()
    rebuilt = tmp_path / "rebuilt"
    shutil.copytree(BUILD, rebuilt)
    json = rebuilt / program.JSON_NAME
    json.write_text(json.read_text() + "\n")
    fifth = bench.dyscod("--pipeline", str(rebuilt))
    assert "runs another build of the program and holds sessions: left as it is" in fifth.text()
    assert set(bench.sessions()) == {48001}


ON_LINK = """
  [[device.route]]
  prefix = "10.0.0.0/16"
  port = 1
  [[device.route]]
  prefix = "::/0"
  port = 1
  via = "fd00:1::fe"
"""


SCRUB = bytes((10, 0, 4, 2))


def is_question(frame: bytes) -> bool:
    return frame[12:14] == b"\x08\x06" and frame[20:22] == b"\0\1" and frame[38:42] == SCRUB


def answer_arp(made: Lab, mac: bytes) -> None:
    """Be 10.0.4.2 with this MAC."""
    asker, address = CLIENT_MAC, bytes((10, 0, 1, 2))
    body = b"\0\1\x08\0\6\4\0\2" + mac + SCRUB + asker + address
    made.send(NETWORK, asker + mac + b"\x08\x06" + body)


def test_hosts_on_the_link_are_asked_for(bench: Lab) -> None:
    """No answer: the session fails with the reason. An answer: a route; also after a restart."""
    bench.config(route=ON_LINK, setup_timeout=6.0)
    daemon = bench.dyscod()
    bench.ctl("policy", "add", "--match", "dst port 80", "--chain", "scrub")
    bench.send(CLIENT, segment(ends(49000), SYN, options=SYN_OPTIONS))
    assert bench.receive(CLIENT, is_reset).tuple == ends(49000).reversed
    why = "10.0.4.2 does not answer ARP or neighbour discovery at port 1"
    assert why in daemon.text()
    assert bench.counter("devices", "nic1", "neighbour_silent") >= 1
    bench.drain()

    def syn_leaves(sport: int, mac: bytes) -> None:
        bench.send(CLIENT, segment(ends(sport), SYN, options=SYN_OPTIONS))
        assert bench.receive(NETWORK, is_syn).dst_mac == mac

    mac = bytes.fromhex("020000000401")

    # A second later its TCP tries again, and so do we.
    def asked() -> bool:
        bench.send(CLIENT, segment(ends(49001), SYN, options=SYN_OPTIONS))
        return bench.receive_frame_now(NETWORK, is_question) is not None

    wait_until(asked, "it to be asked again", every=0.2)
    answer_arp(bench, mac)
    syn_leaves(49001, mac)
    daemon.kill()
    again = bench.dyscod()
    syn_leaves(49002, mac)
    # Adopted routes are asked for again: a new MAC is taken up.
    other = bytes.fromhex("020000000402")
    answer_arp(bench, other)
    wait_until(lambda: _route_mac(bench) == other, "the route to change")
    syn_leaves(49003, other)
    # What nobody asked for is not learned.
    unasked = bench.counter("devices", "nic1", "neighbour_unasked")
    stranger = bytes((10, 0, 4, 9))
    body = b"\0\1\x08\0\6\4\0\2" + other + stranger + CLIENT_MAC + bytes((10, 0, 1, 2))
    bench.send(NETWORK, CLIENT_MAC + other + b"\x08\x06" + body)
    wait_until(
        lambda: bench.counter("devices", "nic1", "neighbour_unasked") > unasked, "it to be counted"
    )
    assert "Traceback" not in again.text()


def _route_mac(made: Lab) -> bytes:
    table = program.load().tables["route_v4"]
    wanted = (int.from_bytes(bytes((10, 0, 4, 2)), "big"), 32)
    rows = [table.row(e) for e in P4Client(made).entries(table.id)]
    (row,) = [r for r in rows if r.key.match == (wanted,)]
    return row.params[1].to_bytes(6, "big")


def test_a_device_that_nobody_serves_is_told_with_its_address(bench: Lab) -> None:
    bench.running[0].kill()
    daemon = bench.dyscod(ready="trying again")
    daemon.wait_for("API at")
    assert f"device nic1 at {bench.device_address}: UNAVAILABLE" in daemon.text()
    text = bench.ctl("device", "list")
    assert "connecting" in text
    assert "UNAVAILABLE" in text
    assert bench.client.get("v1", "policies") == []
    bench.softnic()
    daemon.wait_for("dyscod is ready")
    # The wrong device id is told as what it is.
    daemon.stop()
    bench.device_id = 9
    bench.config()
    wrong = bench.dyscod(ready="trying again")
    assert "NOT_FOUND" in wrong.text()


def test_a_device_that_hangs_is_given_up_and_taken_again(bench: Lab) -> None:
    """Its connection stands, but nothing is answered: a Write's time-out tells."""
    daemon = bench.dyscod()
    bench.ctl("policy", "add", "--match", "dst port 80", "--chain", "scrub")
    device = bench.running[0].process
    device.send_signal(signal.SIGSTOP)
    try:
        bench.ctl("policy", "add", "--match", "dst port 81", "--chain", "scrub", code=6)
        daemon.wait_for("it left a Write without an answer for 5 s")
    finally:
        device.send_signal(signal.SIGCONT)
    daemon.wait_for("device nic1: ready", times=2)
    assert bench.counter("devices", "nic1", "write_timeout") >= 1
    assert len(bench.client.get("v1", "policies")) == 1, "what was refused is nowhere"
    bench.send(CLIENT, segment(ends(49100), SYN, options=SYN_OPTIONS))
    assert bench.receive(NETWORK, is_syn).payload[:4] == b"DySC"
