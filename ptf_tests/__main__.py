"""Runs the packet tests on one P4 device, in namespaces that leave nothing behind.

    python -m ptf_tests [--target softnic|bmv2] [--test MODULE|MODULE.CLASS ...]

    PTF (.venv-ptf) -- test1 ==veth== port1 -- device -- port2 ==veth== test2 -- PTF
       \\__________________ P4Runtime _____________/

Logs, and what each test saw on the wire (a pcap file), are in out/ptf/TARGET.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pyroute2 import IPRoute

from dysco.topo import cage
from dysco.topo.process import Process, ProcessError

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
PTF = ROOT / ".venv-ptf" / "bin" / "ptf"

PORTS = range(1, 6)
CPU_PORT = 255
GRPC_PORT = 9559
MTU = 9000
RUN_SECONDS = 300
TEST_SECONDS = 30


class RunError(Exception):
    """The tests could not be run; the text says why and what to do."""


@dataclass(frozen=True)
class Target:
    """A P4 target: where its program may be, and its options beside those all targets take."""

    name: str
    environment: str
    command: str
    options: tuple[str, ...] = ()

    def program(self) -> str | None:
        """Its path: from the environment, beside this interpreter, or on PATH."""
        named = os.environ.get(self.environment)
        if named is not None:
            return shutil.which(named)
        beside = Path(sys.executable).parent / self.command
        return str(beside) if beside.exists() else shutil.which(self.command)

    def command_line(self, program: str) -> list[str]:
        """What starts it with PORTS; bmv2 wants its target's own options behind `--`."""
        ports = [word for port in PORTS for word in ("-i", f"{port}@port{port}")]
        own = ["--cpu-port", str(CPU_PORT), "--grpc-server-addr", f"127.0.0.1:{GRPC_PORT}"]
        general = ["--device-id", "1", "--no-p4", "--log-console", *self.options]
        return [program, *general, *ports, "--", *own]


TARGETS = {
    target.name: target
    for target in (
        Target("softnic", "SOFTNIC", "softnic"),
        Target("bmv2", "BMV2", "simple_switch_grpc", ("--log-level", "warn")),
    )
}


def lay_links() -> None:
    """The device's ports, each with the test's end; no IPv6, so that the kernel stays silent."""
    for scope in ("all", "default"):
        switch = Path(f"/proc/sys/net/ipv6/conf/{scope}/disable_ipv6")
        if switch.exists():  # a kernel without IPv6 is silent anyway
            switch.write_text("1")
    with IPRoute() as ip:
        for port in PORTS:
            ends = (f"port{port}", f"test{port}")
            ip.link("add", kind="veth", ifname=ends[0], peer={"ifname": ends[1]})
            for end in ends:
                ip.link("set", index=ip.link_lookup(ifname=end)[0], mtu=MTU, state="up")


def serving() -> bool:
    """True if the device takes P4Runtime connections."""
    with socket.socket() as client:
        client.settimeout(1.0)
        return client.connect_ex(("127.0.0.1", GRPC_PORT)) == 0


def run_tests(target: Target, tests: list[str], log: Path) -> int:
    """PTF's exit status."""
    command = [str(PTF), "--test-dir", str(HERE / "tests"), "--pypath", str(HERE)]
    command += ["--log-dir", str(log / "tests"), "--debug", "info", "--qlen", "2000"]
    command += ["--test-case-timeout", str(TEST_SECONDS), "--socket-recv-size", str(2 * MTU)]
    for port in PORTS:
        command += ["--interface", f"{port}@test{port}"]
    params = {"target": target.name, "grpc_port": GRPC_PORT}
    command += ["--test-params", ";".join(f"{key}={value!r}" for key, value in params.items())]
    try:
        return subprocess.run([*command, *tests], timeout=RUN_SECONDS, check=False).returncode
    except subprocess.TimeoutExpired as error:
        raise RunError(f"the tests did not end within {RUN_SECONDS} s: see {log}") from error


@contextlib.contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Within it no other run has the folder: another one that is under way is waited for."""
    handle = os.open(folder, os.O_RDONLY)
    deadline = time.monotonic() + RUN_SECONDS
    try:
        while True:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    why = f"another run has used {folder} for {RUN_SECONDS} s"
                    raise RunError(f"{why}: wait for it, or end it") from None
                time.sleep(0.2)
        yield
    finally:
        os.close(handle)


def run(target: Target, tests: list[str]) -> int:
    """Start the device, run the tests, stop it; the exit status."""
    program = target.program()
    if program is None:
        print(
            f"SKIPPED: {target.command} is not installed; put it on PATH, or name it in "
            f"${target.environment}"
        )
        return 0
    if not PTF.exists():
        raise RunError(f"{PTF.relative_to(ROOT)} is missing: run `make ptf`, which sets it up")
    cage.enter()
    log = ROOT / "out" / "ptf" / target.name
    log.mkdir(parents=True, exist_ok=True)
    with alone(log):
        for old in log.iterdir():
            shutil.rmtree(old) if old.is_dir() else old.unlink()
        return run_on_device(target, program, tests, log)


def run_on_device(target: Target, program: str, tests: list[str], log: Path) -> int:
    """The same, with `log` for this run alone."""
    lay_links()
    device = Process(target.name, target.command_line(program), log / "device.log")
    try:
        device.wait_ready(serving, f"it served P4Runtime on port {GRPC_PORT}", seconds=30)
        status = run_tests(target, tests, log)
        if not device.running:
            raise RunError(f"{target.name} ended during the tests\n{device.log_tail()}")
        return status
    finally:
        device.stop()


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m ptf_tests", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--target", choices=TARGETS, default="softnic")
    parser.add_argument(
        "--test", action="append", default=[], help="e.g. test_bridge or test_bridge.Hairpin"
    )
    options = parser.parse_args()
    try:
        return run(TARGETS[options.target], options.test)
    except (RunError, ProcessError, cage.CageError) as error:
        print(f"ptf_tests: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
