"""Which SYNs of hosts go to the controller: the policy table, known sessions, and middleboxes."""

from __future__ import annotations

from common.base import DyscoTest
from common.device import PacketIn
from common.frames import SYN_OPTIONS, tcp
from common.network import (
    FAMILIES,
    FAR,
    OTHER,
    UPLINK,
    A,
    B,
    FiveTuple,
    Host,
    M,
    Reason,
    address,
    session,
    subsession,
)
from common.schema import number

PORT_BITS, DSCP_BITS, HOST_BITS = 16, 6, 16


def ones(bits: int) -> int:
    """A mask for all bits of a field."""
    return (1 << bits) - 1


class PolicyTest(DyscoTest):
    """Base: SYNs of hosts, and whether they are punted."""

    def check_syn(
        self,
        tuple_: FiveTuple,
        policy: int | None,
        host: Host = A,
        name: object = "",
        **fields: object,
    ) -> None:
        """A host's SYN: punted as it is, for `policy`; None: it passes instead."""
        frame = tcp(tuple_, host.mac, FAR.mac, **{"flags": "S", **fields})
        if policy is None:
            self.check(host.port, frame, {UPLINK: frame}, name=name)
        else:
            punted = PacketIn(Reason.HOST_SYN, host.port, host.id, policy, frame)
            self.check(host.port, frame, {}, [punted], name=name)


class WithoutPolicy(PolicyTest):
    """A SYN passes untouched."""

    def runTest(self) -> None:
        for family in FAMILIES:
            self.check_syn(session(family), None, name=family, tcp_options=SYN_OPTIONS)


class EachField(PolicyTest):
    """Each field alone decides; a value that is off by one does not match."""

    def runTest(self) -> None:
        for family in FAMILIES:
            mine = session(family)
            bits = 128 if family == "v6" else 32
            fields = {
                "host": (A.id, HOST_BITS, (mine, {"host": B})),
                "src": (mine.src, bits, (mine._replace(src=address(B, family)), {})),
                "dst": (mine.dst, bits, (mine._replace(dst=address(OTHER, family)), {})),
                "sport": (mine.sport, PORT_BITS, (mine._replace(sport=mine.sport ^ 1), {})),
                "dport": (mine.dport, PORT_BITS, (mine._replace(dport=mine.dport ^ 1), {})),
                "dscp": (46, DSCP_BITS, (mine, {"dscp": 47})),
            }
            for field, (value, width, (other, change)) in fields.items():
                entry = self.policy(family, 7, **{field: (value, ones(width))})
                self.device.insert(entry)
                name = f"{field} {family}"
                self.check_syn(mine, 7, name=name, dscp=46)
                self.check_syn(other, None, name=f"other {name}", **{"dscp": 46, **change})
                self.device.delete(entry)
                self.check_syn(mine, None, name=f"no {name} any more", dscp=46)


class AllFields(PolicyTest):
    """All fields of one entry must match."""

    def runTest(self) -> None:
        for family in FAMILIES:
            mine = session(family)
            width = ones(128 if family == "v6" else 32)
            match = {
                "host": (A.id, ones(HOST_BITS)),
                "src": (mine.src, width),
                "dst": (mine.dst, width),
                "sport": (mine.sport, ones(PORT_BITS)),
                "dport": (mine.dport, ones(PORT_BITS)),
                "dscp": (10, ones(DSCP_BITS)),
            }
            self.device.insert(self.policy(family, 0xFFFF, **match))
            self.check_syn(mine, 0xFFFF, name=family, dscp=10)
            for changed in (
                mine._replace(src=address(B, family)),
                mine._replace(dst=address(OTHER, family)),
                mine._replace(sport=1),
                mine._replace(dport=81),
            ):
                self.check_syn(changed, None, name=changed, dscp=10)
            self.check_syn(mine, None, name=f"DSCP {family}", dscp=0)
            self.check_syn(mine, None, host=B, name=f"host {family}", dscp=10)


class Masks(PolicyTest):
    """Prefixes of addresses, and parts of ports, are matched by mask."""

    def runTest(self) -> None:
        networks = {
            "v4": ("10.8.0.0", "255.254.0.0", "10.9.255.255", "10.10.0.0"),
            "v6": ("2001:db8:8::", "ffff:ffff:fffe::", "2001:db8:9:ffff::1", "2001:db8:a::"),
        }
        for family, (network, mask, inside, outside) in networks.items():
            self.device.insert(
                self.policy(family, 3, dst=(network, number(mask)), dport=(0x1F40, 0xFFF0))
            )
            mine = session(family)
            for dport in (0x1F40, 0x1F4F):
                self.check_syn(mine._replace(dst=inside, dport=dport), 3, name=f"{dport} {family}")
            for miss in (
                mine._replace(dst=outside, dport=0x1F40),
                mine._replace(dst=inside, dport=0x1F3F),
                mine._replace(dst=inside, dport=0x1F50),
            ):
                self.check_syn(miss, None, name=miss)


