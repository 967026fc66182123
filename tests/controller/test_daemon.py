"""`dyscod` as a program: how it starts, what it says, what it reads again."""

from __future__ import annotations

import signal
import socket
import subprocess
from pathlib import Path

from lab import BIN, Lab
from test_config import HEAD, NIC

from dysco.topo.waiting import wait_until


def run(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [BIN / "dyscod", "-c", folder / "dyscod.toml", *words],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


def write(folder: Path, text: str, key: str = "0f" * 32) -> None:
    (folder / "dyscod.toml").write_text(text)
    (folder / "group.key").write_text(key)
    (folder / "group.key").chmod(0o600)


def test_a_configuration_can_be_checked(tmp_path: Path) -> None:
    write(tmp_path, HEAD + NIC)
    done = run(tmp_path, "--check-config")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"{tmp_path}/dyscod.toml: good: 1 devices, 2 hosts\n"
    (tmp_path / "group.key").chmod(0o644)
    assert f"chmod 600 {tmp_path}/group.key" in run(tmp_path, "--check-config").stderr


def test_it_does_not_start_with_what_can_t_work(tmp_path: Path) -> None:
    write(tmp_path, HEAD + NIC.replace("02:00:00:00:01:02", "zz"))
    done = run(tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert "device nic1, host client" in done.stderr
    write(tmp_path, HEAD + NIC, key="short")
    assert run(tmp_path).returncode == 2
    assert run(tmp_path, "--election-id", "0").returncode == 2
    assert run(tmp_path, "--election-id", "1,2,3").returncode == 2
    write(tmp_path, HEAD + NIC)
    done = run(tmp_path, "--pipeline", str(tmp_path))
    assert done.returncode == 1
    assert "dyscod can't start: " in done.stderr
    assert "no such file; give --pipeline the folder that holds it" in done.stderr
    (tmp_path / "dyscod.sqlite").write_text("no database " * 100)
    done = run(tmp_path)
    assert done.returncode == 1
    assert "the policy store can't be used" in done.stderr
    assert "Traceback" not in done.stderr


def test_an_address_that_is_taken(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        write(tmp_path, HEAD.replace("8700", str(port)))
        done = run(tmp_path)
    assert done.returncode == 1
    assert f"dyscod can't start: can't listen at ('127.0.0.1', {port})" in done.stderr
    assert "Address already in use" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_dead_daemon_s_socket_is_replaced_and_a_living_one_s_is_not(
    caged: None, bench: Lab
) -> None:
    first = bench.dyscod()
    path = Path(bench.api.removeprefix("unix:"))
    assert path.stat().st_mode & 0o777 == 0o660
    other = run(bench.directory)
    assert other.returncode == 1
    assert "Address already in use" in other.stderr
    first.kill()
    assert path.exists()
    assert bench.dyscod().stop() == 0


def test_peers_are_read_again(bench: Lab) -> None:
    daemon = bench.dyscod()
    bench.ctl("policy", "add", "-m", "dst port 80", "-c", "cache", code=5)
    path = bench.config(edit=lambda text: text.replace('"scrub"', '"cache"'))
    daemon.process.send_signal(signal.SIGHUP)
    daemon.wait_for("4 peers read again")
    bench.ctl("policy", "add", "-m", "dst port 80", "-c", "cache", "--name", "web")
    # A file with an error changes nothing, and is told.
    path.write_text(path.read_text().replace("cache", "ca che"))
    daemon.process.send_signal(signal.SIGHUP)
    daemon.wait_for("configuration not read again: ")
    assert bench.client.get("v1", "policies", "web")["chain"] == ["cache"]
    # Without that peer the policy is kept but not in force; with it, it is again.
    bench.config()
    daemon.process.send_signal(signal.SIGHUP)
    daemon.wait_for("policy web is not in force: chain: 'cache' is no host")
    bench.config(edit=lambda text: text.replace('"scrub"', '"cache"'))
    entries = bench.counter("devices", "nic1", "updates")
    daemon.process.send_signal(signal.SIGHUP)
    wait_until(
        lambda: bench.counter("devices", "nic1", "updates") == entries + 2, "its rows to be there"
    )
