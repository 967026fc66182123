"""Runs a command in namespaces of its own, so that whatever it leaves, the kernel removes.

    cage (outside) ──fork──▶ init, PID 1 inside ──fork──▶ the command
      waits, forwards          reaps orphans                makes network namespaces,
      signals                                               starts daemons, ...

When PID 1 of a PID namespace ends, the kernel kills everything in it; network namespaces here have
no names (no /run/netns), so they go with their last process. That holds for an exception, Ctrl-C,
SIGTERM and `kill -9` alike. Without root a user namespace comes first, which needs unprivileged
user namespaces to be allowed.

Use: `python -m dysco.topo.cage -- COMMAND...`, or `cage.enter()` at the start of a program.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import NoReturn

from pyroute2 import IPRoute

from dysco.topo import system

ENVIRONMENT = "DYSCO_CAGE"
"""Holds the PID namespace of the cage: an inherited value doesn't count as being inside."""

OUTER_PID = "DYSCO_CAGE_PID"
"""The PID of the cage's init as the outside sees it, for `nsenter --all --target`."""

_FORWARDED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_WATCHED = {*_FORWARDED, signal.SIGCHLD}
_SI_USER = 0

_SPACES = system.CLONE_NEWNET | system.CLONE_NEWNS | system.CLONE_NEWPID | system.CLONE_NEWIPC


class CageError(Exception):
    """The kernel or the container refuses the namespaces; the text says what to do."""


def inside() -> bool:
    """True if this process runs in a cage."""
    return os.environ.get(ENVIRONMENT) == os.readlink("/proc/self/ns/pid")


def enter() -> None:
    """Go on in a cage: returns if already inside, else starts this program again in one."""
    if not inside():
        os.execv(sys.executable, command_for([sys.executable, *sys.orig_argv[1:]]))


def command_for(argv: list[str]) -> list[str]:
    """The command line that runs `argv` in a cage."""
    return [sys.executable, "-m", "dysco.topo.cage", "--", *argv]


def refusal() -> str | None:
    """Why this machine refuses cages, and what to do about it; None if it doesn't."""
    if inside():
        return None
    trial = subprocess.run(
        command_for(["true"]), capture_output=True, text=True, timeout=20, check=False
    )
    return trial.stderr.strip() if trial.returncode else None


def run(argv: list[str]) -> int:
    """Run `argv` in a cage and wait for it. The process must be single-threaded.

    Returns its exit status (128 + N if signal N ended it). Raises CageError.
    """
    _unshare()
    signal.pthread_sigmask(signal.SIG_BLOCK, _WATCHED)
    outer = os.getpid()
    pid = os.fork()
    if pid == 0:
        _init(argv, outer)
    return _wait_for(pid)


def _unshare() -> None:
    user, group = os.geteuid(), os.getegid()
    with contextlib.suppress(PermissionError):
        system.unshare(_SPACES)
        return
    try:
        system.unshare(_SPACES | system.CLONE_NEWUSER)
        # A plain user may map only itself, and its group only after giving up setgroups.
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"0 {user} 1")
        Path("/proc/self/gid_map").write_text(f"0 {group} 1")
    except OSError as error:
        raise CageError(
            f"can't make namespaces ({error}): run as root, or allow unprivileged user namespaces: "
            "sysctl -w kernel.unprivileged_userns_clone=1 user.max_user_namespaces=10000 "
            "kernel.apparmor_restrict_unprivileged_userns=0 (those that exist on this kernel); "
            "in a container, start it privileged"
        ) from error


def _init(argv: list[str], outer: int) -> NoReturn:
    status = 1
    try:
        system.die_with_parent(signal.SIGKILL)
        outer_pid = os.readlink("/proc/self")  # still the outer /proc
        if Path(f"/proc/{outer}").exists():  # else the parent died before the line above counted
            _prepare()
            status = _wait_for(_start(argv, outer_pid))
    except (CageError, OSError) as error:
        print(f"cage: {error}", file=sys.stderr)
    finally:
        sys.stdout.flush()
        os._exit(status)


def _prepare() -> None:
    try:
        system.mount("none", "/", "", system.MS_REC | system.MS_PRIVATE)
        system.mount("proc", "/proc", "proc", system.MS_NOSUID | system.MS_NODEV | system.MS_NOEXEC)
    except OSError as error:
        raise CageError(
            f"{error}: this container hides parts of /proc; start it privileged"
        ) from error
    with IPRoute() as ip:
        ip.link("set", index=ip.link_lookup(ifname="lo")[0], state="up")


def _start(argv: list[str], outer_pid: str) -> int:
    pid = os.fork()
    if pid:
        return pid
    try:
        environment = dict(os.environ)
        environment[ENVIRONMENT] = os.readlink("/proc/self/ns/pid")
        environment[OUTER_PID] = outer_pid
        # A plain user's PATH may lack what only root used to run: nft, conntrack, nginx, ...
        environment["PATH"] = f"{environment.get('PATH', os.defpath)}:/usr/sbin:/sbin"
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _WATCHED)
        os.execvpe(argv[0], argv, environment)
    except OSError as error:
        print(f"cage: {argv[0]}: {error.strerror}", file=sys.stderr)
    finally:
        os._exit(127)


def _wait_for(pid: int) -> int:
    """Reap children until `pid` ended; signals that somebody sends us are passed on to it."""
    while True:
        info = signal.sigwaitinfo(_WATCHED)
        # A terminal's Ctrl-C reaches the whole group by itself: only a signal for us is forwarded.
        if info.si_signo in _FORWARDED and info.si_code == _SI_USER:
            os.kill(pid, info.si_signo)
        status = _reap(pid)
        if status is not None:
            return status


def _reap(awaited: int) -> int | None:
    """Reap all that ended; the exit status of `awaited` if it is among them."""
    result = None
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return result
        if pid == 0:
            return result
        if pid == awaited:
            code = os.waitstatus_to_exitcode(status)
            result = code if code >= 0 else 128 - code


def main() -> None:
    """The command line."""
    argv = sys.argv[1:]
    if argv[:1] == ["--"]:
        argv = argv[1:]
    if not argv:
        sys.exit("usage: python -m dysco.topo.cage -- COMMAND [ARGUMENT...]")
    try:
        sys.exit(run(argv))
    except CageError as error:
        sys.exit(f"cage: {error}")


if __name__ == "__main__":
    main()