class Priorities(PolicyTest):
    """The highest priority wins, whether it is written first or last; `direct` exempts."""

    def runTest(self) -> None:
        http, everything = (80, ones(PORT_BITS)), {}
        for family in FAMILIES:
            low = self.policy(family, 1, priority=10, **everything)
            high = self.policy(family, 2, priority=20, dport=http)
            exempt = self.policy(family, None, priority=30, host=(B.id, ones(HOST_BITS)))
            for order in ((low, high, exempt), (exempt, high, low)):
                self.device.insert(*order)
                self.check_syn(session(family), 2, name=f"both match {family}")
                self.check_syn(session(family)._replace(dport=22), 1, name=f"one matches {family}")
                self.check_syn(session(family, B), None, host=B, name=f"exempt {family}")
                self.device.delete(*order)


class ChangedPolicy(PolicyTest):
    """A policy whose chain is replaced in place: the next SYN tells the new one."""

    def runTest(self) -> None:
        for family in FAMILIES:
            http = {"dport": (80, ones(PORT_BITS))}
            self.device.insert(self.policy(family, 5, **http))
            self.check_syn(session(family), 5, name=f"before {family}")
            self.device.modify(self.policy(family, 6, **http))
            self.check_syn(session(family), 6, name=f"after {family}")
            self.device.modify(self.policy(family, None, **http))
            self.check_syn(session(family), None, name=f"direct {family}")


class OnlyFirstSyns(PolicyTest):
    """Nothing but a SYN is asked about: what is under way when a policy comes goes on."""

    def runTest(self) -> None:
        for family in FAMILIES:
            self.device.insert(self.policy(family, 4))
            for flags in ("A", "SA", "FA", "R", "RA", "PA", ""):
                frame = tcp(session(family), A.mac, FAR.mac, flags=flags, payload=b"x")
                self.check(A.port, frame, {UPLINK: frame}, name=f"{flags or 'no flags'} {family}")
            for flags in ("S", "SEC", "SU"):
                self.check_syn(session(family), 4, name=f"{flags} {family}", flags=flags)


class OnlyOfHosts(PolicyTest):
    """Policies are for what our hosts send: SYNs from the network pass to the host."""

    def runTest(self) -> None:
        for family in FAMILIES:
            self.device.insert(self.policy(family, 4))
            frame = tcp(session(family, FAR, A), FAR.mac, A.mac, flags="S")
            self.check(UPLINK, frame, {A.port: frame}, name=family)


class AsSent(PolicyTest):
    """The packet-in is the frame as the host sent it, whatever it holds."""

    def runTest(self) -> None:
        for family in FAMILIES:
            self.device.insert(self.policy(family, 4))
            name = f"options and data {family}"
            fast_open = [*SYN_OPTIONS, ("TFO", (0x1234, 0x5678))]
            fields = {"tcp_options": fast_open, "payload": b"GET / HTTP/1.1\r\n\r\n"}
            self.check_syn(session(family), 4, name=name, **fields)
            self.check_syn(session(family), 4, name=f"full {family}", payload=bytes(1400))
            padded = tcp(session(family), A.mac, FAR.mac, flags="S").ljust(80, b"\xa5")
            punted = PacketIn(Reason.HOST_SYN, A.port, A.id, 4, padded)
            self.check(A.port, padded, {}, [punted], name=f"padded {family}")


class Retransmission(PolicyTest):
    """A SYN of a session that has entries is punted again, for the agent to add its header."""

    def runTest(self) -> None:
        for family in FAMILIES:
            self.device.insert(self.outbound(A, session(family), subsession(family)))
            self.check_syn(session(family), 0, name=f"without a policy {family}")
            self.device.insert(self.policy(family, 4))
            # Session affinity: policies aren't asked about it any more.
            self.check_syn(session(family), 0, name=f"with a policy {family}")


class Middlebox(PolicyTest):
    """Each of its SYNs is punted, since it may belong to a session; the policy is told too."""

    def runTest(self) -> None:
        for family in FAMILIES:
            # Of a session between others, and of its own.
            self.check_syn(session(family, FAR, OTHER), 0, host=M, name=f"foreign {family}")
            self.check_syn(session(family, M), 0, host=M, name=f"own {family}")
            self.device.insert(self.policy(family, 9, host=(M.id, ones(HOST_BITS))))
            self.check_syn(session(family, M), 9, host=M, name=f"policy {family}")


class Hits(PolicyTest):
    """A policy counts the SYNs that it caught."""

    def runTest(self) -> None:
        for family in FAMILIES:
            entry = self.policy(family, 4, dport=(80, ones(PORT_BITS)))
            self.device.insert(entry)
            size = len(tcp(session(family), A.mac, FAR.mac, flags="S"))
            for sport in (1, 2, 3):
                self.check_syn(session(family, sport=sport), 4, name=f"{sport} {family}")
            self.check_syn(session(family)._replace(dport=81), None, name=f"miss {family}")
            self.counted(entry, 3, 3 * size)
