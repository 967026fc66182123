"""Packet-outs: each way in which the controller may submit one, and a way that there isn't."""

from __future__ import annotations

from common.device import PacketIn
from common.frames import MAGIC, ethernet, tcp
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
    Drop,
    M,
    Reason,
    Submit,
    session,
    subsession,
)
from common.sessions import SessionTest

UNKNOWN_SUBMIT = 0x77


class PacketOutTest(SessionTest):
    """Base: a packet-out, and exactly what follows."""

    def check_out(self, frame, port, submit, out=None, packet_ins=(), *, name="") -> None:
        self.device.send(frame, port, submit)
        self.expect(out, packet_ins, name)


class AtPort(PacketOutTest):
    """Leaves there as it is, whatever it is: nothing is looked up."""

    def runTest(self) -> None:
        self.install()
        for family in FAMILIES:
            self.device.insert(self.policy(family, 4))
        for port in PORTS:
            frames = {
                "anything": ethernet(NEXT.mac, B.mac, b"no IP at all", 0x88B5),
                "shortest": ethernet(NEXT.mac, B.mac, b"", 0x88B5),
            }
            for family in FAMILIES:
                frames[f"session {family}"] = tcp(session(family), A.mac, FAR.mac, flags="FA")
                frames[f"SYN {family}"] = tcp(session(family), A.mac, FAR.mac, flags="S")
                arriving = subsession(family).reversed
                frames[f"subsession {family}"] = tcp(arriving, FAR.mac, A.mac, flags="R")
                header = tcp(arriving, FAR.mac, A.mac, flags="S", payload=MAGIC + bytes(92))
                frames[f"Dysco SYN {family}"] = header
            for frame in frames.values():
                self.device.send(frame, port, Submit.PORT)
            self.expect({port: list(frames.values())}, name=f"port {port}")


class Routed(PacketOutTest):
    """By destination address, with the neighbour's MAC filled in; `port` means nothing."""

    def runTest(self) -> None:
        payload = MAGIC + bytes(92)
        for family in FAMILIES:
            for port in (0, A.port, UPLINK):
                for target in (NEXT, OTHER):
                    hop = subsession(family, dst=target)
                    fields = {"flags": "S", "payload": payload}
                    frame = tcp(hop, A.mac, "00:00:00:00:00:00", **fields)
                    out = {target.port: tcp(hop, A.mac, target.mac, **fields)}
                    name = f"port {port} to {target.v4} {family}"
                    self.check_out(frame, port, Submit.ROUTE, out, name=name)


class RoutedToHost(PacketOutTest):
    """To another host of this device: seen as if it came from the network."""

    def runTest(self) -> None:
        for family in FAMILIES:
            hop = subsession(family, dst=B)
            fields = {"flags": "S", "payload": MAGIC + bytes(92)}
            frame = tcp(hop, A.mac, "00:00:00:00:00:00", **fields)
            punted = PacketIn(Reason.DYSCO_SYN, A.port, B.id, 0, tcp(hop, A.mac, B.mac, **fields))
            self.check_out(frame, A.port, Submit.ROUTE, {}, [punted], name=f"SYN {family}")
            # A RST of A's agent that takes a set-up back.
            second = session(family, OTHER)
            self.device.insert(self.inbound(B, hop, second))
            frame = tcp(hop, A.mac, "00:00:00:00:00:00", flags="R")
            expected = tcp(second, A.mac, B.mac, flags="R")
            copy = PacketIn(Reason.RECEIVED, A.port, B.id, 0, expected)
            out = {B.port: expected}
            self.check_out(frame, A.port, Submit.ROUTE, out, [copy], name=f"RST {family}")


class RoutedNowhere(PacketOutTest):
    """Without a route it is dropped and counted; so is what has no address to route by."""

    def runTest(self) -> None:
        nowhere = {"v4": "192.0.2.1", "v6": "3fff::1"}
        for family in FAMILIES:
            hop = subsession(family)._replace(dst=nowhere[family])
            with self.dropped(Drop.NO_ROUTE):
                self.check_out(tcp(hop, A.mac, NEXT.mac), A.port, Submit.ROUTE, name=family)
        frame = ethernet(A.mac, NEXT.mac, b"no IP at all", 0x88B5)
        with self.dropped(Drop.NO_ROUTE):
            self.check_out(frame, A.port, Submit.ROUTE, name="no address")


class Bridged(PacketOutTest):
    """As if it had come in at `port`, outside of any session: no entry of the sender, no policy."""

    def runTest(self) -> None:
        for family in FAMILIES:
            self.device.insert(self.outbound(A, session(family), subsession(family)))
            self.device.insert(self.policy(family, 4))
            for flags in ("S", "A", "FA"):
                frame = tcp(session(family), A.mac, FAR.mac, flags=flags)
                out = {UPLINK: frame}
                name = f"{flags} {family}"
                self.check_out(frame, A.port, Submit.BRIDGE, out, name=f"to the uplink {name}")
                frame = tcp(session(family, M, B), M.mac, B.mac, flags=flags)
                out = {B.port: frame}
                self.check_out(frame, M.port, Submit.BRIDGE, out, name=f"to a host {name}")
        frame = ethernet(A.mac, BROADCAST, b"to all of you", 0x88B5)
        out = {port: frame for port in PORTS if port != A.port}
        self.check_out(frame, A.port, Submit.BRIDGE, out, name="flood, and not back")


class BridgedBack(PacketOutTest):
    """It does not go back to the port that it is said to have come from."""

    def runTest(self) -> None:
        frame = tcp(session("v4", B, A), B.mac, A.mac)
        with self.dropped(Drop.HAIRPIN):
            self.check_out(frame, A.port, Submit.BRIDGE)


class UnknownSubmit(PacketOutTest):
    """Dropped and counted."""

    def runTest(self) -> None:
        for family in FAMILIES:
            with self.dropped(Drop.BAD_PACKET_OUT):
                frame = tcp(session(family), A.mac, FAR.mac)
                self.check_out(frame, A.port, UNKNOWN_SUBMIT, name=family)
        with self.dropped(Drop.BAD_PACKET_OUT):
            frame = ethernet(A.mac, BROADCAST, b"not to all", 0x88B5)
            self.check_out(frame, A.port, UNKNOWN_SUBMIT, name="broadcast")
