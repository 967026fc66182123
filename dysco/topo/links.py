"""Links: veth pairs between namespaces, their addresses, routes and offloads."""

from __future__ import annotations

from dataclasses import dataclass

from pyroute2.ethtool.ioctl import IoctlEthtool

from dysco.topo.namespace import Namespace

_OFFLOADS = (
    "tx-checksumming",
    "scatter-gather",
    "tcp-segmentation-offload",
    "generic-segmentation-offload",
    "generic-receive-offload",
)
"""Everything by which a host lets its NIC finish a packet, by ethtool's names."""


@dataclass(frozen=True, slots=True)
class End:
    """One end of a link."""

    namespace: Namespace
    ifname: str
    mac: str


def connect(a: End, b: End, mtu: int = 1500, offloads: bool = True) -> None:
    """Lay a veth pair from `a` to `b`, both ends up."""
    a.namespace.ip.link(
        "add",
        kind="veth",
        ifname=a.ifname,
        address=a.mac,
        mtu=mtu,
        peer={
            "ifname": b.ifname,
            "address": b.mac,
            "mtu": mtu,
            "net_ns_fd": b.namespace.fd,
        },
    )
    for end in (a, b):
        if not offloads:
            turn_offloads_off(end.namespace, end.ifname)
        end.namespace.ip.link("set", index=end.namespace.link_index(end.ifname), state="up")


def add_address(namespace: Namespace, ifname: str, address: str, prefix: int) -> None:
    """Give an interface an address."""
    namespace.ip.addr("add", index=namespace.link_index(ifname), address=address, prefixlen=prefix)


def add_route(namespace: Namespace, prefix: str, via: str, table: int = 254) -> None:
    """Add a route through a neighbour; `prefix` is "default" or address/length."""
    family = 10 if ":" in via else 2
    namespace.ip.route("add", family=family, dst=prefix, gateway=via, table=table)


def turn_offloads_off(namespace: Namespace, ifname: str) -> None:
    """No checksum offload, no super-segments, for targets that can't handle them."""
    with namespace.entered():
        tool = IoctlEthtool(ifname)
        try:
            for flag in _OFFLOADS:
                tool.set_offload_flag(flag, 0)
        finally:
            tool.close()
