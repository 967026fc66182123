"""SYNs with a Dysco header: punted for the host they are for; all other SYNs pass."""

from __future__ import annotations

from common.base import DyscoTest
from common.device import PacketIn
from common.frames import IP_OPTIONS, MAGIC, SYN_OPTIONS, tcp
from common.network import (
    BROADCAST,
    FAMILIES,
    FAR,
    NEXT,
    OTHER,
    PORTS,
    UPLINK,
    A,
    B,
    M,
    Reason,
    session,
    subsession,
)

HEADER = MAGIC + bytes(range(4, 96))
"""As long as a header that names four hosts; the pipeline looks at nothing but the magic."""


class SynTest(DyscoTest):
    """Base: SYNs from the network to host A."""

    def syn(self, family: str, **fields) -> bytes:
        return tcp(subsession(family, FAR, A), FAR.mac, A.mac, **{"flags": "S", **fields})

    def check_punted(self, frame: bytes, name: str) -> None:
        punted = PacketIn(Reason.DYSCO_SYN, UPLINK, A.id, 0, frame)
        self.check(UPLINK, frame, {}, [punted], name=name)

    def check_delivered(self, frame: bytes, name: str) -> None:
        self.check(UPLINK, frame, {A.port: frame}, name=name)


class Punted(SynTest):
    """The frame as it came, with the host that it is for; the host sees nothing of it."""

    def runTest(self) -> None:
        for family in FAMILIES:
            self.check_punted(self.syn(family, payload=HEADER), f"plain {family}")
            with_options = self.syn(family, payload=HEADER, tcp_options=SYN_OPTIONS)
            self.check_punted(with_options, f"options {family}")
            fullest = [("MSS", 1460), *[("NOP", None)] * 36]
            most = self.syn(family, payload=HEADER, tcp_options=fullest)
            self.check_punted(most, f"40 bytes of options {family}")
            with_data = self.syn(family, payload=HEADER + bytes(1000))
            self.check_punted(with_data, f"Fast Open data behind it {family}")
            self.check_punted(self.syn(family, payload=HEADER, flags="SEC"), f"ECN {family}")
        self.check_punted(self.syn("v4", payload=HEADER, ip_options=IP_OPTIONS), "IP options")


class Short(SynTest):
    """However little of a header there is: no host shall see it, and the agent counts it."""

    def runTest(self) -> None:
        for family in FAMILIES:
            for size in (len(MAGIC), len(MAGIC) + 1, 47, 79):
                frame = self.syn(family, payload=HEADER[:size])
                self.check_punted(frame, f"{size} bytes {family}")
            # A frame that ends before its packet does, after the magic and within it.
            whole = self.syn(family, payload=HEADER)
            self.check_punted(whole[: len(MAGIC) - len(HEADER)], f"cut after the magic {family}")
            cut = whole[: 3 - len(HEADER)]
            self.check_delivered(cut, f"cut within the magic {family}")


class Padded(SynTest):
    """What counts as payload is what the IP header says: padding that looks like one is none."""

    def runTest(self) -> None:
        for family in FAMILIES:
            frame = self.syn(family)
            self.check_delivered(frame + HEADER, f"in the padding {family}")
            short = self.syn(family, payload=MAGIC[:3])
            self.check_delivered(short + HEADER[3:], f"three bytes of the magic {family}")


class OtherData(SynTest):
    """TCP Fast Open data without the magic is the host's."""

    def runTest(self) -> None:
        for family in FAMILIES:
            for offset in range(len(MAGIC)):
                other = bytearray(HEADER)
                other[offset] ^= 0x20
                name = f"magic wrong at {offset} {family}"
                self.check_delivered(self.syn(family, payload=bytes(other)), name)
            shifted = self.syn(family, payload=b"\0" + HEADER)
            self.check_delivered(shifted, f"magic one byte late {family}")
            self.check_delivered(self.syn(family, payload=b"D"), f"one byte {family}")
            self.check_delivered(self.syn(family), f"no data {family}")


class OnlySyns(SynTest):
    """The magic in any other segment is data."""

    def runTest(self) -> None:
        for family in FAMILIES:
            for flags in ("A", "SA", "PA", "FA", "R", ""):
                frame = self.syn(family, payload=HEADER, flags=flags)
                self.check_delivered(frame, f"{flags or 'no flags'} {family}")


class WithSession(SynTest):
    """Also where the subsession has entries: a retransmission must be answered again."""

    def runTest(self) -> None:
        for family in FAMILIES:
            arriving = subsession(family, FAR, A)
            entry = self.inbound(A, arriving, session(family, OTHER, A))
            self.device.insert(entry)
            self.check_punted(self.syn(family, payload=HEADER), f"again {family}")
            # Without a header it isn't the session's SYN: it isn't delivered as if it were.
            self.check_delivered(self.syn(family), f"bare {family}")
            self.counted(entry, 0, 0)


class ForOthers(SynTest):
    """What isn't for a host of ours passes: the device is but a wire."""

    def runTest(self) -> None:
        for family in FAMILIES:
            tuple_ = subsession(family, FAR, OTHER)
            frame = tcp(tuple_, FAR.mac, BROADCAST, flags="S", payload=HEADER)
            out = {port: frame for port in PORTS if port != UPLINK}
            self.check(UPLINK, frame, out, name=f"broadcast {family}")
            # From a host that is its own agent, to one elsewhere.
            frame = tcp(subsession(family), A.mac, NEXT.mac, flags="S", payload=HEADER)
            self.check(A.port, frame, {UPLINK: frame}, name=f"from a host {family}")


class BetweenHosts(SynTest):
    """Bridged from one host of the device to another: for the other's agent."""

    def runTest(self) -> None:
        for family in FAMILIES:
            for target in (B, M):
                tuple_ = subsession(family, A, target)
                frame = tcp(tuple_, A.mac, target.mac, flags="S", payload=HEADER)
                punted = PacketIn(Reason.DYSCO_SYN, A.port, target.id, 0, frame)
                self.check(A.port, frame, {}, [punted], name=f"to {target.v4} {family}")
