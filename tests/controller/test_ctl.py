"""`dysco-ctl` as people and scripts use it: what it says, where, and with which status."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from lab import BIN, CLIENT, NETWORK, SYN_OPTIONS, Lab, ends, lab, segment

from dysco.agent.packet import SYN


@pytest.fixture(scope="module")
def running(caged: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    with lab(tmp_path_factory.mktemp("ctl")) as made:
        made.softnic()
        made.config(setup_timeout=30.0)
        made.dyscod()
        yield made


def run(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [BIN / "dysco-ctl", *words],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
        env={**os.environ, **environment},
    )


def test_policies(running: Lab) -> None:
    assert running.ctl("policy", "list").startswith("no policies; add one with: dysco-ctl policy")
    match = "tcp and dst port 80 and src net 10.0.0.0/8"
    said = running.ctl("policy", "add", "--match", match, "--chain", "fw, scrub", "--name", "web")
    assert said == "policy web (id 1) is in force\n"
    running.ctl("policy", "add", "-m", "dst port 22", "--direct", "--priority", "200")
    running.ctl("policy", "add", "-m", "dst port 81", "-c", "", "--host", "client")
    lines = running.ctl("policy", "list").splitlines()
    assert lines[0].split() == [
        "ID",
        "NAME",
        "PRIORITY",
        "MATCH",
        "CHAIN",
        "HOST",
        "ON",
        "FAILURE",
        "SESSIONS",
    ]
    assert [line.split()[1] for line in lines[1:]] == ["policy2", "web", "policy3"]
    assert "(untouched)" in lines[1]
    assert f"{match}  fw, scrub" in lines[2]
    assert "(tracked, direct)" in lines[3]
    assert all(line == line.rstrip() for line in lines)
    listed = json.loads(running.ctl("policy", "list", "-o", "json"))
    assert listed[1]["chain"] == ["fw", "scrub"]
    # One that isn't there keeps none of the others.
    said = running.ctl("policy", "remove", "web", "nix", "3", code=4)
    assert "policy web (id 1) is removed\npolicy policy3 (id 3) is removed\n" in said
    assert "dysco-ctl: no policy has the name or id 'nix'; there are: policy2" in said
    assert json.loads(running.ctl("-o", "json", "policy", "remove", "2"))[0]["id"] == 2


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["policy", "add", "-m", "udp port 53", "-c", "fw"], 5, "TCP sessions only\n  udp port 53"),
        (["policy", "add", "-m", "port 80 443", "-c", "fw"], 5, "          ^"),
        (["policy", "add", "-m", "tcp", "-c", "nix"], 5, "hosts: client, fw, scrub, server"),
        (["policy", "add", "-m", "tcp", "-c", "server"], 5, "an end host, not a middlebox"),
        (["policy", "add", "-m", "tcp", "-c", "fw,fw"], 5, "comes twice, which is a loop"),
        (["policy", "add", "-m", "tcp", "-c", "fw", "--host", "fw"], 5, "where the sessions start"),
        (["policy", "add", "-m", "tcp", "-c", "fw,,scrub"], 2, "--chain has an empty element"),
        (["policy", "add", "-m", "tcp", "-c", "fw", "--priority", "-1"], 2, "0<=x<=32767"),
        (["policy", "add", "-m", "tcp"], 2, "give either --chain or --direct"),
        (["policy", "add", "-m", "tcp", "-c", "fw", "--direct"], 2, "give either"),
        (["policy", "add", "-c", "fw"], 2, "Missing option '--match'"),
        (["policy", "remove", "nix"], 4, "there are: none"),
        (["session", "show", "nix"], 4, "'nix' is no session id: 13 hex digits"),
        (["session", "show", "12ab"], 4, "'12ab' is no session id: 13 hex digits"),
        (["session", "show", "1234567890abc"], 4, "there is no session 1234567890abc"),
        (["session", "list", "--match", "udp"], 5, "TCP sessions only"),
        (["session", "list", "--host", "nix"], 4, "there are: client, fw"),
        (["session", "list", "--state", "dead"], 2, "'dead' is not one of"),
        (["chain", "show", "1234567890abc"], 4, "there is no session"),
        (["reconfigure"], 2, "exactly one of --delete, --insert, --replace and"),
        (["reconfigure", "-m", "tcp", "-d", "fw", "-r", "fw=x"], 2, "give exactly one of"),
        (["reconfigure", "-m", "tcp", "-i", "fw"], 2, "--insert and --after go together"),
        (["reconfigure", "-d", "fw"], 2, "either their ids, or --match"),
        (["reconfigure", "1234567890abc", "-m", "tcp", "-d", "fw"], 2, "either their ids, or"),
        (["reconfigure", "1234567890abc", "-r", "fw"], 2, "write --replace OLD=NEW"),
        (["reconfigure", "1234567890abc", "--move", "=s"], 2, "write --move OLD=NEW"),
        (["reconfigure", "1234567890abc", "--move", "s=t", "-d", "fw"], 2, "give exactly one of"),
        (["reconfigure", "-m", "tcp", "-d", "fw", "--migrate-state"], 2, "goes with --replace"),
        (["reconfigure", "--cancel", "1234567890abc", "--move", "s=t"], 2, "ids alone"),
        (["reconfigure", "1234567890abc", "-d", "fw"], 4, "there is no session 1234567890abc"),
        (["reconfigure", "--cancel"], 2, "say which sessions to cancel"),
        (["reconfigure", "--cancel", "1234567890abc", "-d", "fw"], 2, "with sessions' ids alone"),
        (["reconfigure", "--cancel", "1234567890abc"], 4, "of session 1234567890abc is under way"),
        (["reconfigure", "-m", "tcp", "-d", "fw", "--timeout", "-1"], 2, "x>=0"),
        (["nothing"], 2, "No such command 'nothing'"),
        (["-o", "yaml", "device", "list"], 2, "'yaml' is not one of"),
    ],
)
def test_what_goes_wrong_is_said_with_its_status(
    running: Lab, words: list[str], code: int, said: str
) -> None:
    done = run("--server", running.api, *words)
    assert done.returncode == code, done.stderr
    assert said in done.stderr
    assert done.stdout == "", "a script that reads it gets nothing"
    assert "Traceback" not in done.stderr


def test_sessions_and_chains(running: Lab) -> None:
    assert running.ctl("session", "list") == "no sessions\n"
    assert running.ctl("chain", "show") == "no sessions\n"
    running.ctl("policy", "add", "-m", "dst port 80", "-c", "scrub", "--name", "web")
    running.send(CLIENT, segment(ends(52000), SYN, options=SYN_OPTIONS))
    running.receive(NETWORK, lambda s: s.is_syn)
    number = running.session(52000, "sent")["id"]
    shown = running.ctl("session", "show", number)
    assert f"session {number}  10.0.1.2:52000 > 10.0.5.2:80  sent" in shown
    assert "policy web, 0s old" in shown or "policy web, 1s old" in shown
    (line,) = [x for x in running.ctl("session", "list").splitlines() if number in x]
    assert "client > scrub" in line
    chain = running.ctl("chain", "show")
    assert "(hops of other daemons are not shown)" in chain
    assert chain == running.ctl("chain", "show", number)
    assert "no sessions" in running.ctl("chain", "show", "dst port 81")
    assert "client" in running.ctl("chain", "show", "dst port 80 and src host 10.0.1.2")
    running.ctl("policy", "remove", "web")
    assert "(removed since)" in running.ctl("session", "show", number)
    assert "session_started" in running.ctl("counters")
    assert f"session {number} is closed" in running.ctl("session", "close", number)
    assert running.ctl("session", "list") == "no sessions\n"


def test_devices_in_both_forms(running: Lab) -> None:
    assert "nic1" in running.ctl("device", "list")
    for words in (["-o", "json", "device", "list"], ["device", "list", "-o", "json"]):
        assert json.loads(running.ctl(*words))[0]["ready"] is True


def test_a_daemon_that_is_not_there(tmp_path: Path) -> None:
    nowhere = f"unix:{tmp_path}/none.sock"
    done = run("--server", nowhere, "device", "list")
    assert (done.returncode, done.stdout) == (3, "")
    assert f"dyscod can't be reached at {nowhere}: No such file or directory" in done.stderr
    assert "Start it with: dyscod --config FILE" in done.stderr
    assert run("device", "list", DYSCO_SERVER=nowhere).returncode == 3


@pytest.mark.parametrize("server", ["ftp://x", "http://h:x", "h:99999", "unix:", "http://", ""])
def test_a_server_that_can_t_be(server: str) -> None:
    done = run("--server", server, "device", "list")
    assert (done.returncode, done.stdout) == (2, "")
    assert f"{server!r}: " in done.stderr, "what was given, and how to write it"


def test_what_answers_is_no_dyscod(running: Lab) -> None:
    """It is told as that, not as a fault of the caller's."""
    done = run("--server", f"unix:{running.directory}/p4.sock", "device", "list")
    assert done.returncode == 3
    assert "is no dyscod" in done.stderr or "did not answer" in done.stderr
    assert done.stderr.replace("\n", "").isprintable()


