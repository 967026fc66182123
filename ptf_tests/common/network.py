"""The network that every test starts from.

      port 1 -- A (11)          end host      \\
      port 2 -- B (12)          end host       > uplink: port 3
      port 5 -- M (13)          middlebox     /
      port 3 -- network, NEXT   the way to every host elsewhere
      port 4 -- network, OTHER  a second network port
"""

from __future__ import annotations

from enum import IntEnum
from typing import NamedTuple


class FiveTuple(NamedTuple):
    """Of a session or a subsession; the addresses tell the family."""

    src: str
    dst: str
    sport: int
    dport: int

    @property
    def reversed(self) -> FiveTuple:
        """The same for packets that go the other way."""
        return FiveTuple(self.dst, self.src, self.dport, self.sport)

    @property
    def family(self) -> str:
        """Suffix of this family's tables and actions."""
        return "v6" if ":" in self.src else "v4"


class Host(NamedTuple):
    """A host at a port of the device; `id` 0: elsewhere, behind that port."""

    id: int
    port: int
    mac: str
    v4: str
    v6: str
    is_middlebox: bool = False


UPLINK = 3
OTHER_PORT = 4
PORTS = range(1, 6)
CPU_PORT = 255
COPIES = (1, 2, 4, 8)
"""A clone session for each sum of them."""
FLOOD_GROUP = 1

A = Host(11, 1, "02:00:00:00:00:0a", "10.1.0.10", "2001:db8:1::a")
B = Host(12, 2, "02:00:00:00:00:0b", "10.1.0.11", "2001:db8:1::b")
M = Host(13, 5, "02:00:00:00:00:0d", "10.1.0.13", "2001:db8:1::d", is_middlebox=True)
OURS = (A, B, M)

# Two hosts elsewhere: the far end of sessions, and the next hop of chains.
FAR = Host(0, UPLINK, "02:00:00:00:ff:03", "10.9.0.80", "2001:db8:9::80")
NEXT = Host(0, UPLINK, "02:00:00:00:ff:03", "10.2.0.20", "2001:db8:2::20")
OTHER = Host(0, OTHER_PORT, "02:00:00:00:ff:04", "10.3.0.30", "2001:db8:3::30")
ROUTER = Host(0, UPLINK, "02:00:00:00:ff:03", "10.0.0.1", "2001:db8::1")

BROADCAST = "ff:ff:ff:ff:ff:ff"
FAMILIES = ("v4", "v6")


class Reason(IntEnum):
    """Why a packet-in came; p4src/shared/define.p4."""

    HOST_SYN = 1
    DYSCO_SYN = 2
    SENT = 3
    RECEIVED = 4
    NEIGHBOUR = 5
    NEW_PATH = 6
    SPLIT = 7
    LEG = 8
    CONTROL = 9
    HELD = 10


class Submit(IntEnum):
    """What becomes of a packet-out; p4src/shared/define.p4."""

    PORT = 0
    ROUTE = 1
    BRIDGE = 2
    HOST = 3
    LATCH = 4
    REVOKE = 5
    QUERY = 6
    IN_BAND = 7
    RELEASED = 8
    END_HOLD = 9
    SEED = 10


class Drop(IntEnum):
    """Index of the counter `drops`; p4src/shared/define.p4."""

    NO_ROUTE = 0
    HAIRPIN = 1
    BAD_PACKET_OUT = 2


def address(host: Host, family: str) -> str:
    """The host's address of that family."""
    return host.v6 if family == "v6" else host.v4


def session(family: str, src: Host = A, dst: Host = FAR, sport: int = 40000) -> FiveTuple:
    """A session as its initiator sees it."""
    return FiveTuple(address(src, family), address(dst, family), sport, 80)


def subsession(family: str, src: Host = A, dst: Host = NEXT, sport: int = 61001) -> FiveTuple:
    """A subsession, in its sender's direction."""
    return FiveTuple(address(src, family), address(dst, family), sport, 61002)
