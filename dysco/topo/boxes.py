"""The middleboxes: real ones of the Linux kernel, set up by nft, and what they saw."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from ipaddress import ip_address

from dysco.agent.model import FiveTuple
from dysco.topo.namespace import Namespace
from dysco.topo.topology import Topology

_COUNT = """
table inet dysco {
  counter to_server { }
  counter to_client { }
  counter dropped { }
"""

_FIREWALL = (
    _COUNT
    + """
  chain forward {
    type filter hook forward priority filter; policy drop;
    tcp dport @PORTS counter name to_server
    tcp sport @PORTS counter name to_client
    ct state invalid counter name dropped drop
    ct state established,related accept
    tcp dport @PORTS ct state new accept
    meta l4proto tcp counter name dropped drop
  }
}
"""
)

_PASS = (
    _COUNT
    + """
  chain forward {
    type filter hook forward priority filter; policy accept;
    tcp dport @PORTS counter name to_server
    tcp sport @PORTS counter name to_client
  }
"""
)

_NAT = (
    _PASS
    + """
  chain postrouting {
    type nat hook postrouting priority srcnat; policy accept;
    meta l4proto tcp masquerade
  }
}
"""
)

_COUNTER = _PASS + "}\n"

RULES = {"firewall": _FIREWALL, "nat": _NAT, "counter": _COUNTER}
"""nft rules by kind of middlebox; @PORTS stands for the ports of the service."""

_STRICT = {
    # conntrack's own idea of what belongs to a connection decides, with no benefit of the doubt.
    "netfilter/nf_conntrack_tcp_be_liberal": 0,
    "netfilter/nf_conntrack_tcp_loose": 0,
}


@dataclass(frozen=True, slots=True)
class Counters:
    """What a box's own counters say, in packets."""

    to_server: int
    to_client: int
    dropped: int


@dataclass(frozen=True, slots=True)
class Connection:
    """An entry of a box's conntrack table."""

    state: str
    original: FiveTuple
    reply: FiveTuple
    assured: bool


def set_up_boxes(topology: Topology, ports: tuple[int, ...] = (80,)) -> None:
    """Give every middlebox of a topology its rules. Raises ProcessError where nft refuses them."""
    for host in topology.spec.hosts:
        if host.kind in RULES:
            set_up_box(topology.hosts[host.name], host.kind, ports)


def set_up_box(namespace: Namespace, kind: str, ports: tuple[int, ...]) -> None:
    """Load a kind's rules in a middlebox's namespace."""
    # conntrack's settings exist once a rule of the namespace uses conntrack: rules first.
    rules = RULES[kind].replace("@PORTS", "{ " + ", ".join(map(str, ports)) + " }")
    namespace.run(["nft", "-f", "-"], stdin=rules)
    if kind != "counter":
        namespace.sysctl(_STRICT)


def counters(namespace: Namespace) -> Counters:
    """Read a box's counters."""
    listing = json.loads(namespace.run(["nft", "--json", "list", "counters"]))
    packets = {
        part["counter"]["name"]: int(part["counter"]["packets"])
        for part in listing["nftables"]
        if "counter" in part
    }
    return Counters(packets["to_server"], packets["to_client"], packets["dropped"])


_ENTRY = re.compile(
    r"tcp\s+6\s+\d+\s+(?P<state>\w+)\s+"
    r"src=(?P<s1>\S+) dst=(?P<d1>\S+) sport=(?P<sp1>\d+) dport=(?P<dp1>\d+)\s+.*?"
    r"src=(?P<s2>\S+) dst=(?P<d2>\S+) sport=(?P<sp2>\d+) dport=(?P<dp2>\d+)(?P<rest>.*)"
)


def connections(namespace: Namespace) -> list[Connection]:
    """Read a box's conntrack table: its TCP entries of both address families."""
    found = []
    for family in ("ipv4", "ipv6"):
        listing = namespace.run(["conntrack", "-L", "-p", "tcp", "-f", family])
        for match in map(_ENTRY.search, listing.splitlines()):
            if match is not None:
                found.append(_connection(match))
    return found


def _connection(match: re.Match[str]) -> Connection:
    def endpoint(source: str, destination: str, sport: str, dport: str) -> FiveTuple:
        return FiveTuple(
            ip_address(match[source]),
            int(match[sport]),
            ip_address(match[destination]),
            int(match[dport]),
        )

    return Connection(
        match["state"],
        endpoint("s1", "d1", "sp1", "dp1"),
        endpoint("s2", "d2", "sp2", "dp2"),
        "[ASSURED]" in match["rest"],
    )
