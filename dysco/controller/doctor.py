"""What this machine lacks to run Dysco, its demo and its tests, and how to get it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from dysco.controller.client import ApiError, Client, UnreachableError

PROBE_TIMEOUT = 10.0


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is there or not."""

    name: str
    ok: bool
    required: bool
    purpose: str
    remedy: str
    """What to do where it is missing."""


@dataclass(frozen=True, slots=True)
class _Program:
    name: str
    package: str
    purpose: str
    required: bool = True


_PROGRAMS = (
    _Program("gcc", "gcc libc6-dev", "softnic compiles the P4 program and itself with it"),
    _Program("ip", "iproute2", "network namespaces of the demo"),
    _Program("nft", "nftables", "firewall and NAT of the demo"),
    _Program("conntrack", "conntrack", "the firewall's state, shown by the demo", required=False),
    _Program("nginx", "nginx", "server of the demo"),
    _Program("curl", "curl", "client of the demo"),
    _Program("wrk", "wrk", "load of the demo and the benchmarks"),
    _Program("iperf3", "iperf3", "throughput of the benchmarks"),
    _Program("tcpdump", "tcpdump", "captures of the demo"),
    _Program("ethtool", "ethtool", "offloads on bmv2's links", required=False),
    _Program("haproxy", "haproxy", "the proxy middlebox", required=False),
    _Program("spin", "spin", "checking the protocol's model (make verify)", required=False),
)


_HEADERS = (
    ("nghttp2/nghttp2.h", "libnghttp2-dev", "softnic speaks HTTP/2 with it"),
    ("openssl/ssl.h", "libssl-dev", "and TLS with it"),
)
"""File below /usr/include, Debian package, purpose."""


def examine(server: str) -> list[Finding]:
    """Everything that matters here; `server` is where the daemon should be."""
    return [
        _python(),
        *map(_program, _PROGRAMS),
        *map(_headers, _HEADERS),
        _namespaces(),
        _device_file("/dev/net/tun", "some middleboxes; not needed for the demo", required=False),
        _conntrack(),
        _optional("p4c-bm2-ss", "compiling p4src/ anew", "build github.com/p4lang/p4c"),
        _optional(
            "simple_switch_grpc",
            "running on bmv2 (TARGET=bmv2)",
            "build github.com/p4lang/behavioral-model with --with-pi",
        ),
        _daemon(server),
    ]


def _python() -> Finding:
    version = ".".join(map(str, sys.version_info[:3]))
    return Finding(
        f"python {version}",
        sys.version_info >= (3, 11),
        required=True,
        purpose="everything",
        remedy="install Python 3.11 or newer",
    )


def _program(program: _Program) -> Finding:
    return Finding(
        program.name,
        _which(program.name) is not None,
        program.required,
        program.purpose,
        f"apt install {program.package}",
    )


def _headers(row: tuple[str, str, str]) -> Finding:
    file, package, purpose = row
    found = Path("/usr/include", file).exists()
    return Finding(file, found, required=True, purpose=purpose, remedy=f"apt install {package}")


def _which(name: str) -> str | None:
    """Found also where only root's PATH looks."""
    path = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/sbin", "/usr/local/sbin"])
    return shutil.which(name, path=path)


def _optional(name: str, purpose: str, remedy: str) -> Finding:
    return Finding(name, _which(name) is not None, required=False, purpose=purpose, remedy=remedy)


_SPACES = ("--net", "--mount", "--pid", "--ipc", "--fork", "--mount-proc")
"""What the demo and the tests run in."""


def _namespaces() -> Finding:
    """Tried, not guessed: sysctls, security modules and containers all have a say."""
    refused = "" if _inside("true") else _said(_in_namespaces("--user", "--map-root-user", "true"))
    why = f" ({refused})" if refused else ""
    return Finding(
        "network namespaces",
        not refused,
        required=True,
        purpose="demo and tests",
        remedy=f"run as root{why}, or allow user namespaces: sysctl -w "
        "kernel.unprivileged_userns_clone=1 user.max_user_namespaces=10000 "
        "kernel.apparmor_restrict_unprivileged_userns=0 (those that exist); "
        "in a container, start it privileged",
    )


def _conntrack() -> Finding:
    """In a namespace of its own, where nothing of this machine's is touched."""
    rules = "add table ip t; add chain ip t c { type filter hook forward priority 0; }; "
    rules += "add rule ip t c ct state invalid drop"
    nft = _which("nft")
    return Finding(
        "connection tracking",
        nft is not None and _inside(nft, rules),
        required=True,
        purpose="the demo's firewall and NAT",
        remedy="needs nft and network namespaces, and a kernel with nf_tables and nf_conntrack; "
        "try: modprobe -a nf_conntrack nft_ct",
    )


def _inside(*argv: str) -> bool:
    """True if that runs in namespaces: a plain user's need a user namespace around them."""
    return not all(
        _said(_in_namespaces(*flags, *argv)) for flags in ((), ("--user", "--map-root-user"))
    )


def _in_namespaces(*argv: str) -> list[str]:
    return [_which("unshare") or "unshare", *_SPACES, *argv]


def _device_file(path: str, purpose: str, *, required: bool) -> Finding:
    return Finding(path, Path(path).exists(), required, purpose, "modprobe tun")


def _said(argv: list[str]) -> str:
    """Why a command failed; empty if it didn't."""
    try:
        done = subprocess.run(
            argv, capture_output=True, text=True, timeout=PROBE_TIMEOUT, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    if done.returncode == 0:
        return ""
    return done.stderr.strip() or f"status {done.returncode}"


def _daemon(server: str) -> Finding:
    ok, remedy = _try(lambda: Client(server, timeout=2.0).get("healthz"))
    return Finding(
        f"dyscod at {server}",
        ok,
        required=False,
        purpose="policies and sessions",
        remedy=remedy and f"{remedy}; start it: dyscod --config FILE",
    )


def _try(call: Callable[[], object]) -> tuple[bool, str]:
    try:
        call()
    except (UnreachableError, ApiError) as error:
        return False, str(error)
    return True, ""
