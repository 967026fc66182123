"""What topologies need of the machine: programs by Debian package, and what the kernel allows.

`python -m dysco.topo.needs` prints the packages to install; `--check` tells what is missing.
"""

from __future__ import annotations

import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

from dysco.topo import cage
from dysco.topo.devices import Target, command_path, tool_path

PROGRAMS = {
    "nft": "nftables",
    "conntrack": "conntrack",
    "nginx": "nginx",
    "curl": "curl",
    "wrk": "wrk",
    "iperf3": "iperf3",
    "ip": "iproute2",
    "tcpdump": "tcpdump",
    "haproxy": "haproxy",
    "gcc": "gcc",
}
"""Programs that topologies, the demo and their tests run, and the Debian packages they are in."""

_OWN_PROGRAMS = ("dyscod", "dysco-ctl")

_CONNTRACK = Path("/proc/sys/net/netfilter/nf_conntrack_max")


@dataclass(frozen=True, slots=True)
class Missing:
    """Something that isn't there, and how to get it."""

    what: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.what}: {self.remedy}"


def missing(target: Target, programs: tuple[str, ...] = tuple(PROGRAMS)) -> list[Missing]:
    """What this machine lacks to run a topology with devices of that kind. Starts nothing."""
    found = [
        Missing(f"the program {name}", f"apt-get install {PROGRAMS[name]}")
        for name in programs
        if which(name) is None
    ]
    found += [
        Missing(f"the program {name}", "install this project: pip install -e .")
        for name in _OWN_PROGRAMS
        if tool_path(name) is None
    ]
    if target is not Target.BRIDGE and command_path(target) is None:
        remedy = {
            Target.SOFTNIC: "install this project: pip install -e .",
            Target.BMV2: "install bmv2 with its P4Runtime server simple_switch_grpc, on PATH",
        }[target]
        found.append(Missing(f"the target {target.value}", remedy))
    refusal = cage.refusal()
    if refusal is not None:
        found.append(Missing("namespaces", refusal))
    if not _CONNTRACK.exists():
        found.append(Missing("connection tracking in the kernel", "modprobe nf_conntrack"))
    return found


def which(name: str) -> str | None:
    """Where a program is; those for administrators are found by plain users too."""
    return shutil.which(name) or shutil.which(name, path="/usr/sbin:/sbin")


def main() -> None:
    """The command line."""
    if "--check" not in sys.argv[1:]:
        print(" ".join(sorted(set(PROGRAMS.values()))))
        return
    lacking = missing(Target.SOFTNIC)
    for item in lacking:
        print(item)
    sys.exit(1 if lacking else 0)


if __name__ == "__main__":
    main()
