"""The cage: nothing that is started in it outlives it, however it ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import uuid
from pathlib import Path

import pytest

from dysco.topo import cage
from dysco.topo.waiting import wait_until

_MAKE_A_TOPOLOGY = """
import sys
from pathlib import Path
from dysco.topo.spec import demo_spec
from dysco.topo.topology import Topology
with Topology(demo_spec(), Path(sys.argv[1])) as topology:
    child = topology.hosts["client"].start("sleeper", ["sh", "-c", "trap '' TERM; sleep 600"])
    print("up", flush=True)
    sys.stdin.read()
"""


def processes_marked(mark: str) -> list[int]:
    """Processes with `mark` in their environment."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                environment = (entry / "environ").read_bytes()
            except OSError:
                continue
            if mark.encode() in environment:
                found.append(int(entry.name))
    return found


def caged(argv: list[str], mark: str) -> subprocess.Popen[str]:
    environment = {**os.environ, "DYSCO_TEST_MARK": mark}
    return subprocess.Popen(
        cage.command_for(argv),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
        start_new_session=True,
    )


@pytest.fixture
def mark() -> str:
    return f"mark-{uuid.uuid4()}"


def test_passes_on_the_exit_status(mark: str) -> None:
    with caged(["sh", "-c", "exit 7"], mark) as process:
        assert process.wait(20) == 7


def test_says_what_cannot_be_started(mark: str) -> None:
    with caged(["no-such-program"], mark) as process:
        _, err = process.communicate(timeout=20)
    assert process.returncode == 127
    assert "no-such-program" in err


def test_a_command_in_it_is_alone(mark: str) -> None:
    with caged(["sh", "-c", "ls /proc | grep -c '^[0-9]'; ls /proc/self/task"], mark) as process:
        out, _ = process.communicate(timeout=20)
    assert int(out.split()[0]) <= 6


@pytest.mark.parametrize(
    ("number", "group"),
    [
        (signal.SIGKILL, False),
        (signal.SIGTERM, False),
        (signal.SIGINT, False),
        (signal.SIGINT, True),  # what a terminal's Ctrl-C does
    ],
)
def test_nothing_outlives_it(
    mark: str, number: signal.Signals, group: bool, tmp_path: Path
) -> None:
    argv = [sys.executable, "-c", _MAKE_A_TOPOLOGY, str(tmp_path)]
    with caged(argv, mark) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "up\n"
        # Cage, init, program and sleeper; what is between fork and exec has no mark yet.
        wait_until(lambda: len(processes_marked(mark)) >= 4, "all to run")
        if group:
            os.killpg(process.pid, number)
        else:
            process.send_signal(number)
        # Its input stays open: at its end the program would end by itself, before the signal came.
        process.wait(timeout=20)
    wait_until(lambda: not processes_marked(mark), "the cage's processes to be gone")
    assert process.returncode != 0


def test_nothing_outlives_an_exception(mark: str, tmp_path: Path) -> None:
    program = _MAKE_A_TOPOLOGY.replace("sys.stdin.read()", "raise ZeroDivisionError")
    with caged([sys.executable, "-c", program, str(tmp_path)], mark) as process:
        _, err = process.communicate(timeout=20)
    assert "ZeroDivisionError" in err
    wait_until(lambda: not processes_marked(mark), "the cage's processes to be gone")


_PLAIN = 65534

_AS_A_PLAIN_USER = f"""
import ctypes, os, sys
from pyroute2 import IPRoute
from dysco.topo import cage
with IPRoute() as ip:  # all that is imported late, too: a plain user may not be able to read it
    ip.link_lookup(ifname="lo")
os.setgroups([])
os.setgid({_PLAIN})
os.setuid({_PLAIN})
ctypes.CDLL(None).prctl(4, 1)  # PR_SET_DUMPABLE, as after an exec: its /proc files are its own
sys.exit(cage.run(["ip", "link", "add", "type", "veth"]))
"""


def test_works_for_a_plain_user() -> None:
    """Without root, and without any capability, where user namespaces are allowed."""
    plain = ["setpriv", f"--reuid={_PLAIN}", f"--regid={_PLAIN}", "--clear-groups"]
    allowed = subprocess.run(
        [*plain, "--inh-caps=-all", "unshare", "--user", "--map-root-user", "true"],
        capture_output=True,
        check=False,
    )
    if allowed.returncode:
        pytest.skip("can't become a plain user here, or plain users can't make user namespaces")
    argv = [sys.executable, "-c", _AS_A_PLAIN_USER]
    result = subprocess.run(argv, capture_output=True, text=True, timeout=20, check=False)
    assert result.returncode == 0, result.stderr


def test_is_root_inside(mark: str) -> None:
    with caged(["id", "-u"], mark) as process:
        assert process.communicate(timeout=20)[0] == "0\n"
