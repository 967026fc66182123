"""The demo as its users run it: all of it, broken, and interrupted."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from dysco.topo.waiting import wait_until

TARGET = os.environ.get("TARGET", "softnic")
ARGV = [sys.executable, "-m", "dysco.topo.demo", "--target", TARGET, "--seconds", "1"]


def left_behind(folder: Path) -> list[Path]:
    return list(folder.iterdir())


def processes_marked(mark: str) -> list[str]:
    """Command lines of processes with `mark` in their environment."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                environment = (entry / "environ").read_bytes()
                command = (entry / "cmdline").read_bytes()
            except OSError:
                continue
            if mark.encode() in environment:
                found.append(command.replace(b"\0", b" ").decode())
    return found


def start(tmp_path: Path, **more: str) -> subprocess.Popen[str]:
    environment = {**os.environ, "TMPDIR": str(tmp_path), "COLUMNS": "80", **more}
    return subprocess.Popen(
        ARGV,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=environment,
        start_new_session=True,
    )


def test_all_of_it_holds(tmp_path: Path) -> None:
    with start(tmp_path) as demo:
        out, _ = demo.communicate(timeout=60)
    assert demo.returncode == 0, out
    assert "All of it held." in out
    assert "✗" not in out
    order = [line.split()[0] for line in out.splitlines() if " gets " in line]
    assert order == ["firewall", "nat", "counter", "server"]
    chains = [line[7:34].strip() for line in out.splitlines() if " s  client " in line]
    assert chains == ["client > proxy > server", "client > server", "client > scrubber > server"]
    assert max(map(len, out.splitlines())) <= 80
    assert left_behind(tmp_path) == []


def with_fake(tmp_path: Path, program: str, script: str) -> str:
    """PATH with another program of that name in front."""
    folder = tmp_path / "bin"
    folder.mkdir()
    (folder / program).write_text(f"#!/bin/sh\n{script}\n")
    (folder / program).chmod(0o755)
    return f"{folder}:{os.environ['PATH']}"


def test_what_does_not_hold_is_told(tmp_path: Path) -> None:
    """A wrk that met errors, and asked for more than passed the middleboxes."""
    told = "echo '5000 requests in 1s'; echo 'Socket errors: connect 3'; echo 'Requests/sec: 5000'"
    with start(tmp_path, PATH=with_fake(tmp_path, "wrk", told)) as demo:
        out, _ = demo.communicate(timeout=60)
    assert demo.returncode == 1
    assert "All of it held." not in out
    assert out.count("✗") == 1
    _, _, problems = out.partition("What did not hold")
    assert "wrk: 3 errors in 5000 requests" in problems
    assert "nat counted 0 packets there, 0 back, 0 dropped" in problems


def test_what_stops_it_is_told(tmp_path: Path) -> None:
    with start(tmp_path, PATH=with_fake(tmp_path, "nft", "exit 1")) as demo:
        out, _ = demo.communicate(timeout=60)
    assert demo.returncode == 1
    assert "the demo can't go on: firewall: nft -f - ended with status 1" in out
    assert "Traceback" not in out


@pytest.mark.parametrize("step", ["P4 devices", "curl through the chain, IPv4"])
def test_interrupted(tmp_path: Path, step: str) -> None:
    """Ctrl-C at any time ends it with one line, and nothing is left."""
    mark = f"demo-{tmp_path.name}"
    with start(tmp_path, DYSCO_TEST_MARK=mark) as demo:
        assert demo.stdout is not None
        for line in demo.stdout:
            if step in line:
                break
        os.killpg(demo.pid, signal.SIGINT)
        rest, _ = demo.communicate(timeout=20)
    assert demo.returncode == 130
    assert "interrupted; nothing is left behind" in rest
    assert "Traceback" not in rest
    wait_until(lambda: not processes_marked(mark), "all processes to be gone")
    assert left_behind(tmp_path) == []