def test_no_events(running: Lab) -> None:
    assert running.ctl("events") == "no events\n"
    assert running.ctl("events", "-o", "json") == ""


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion(running: Lab, shell: str) -> None:
    script = run("completion", shell)
    assert script.returncode == 0
    assert f"_DYSCO_CTL_COMPLETE={shell}_complete" in script.stdout


def test_completion_knows_commands_and_policies(running: Lab) -> None:
    def complete(line: str) -> list[str]:
        words = line.split(" ")
        done = run(
            _DYSCO_CTL_COMPLETE="bash_complete",
            COMP_WORDS=line,
            COMP_CWORD=str(len(words) - 1),
            DYSCO_SERVER=running.api,
        )
        return [found.partition(",")[2] for found in done.stdout.splitlines()]

    assert complete("dysco-ctl po") == ["policy"]
    assert complete("dysco-ctl policy ") == ["add", "list", "remove"]
    running.ctl("policy", "add", "-m", "tcp", "-c", "fw", "--name", "every")
    assert complete("dysco-ctl policy remove ev") == ["every"]
    running.ctl("policy", "remove", "every")


def test_help_tells_the_statuses() -> None:
    said = run("--help").stdout
    for text in ("0 done", "2 bad usage", "3 the daemon", "4 not found", "5 refused", "6 a device"):
        assert text in said


