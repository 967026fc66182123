"""The words of the protocol as types: five-tuples, hosts, mappings, policies."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from ipaddress import IPv4Address, IPv6Address
from typing import NamedTuple

Address = IPv4Address | IPv6Address

MacAddress = bytes
"""Six bytes, as on the wire."""


class FiveTuple(NamedTuple):
    """A session's or a subsession's five-tuple; the protocol is always TCP."""

    src: Address
    sport: int
    dst: Address
    dport: int

    @property
    def reversed(self) -> FiveTuple:
        """The same for packets that go the other way."""
        return FiveTuple(self.dst, self.dport, self.src, self.sport)

    def __str__(self) -> str:
        return f"{_endpoint(self.src, self.sport)} > {_endpoint(self.dst, self.dport)}"


def _endpoint(address: Address, port: int) -> str:
    return f"[{address}]:{port}" if address.version == 6 else f"{address}:{port}"


@dataclass(frozen=True, slots=True)
class Interface:
    """Where a host is attached to its device."""

    port: int
    mac: MacAddress
    addresses: tuple[Address, ...]


@dataclass(frozen=True, slots=True)
class Host:
    """A host behind a device of ours. `kind` names what a middlebox does; None: an end host."""

    id: int
    """Unique on its device, 1 to 65535; the P4 program's host_id."""
    name: str
    kind: str | None
    interfaces: tuple[Interface, ...]
    changes_stream: bool = False
    """It may add and remove bytes: it stays on a session's path until it says that it will not any
    more, and what it did in all (`FixDeltas`)."""

    @property
    def is_middlebox(self) -> bool:
        """True if SYNs that it sends on may belong to a session under set-up."""
        return self.kind is not None


@dataclass(frozen=True, slots=True)
class Peer:
    """A host of the trust group, wherever it is: what a chain may name, and where it may end."""

    name: str
    kind: str | None
    addresses: tuple[Address, ...]
    ends_connections: bool = False
    """A terminating proxy: it can't be put into a session that is there."""


class OnFailure(Enum):
    """What becomes of a session whose chain can't be built."""

    REFUSE = "refuse"
    """A RST to the initiator: no session without its chain."""
    DIRECT = "direct"
    """The session goes on unchained."""


@dataclass(frozen=True, slots=True)
class Policy:
    """Which sessions take which chain. The match itself lives in the data plane's policy table.

    `chain` elements are names of peers, addresses, or kinds ("firewall": any peer of that kind).
    An empty chain: the session is tracked, and goes directly.
    """

    id: int
    """1 to 65535; the P4 program's policy_id."""
    chain: tuple[str, ...]
    on_failure: OnFailure = OnFailure.REFUSE


class Side(Enum):
    """Which of the data plane's two session tables a mapping is in."""

    OUTBOUND = "outbound"
    """From the host: the five-tuple that it sends becomes a subsession's."""
    INBOUND = "inbound"
    """To the host: a subsession's five-tuple becomes the one that it expects."""


class MappingKey(NamedTuple):
    """What finds a mapping in the data plane."""

    side: Side
    host: int
    tuple: FiveTuple


@dataclass(frozen=True, slots=True)
class Mapping:
    """One entry of a session table.

    `metadata` is opaque to the device and comes back after a restart: what the agent must know to
    go on with the session.
    """

    key: MappingKey
    mapped: FiveTuple
    metadata: bytes = b""
    idle_timeout: float = 0.0
    """Seconds without a packet until `Idle` is reported; 0: never."""
    slot: int = 0
    """The leg's registers in the data plane, from 1 on; 0: it is not tracked."""
    path: int = 0
    """Of an inbound mapping: which of the leg's two paths this subsession is."""
