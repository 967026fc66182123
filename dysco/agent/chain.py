"""From the words of a policy to the addresses of hosts: who is in the trust group, and which of
them a session crosses."""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import ip_address
from zlib import crc32

from dysco.agent.counters import Count, SetupError
from dysco.agent.model import Address, FiveTuple, Interface, Peer
from dysco.agent.reconfigure.control import host_number


class Peers:
    """The hosts of the trust group, found by name, by address and by kind."""

    def __init__(self, peers: Sequence[Peer] = ()) -> None:
        """Raises ValueError when two peers claim one name or one address."""
        self._by_name: dict[str, Peer] = {}
        self._by_address: dict[Address, Peer] = {}
        self._by_kind: dict[str, list[Peer]] = {}
        self._by_number: dict[int, Peer] = {}
        for peer in sorted(peers, key=lambda peer: peer.name):
            if self._by_name.setdefault(peer.name, peer) is not peer:
                raise ValueError(f"two peers are named {peer.name!r}")
            for address in peer.addresses:
                other = self._by_address.setdefault(address, peer)
                if other is not peer:
                    raise ValueError(f"{other.name!r} and {peer.name!r} both have {address}")
            self._by_number[host_number(peer.name)] = peer
            if peer.kind is not None:
                self._by_kind.setdefault(peer.kind, []).append(peer)

    def named(self, name: str) -> Peer | None:
        """The peer of that name."""
        return self._by_name.get(name)

    def at(self, address: Address) -> Peer | None:
        """The peer that has that address."""
        return self._by_address.get(address)

    def numbered(self, number: int) -> Peer | None:
        """The peer of that number (`host_number`)."""
        return self._by_number.get(number)

    def name_of(self, address: Address) -> str:
        """The peer's name, or the address itself where no peer has it."""
        peer = self._by_address.get(address)
        return peer.name if peer is not None else str(address)

    def resolve(self, chain: Sequence[str], session: FiveTuple, own: str) -> tuple[Address, ...]:
        """The address of each host of a chain, for a session that starts at the host named `own`.

        Of several peers of a kind, a hash of the session picks one: the load spreads, and the
        same session gets the same peers. Raises SetupError.
        """
        used = {own}
        hops = []
        for position, element in enumerate(chain):
            peer, exact = self._choose(element, position, session, used)
            if peer.name in used:
                what = "where the session starts" if peer.name == own else "twice"
                raise SetupError(Count.POLICY_LOOP, f"the chain names {peer.name!r} {what}")
            used.add(peer.name)
            hops.append(exact or self.reachable(peer, session.src.version))
        return tuple(hops)

    def reachable(self, peer: Peer, version: int) -> Address:
        """The peer's address of that IP version; raises SetupError if it has none."""
        address = usable(peer.addresses, version)
        if address is None:
            raise SetupError(Count.NO_ADDRESS, f"{peer.name!r} has no IPv{version} address")
        return address

    def in_family(self, address: Address, version: int) -> Address:
        """An address of the same peer in that IP version; raises SetupError if there is none."""
        if address.version == version:
            return address
        peer = self.at(address)
        if peer is None:
            raise SetupError(Count.UNKNOWN_PEER, f"no peer has {address} of the chain")
        return self.reachable(peer, version)

    def _choose(
        self, element: str, position: int, session: FiveTuple, used: set[str]
    ) -> tuple[Peer, Address | None]:
        """The peer for one element, and its address where the element gave one."""
        exact = None
        peer = self._by_name.get(element)
        if peer is None:
            try:
                exact = ip_address(element)
            except ValueError:
                return self._of_kind(element, position, session, used), None
            peer = self._by_address.get(exact)
        if peer is None:
            raise SetupError(Count.UNKNOWN_PEER, f"no peer of the trust group is {element!r}")
        if peer.kind is None:
            raise SetupError(
                Count.UNKNOWN_PEER, f"{peer.name!r} in the chain is an end host, not a middlebox"
            )
        if exact is not None and exact.version != session.src.version:
            exact = None
        return peer, exact

    def _of_kind(self, kind: str, position: int, session: FiveTuple, used: set[str]) -> Peer:
        version = session.src.version
        candidates = [
            peer for peer in self._by_kind.get(kind, ()) if usable(peer.addresses, version)
        ]
        if not candidates:
            raise SetupError(
                Count.UNKNOWN_PEER, f"no peer of the trust group is named or is a {kind!r}"
            )
        # All used already: one of them stands for the loop that the caller then finds.
        candidates = [peer for peer in candidates if peer.name not in used] or candidates
        return candidates[session_hash(session, position) % len(candidates)]


def session_hash(session: FiveTuple, salt: int) -> int:
    """The same number for the same session, on every host and after every restart."""
    ends = session.sport.to_bytes(2, "big") + session.dport.to_bytes(2, "big")
    return crc32(session.src.packed + session.dst.packed + ends + salt.to_bytes(2, "big"))


def usable(addresses: Sequence[Address], version: int) -> Address | None:
    """The first address of that IP version that works beyond one link."""
    for address in addresses:
        if address.version == version and not address.is_link_local:
            return address
    return None


def source_address(interface: Interface, emitted: FiveTuple) -> Address:
    """Where a subsession starts: the host's own address on the interface that the SYN came from.

    The one that the SYN bears, if it is the host's own. Raises SetupError.
    """
    if emitted.src in interface.addresses:
        return emitted.src
    address = usable(interface.addresses, emitted.src.version)
    if address is None:
        raise SetupError(
            Count.NO_ADDRESS,
            f"the interface at port {interface.port} has no IPv{emitted.src.version} address",
        )
    return address