def test_doctor_on_a_machine_that_lacks_things(caged: None, tmp_path: Path) -> None:
    """No programs on the PATH, and namespaces refused, as some kernels and containers do."""
    words = ["--server", f"unix:{tmp_path}/none.sock", "doctor"]
    refused = (
        "echo 0 > /proc/sys/user/max_user_namespaces; echo 0 > /proc/sys/user/max_net_namespaces; "
        f'exec "{BIN}/dysco-ctl" "$@"'
    )
    done = subprocess.run(
        ["unshare", "--user", "--map-root-user", "sh", "-c", refused, "sh", *words, "-o", "json"],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == 1, done.stderr
    found = {f["name"]: f for f in json.loads(done.stdout)}
    assert found["network namespaces"]["ok"] is False
    remedy = found["network namespaces"]["remedy"]
    assert "run as root (" in remedy, "with what the kernel said"
    assert "kernel.unprivileged_userns_clone=1" in remedy
    assert found["connection tracking"]["ok"] is False
    assert "network namespaces" in done.stderr


def test_doctor_names_what_to_install(tmp_path: Path) -> None:
    done = run("--server", f"unix:{tmp_path}/none.sock", "doctor")
    lines = done.stdout.splitlines()
    assert lines[0].split() == ["WHAT", "FOR", "HOW", "TO", "GET", "IT"]
    (daemon,) = [line for line in lines if "dyscod at" in line]
    assert daemon.startswith("optional")
    assert "start it: dyscod --config FILE" in daemon
    for line in lines[1:]:
        assert line.startswith("ok") == line.endswith(" -"), "a remedy wherever something lacks"
