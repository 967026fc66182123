"""A tracked leg of host A under test, beside the executable reference of its rules.

          port 1 -- A -- [ leg ] == first subsession,  port 3
                                 == second subsession, port 4
                                 -- the other anchor,  port 4

Registers can't be written from outside, so that a test leads the leg where it wants it, step by
step; after each step what left the device is what the reference says (dysco/agent/reconfigure,
which has no I/O), and nothing else. Frames are parsed by scapy, checksums computed by it anew.
"""

from __future__ import annotations

import itertools
import struct
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path as File
from typing import Any

from common.base import DyscoTest
from common.frames import ETHERNET, ethernet, ip_header
from common.network import (
    FAR,
    NEXT,
    OTHER,
    OTHER_PORT,
    UPLINK,
    A,
    FiveTuple,
    Reason,
    Submit,
    session,
    subsession,
)
from scapy.layers.inet import IP, TCP, UDP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import Ether
from scapy.packet import Packet, Raw

sys.path.append(str(File(__file__).resolve().parents[2]))

from dysco.agent.reconfigure import arrival, departure, gate, handover, in_band
from dysco.agent.reconfigure.segment import ACK, FIN, RST, SYN, Segment
from dysco.agent.reconfigure.serial import add
from dysco.agent.reconfigure.state import (
    Announcement,
    Count,
    Entry,
    Gate,
    NewWay,
    Path,
    Registers,
    To,
    Way,
    switching,
)

TOKEN, EPOCH = 0x1122334455667788, 3
MAGIC = b"DySA"
CONTROL_PORT = 17529
ETHERTYPE_LEG = 0x88B5
ISN_OWN, ISN_FAR = 0xFFFFFE00, 0x00001000
"""Of A and of the far host: A's numbers wrap after 512 bytes."""
WATCHED = FIN | RST | SYN

NEW_WAY = NewWay(
    token=TOKEN,
    epoch=EPOCH,
    isn_out=0x7FFFFF00,
    isn_in=0xFFFFFFF0,
    delta_in=0,
    delta_out=0,
    ts_in=7000,
    ts_shift=None,
    scale_in=2,
)
IN_BAND = [(253, in_band.OPTION[2:])]
"""Options of a segment with a message in band, for scapy."""
EVENTS = {
    "announced": 1,
    "drained": 2,
    "closing": 4,
    "revoked": 8,
    "hold_over": 16,
    "still_held": 32,
}
_SLOTS = itertools.count(1)
_REPORT = struct.Struct("!IHBB15I")
_REPORTED = (
    "snd_max",
    "snd_una",
    "edge_out",
    "ts_sent",
    "rcv_ack",
    "edge_in",
    "ts_given",
    "ts_switch",
    "ts_old",
    "latched",
    "revoked",
    "known",
    "told",
    "cutoff_out",
    "cutoff_in",
)
_PUNTED = {To.SPLIT: Reason.SPLIT, To.HELD: Reason.HELD}
_PORTS = {Path.FIRST: UPLINK, Path.SECOND: OTHER_PORT}


def options_of(segment: Segment) -> list[Any]:
    """The segment's options as Linux arranges them, for scapy."""
    out: list[Any] = []
    if segment.tsval is not None:
        out += [("NOP", None), ("NOP", None), ("Timestamp", (segment.tsval, segment.tsecr))]
    if segment.sack:
        edges = tuple(edge for block in segment.sack for edge in block)
        out += [("NOP", None), ("NOP", None), ("SAck", edges)]
    return out


def frame_of(
    ends: FiveTuple, segment: Segment, macs: tuple[str, str], options: Sequence[Any] | None = None
) -> bytes:
    """A frame with the segment; `options` in place of the usual ones."""
    chosen = options_of(segment) if options is None else list(options)
    tcp = TCP(
        sport=ends.sport,
        dport=ends.dport,
        seq=segment.seq,
        ack=segment.ack,
        flags=segment.flags,
        window=segment.window,
        options=chosen,
    )
    packet = ip_header(ends.src, ends.dst) / tcp / Raw(segment.data)
    return ethernet(*macs, bytes(packet), 0x86DD if ends.family == "v6" else 0x0800)


def segment_of(frame: bytes) -> tuple[FiveTuple, Segment]:
    """What a frame carries; all its checksums and lengths must be right."""
    packet = Ether(frame)
    assert rebuilt(packet) == frame, f"a wrong checksum or length: {frame.hex()}"
    tcp = packet[TCP]
    tsval, tsecr, sack = None, 0, ()
    for name, value in tcp.options:
        if name == "Timestamp":
            tsval, tsecr = value
        elif name == "SAck":
            sack = tuple(zip(value[::2], value[1::2], strict=True))
    network = packet[IP] if IP in packet else packet[IPv6]
    ends = FiveTuple(network.src, network.dst, tcp.sport, tcp.dport)
    payload = bytes(tcp.payload)
    flags = int(tcp.flags)
    return ends, Segment(tcp.seq, tcp.ack, flags, tcp.window, payload, sack, tsval, tsecr)


def rebuilt(packet: Packet) -> bytes:
    """The packet with its lengths and checksums computed anew."""
    packet = packet.copy()
    if IP in packet:
        del packet[IP].len, packet[IP].chksum
    else:
        del packet[IPv6].plen
    if TCP in packet:
        del packet[TCP].chksum
    else:
        del packet[UDP].chksum, packet[UDP].len
    return bytes(packet)


class LegTest(DyscoTest):
    """One leg at a time, in one family."""

    def start(
        self,
        family: str = "v4",
        entry: Entry | None = None,
        *,
        from_far: bool = True,
        stamps: bool = True,
        slot: int | None = None,
        isn: int = ISN_FAR,
    ) -> None:
        """Entries for a leg, and the SYN-ACK that begins its connection.

        `from_far`: A opened it, so that the SYN-ACK arrives, with `isn`. `slot` None: a fresh one.
        """
        self.family = family
        self.slot = next(_SLOTS) if slot is None else slot
        self.entry, self.registers = entry or Entry(), Registers()
        self.stamps = stamps
        self.told = 0
        self.other_port = CONTROL_PORT
        self.subsessions = {
            Path.FIRST: subsession(family, dst=NEXT),
            Path.SECOND: subsession(family, dst=OTHER, sport=61005),
        }
        ends = session(family)
        first, second = self.subsessions.values()
        self.entities = [
            self.outbound(A, ends, first, slot=self.slot),
            self.inbound(A, first.reversed, ends.reversed, self.slot, Path.FIRST),
            self.inbound(A, second.reversed, ends.reversed, self.slot, Path.SECOND),
            self.device.table(
                f"second_path_{family}",
                {"slot": self.slot},
                f"to_second_path_{family}",
                second._asdict(),
            ),
            self.device.table("token", {"token": TOKEN}, "leg_of", {"slot": self.slot}),
            self.leg_row(self.entry),
        ]
        self.device.insert(*self.entities)
        self.before = self.legs_counted()
        synack = Segment(
            isn if from_far else ISN_OWN,
            (ISN_OWN if from_far else isn) + 1,
            SYN | ACK,
            60000,
            tsval=5000 if stamps else None,
            tsecr=4000 if stamps else 0,
        )
        if from_far:
            old = self.entry.old
            synack = replace(
                synack,
                seq=(synack.seq - old.seq_in) % 2**32,
                ack=(synack.ack + old.seq_out) % 2**32,
            )
            self.arrives(Way.OLD, synack)
        else:
            self.sends(synack)

    def stop(self) -> None:
        """The counters are right, and the entries go."""
        counts = Counter(self.legs_counted()) - Counter(self.before)
        assert counts == self.registers.counts, f"{counts}, not {self.registers.counts}"
        self.device.delete(*self.entities)

    def legs_counted(self) -> dict[Count, int]:
        """The device's counts."""
        return {reason: self.device.count("legs", i).packets for i, reason in enumerate(Count)}

    def leg_row(self, entry: Entry) -> Any:
        """The constants as a table entry."""
        old, new = asdict(entry.old), entry.new
        params = {
            **{k: v % 2**32 for k, v in old.items() if k != "floor"},
            "has_floor": int(old["floor"] is not None),
            "floor": old["floor"] or 0,
            "path": int(entry.path),
            "scale_own": entry.scale_own,
            "scale_heard": entry.scale_heard,
            "jump": entry.jump,
        }
        if new is not None:
            params |= {
                "token": new.token,
                "epoch": new.epoch,
                "isn_out": new.isn_out,
                "isn_in": new.isn_in,
                "delta_in": new.delta_in % 2**32,
                "delta_out": new.delta_out % 2**32,
                "new_ts_in": new.ts_in,
                "has_ts_shift": int(new.ts_shift is not None),
                "ts_shift": (new.ts_shift or 0) % 2**32,
                "new_scale_in": new.scale_in,
                "has_edge": int(new.edge is not None),
                "edge": new.edge or 0,
            }
        action = "one_path" if new is None else "two_paths"
        if entry.gate is not Gate.OPEN:
            action = "gated"
            params |= {"gate": int(entry.gate), "hold_number": entry.hold}
        return self.device.table("leg", {"slot": self.slot}, action, params)

    def set_entry(self, entry: Entry) -> None:
        """The one table write."""
        self.device.modify(self.leg_row(entry))
        self.entry = entry

    def segment(
        self, seq: int, ack: int, data: bytes = b"", flags: int = ACK, **fields: Any
    ) -> Segment:
        """A segment with timestamps, if the session has them."""
        stamps = {"tsval": 6000, "tsecr": 4500} if self.stamps else {}
        numbers = {"window": 1000, **stamps, **fields}
        return Segment(seq % 2**32, ack % 2**32, flags, data=data, **numbers)

    # Steps

    def sends(
        self,
        segment: Segment,
        *to: To,
        options: Sequence[Any] | None = None,
        released: bool = False,
    ) -> None:
        """A sends it, or its agent lets it go; `to`: where that must go, if it is given."""
        frame = frame_of(session(self.family), segment, (A.mac, FAR.mac), options)
        before = replace(self.registers)
        out = departure.from_host(self.entry, self.registers, segment, released=released)
        if released:
            self.device.send(frame, A.port, Submit.RELEASED)
        else:
            self.send(A.port, frame)
        packet_ins = [(_PUNTED[where], frame) for where, _ in out if where in _PUNTED]
        is_held = any(where is To.HELD for where, _ in out)
        if segment.flags & WATCHED and not is_held and self.entry.gate is not Gate.SHUT:
            packet_ins.append((Reason.SENT, frame))
        self.happened(out, to, packet_ins, before)

    def arrives(
        self, way: Way, segment: Segment, *to: To, options: Sequence[Any] | None = None
    ) -> None:
        """It comes for A by that way."""
        path = self.entry.path if way is Way.OLD else self.entry.path.other
        ends = self.subsessions[path].reversed
        frame = frame_of(ends, segment, (NEXT.mac, A.mac), options)
        before = replace(self.registers)
        out = arrival.from_network(self.entry, self.registers, way, segment)
        self.send(_PORTS[path], frame)
        packet_ins = []
        for where, what in out:
            if where is To.HOST and what.flags & WATCHED:
                packet_ins.append((Reason.RECEIVED, what))
        self.happened(out, to, packet_ins, before)

    def handshakes(self, segment: Segment) -> None:
        """A segment of the new path's handshake: it goes to the agent as it is."""
        path = self.entry.path.other
        frame = frame_of(self.subsessions[path].reversed, segment, (NEXT.mac, A.mac))
        self.send(_PORTS[path], frame)
        self.collect([], [(Reason.NEW_PATH, frame)])

    def latch(self) -> None:
        """The packet-out that latches and announces."""
        out: list[Any] = []
        try:
            out = [handover.latch(self.entry, self.registers)]
        except handover.ClosingError:
            self.device.send(self.announcement(), 0, Submit.LATCH)
            self.collect([], [(Reason.LEG, EVENTS["closing"])])
        else:
            self.device.send(self.announcement(), 0, Submit.LATCH)
            self.collect(out, [])

    def announce(self, known: bool = False, **changes: int) -> None:
        """The other anchor's announcement comes."""
        message = Announcement(
            **{"token": TOKEN, "epoch": EPOCH, "cutoff": 0, "edge": 0, "known": known, **changes}
        )
        out: list[Any] = []
        events = 0
        try:
            answer, news = handover.announced(self.entry, self.registers, message)
            if answer is not None:
                out = [answer]
            if news:
                events = EVENTS["announced"]
                if arrival.drained(self.registers) and self.told != EPOCH:
                    events |= EVENTS["drained"]
                    self.told = EPOCH
        except handover.ClosingError:
            events = EVENTS["closing"]
        self.send(OTHER_PORT, self.announcement(message))
        self.collect(out, [(Reason.LEG, events)] if events else [])

    def tells_in_band(self, message: bytes) -> None:
        """The agent's packet-out: a message in a segment of the session."""
        out = Segment(0, 0, ACK, 0, message)
        frame = frame_of(session(self.family), out, (A.mac, "00:00:00:00:00:00"), IN_BAND)
        end, ack, window = in_band.numbers(self.entry, self.registers)
        numbered = Segment(add(end, -len(message)), ack, ACK, window, message)
        self.device.send(frame, A.port, Submit.IN_BAND)
        self.collect([(To.OLD, numbered)], [])

    def is_told_in_band(self, path: Path, message: bytes) -> None:
        """One comes from the other end of a subsession: it is for the agent, as it came."""
        arrived = Segment(7, 8, ACK, 100, message)
        ends = self.subsessions[path].reversed
        frame = frame_of(ends, arrived, (NEXT.mac, A.mac), IN_BAND)
        self.send(_PORTS[path], frame)
        self.collect([], [(Reason.CONTROL, frame)])

    def revoke(self) -> None:
        """The packet-out that revokes."""
        done = handover.revoke(self.entry, self.registers)
        self.device.send(self.announcement(), 0, Submit.REVOKE)
        self.collect([], [(Reason.LEG, EVENTS["revoked"] if done else 0)])

    def query(self) -> None:
        """The device's registers are the reference's."""
        self.device.send(self.report(Registers()), 0, Submit.QUERY)
        self.collect([], [(Reason.LEG, 0)])

    def end_hold(self, number: int) -> None:
        """The packet-out that ends a hold, if nothing was held since the last one."""
        over = gate.end_hold(self.entry, self.registers, number)
        self.device.send(self.report(Registers(latched=number)), 0, Submit.END_HOLD)
        self.collect([], [(Reason.LEG, EVENTS["hold_over" if over else "still_held"])])

    def seed(self, registers: Registers) -> None:
        """The leg goes on where another device's ended."""
        self.registers = replace(registers, counts=self.registers.counts)
        self.device.send(self.report(registers), 0, Submit.SEED)
        self.collect([], [])

    def report(self, registers: Registers) -> bytes:
        """A frame as the agent makes it, about the leg."""
        values = [getattr(registers, name) for name in _REPORTED]
        body = _REPORT.pack(self.slot, 0, registers.fin_sent, 0, *values)
        return ethernet(A.mac, A.mac, body, ETHERTYPE_LEG)

    def announcement(self, message: Announcement | None = None) -> bytes:
        """A frame as the agent makes it, or as it comes from the other anchor."""
        src, dst, macs = A, OTHER, (A.mac, OTHER.mac)
        m = message or Announcement(TOKEN, EPOCH, 0, 0, False)
        if message is not None:
            src, dst, macs = OTHER, A, (OTHER.mac, A.mac)
        ends = (getattr(src, self.family), getattr(dst, self.family))
        body = MAGIC + struct.pack("!QIIIH", m.token, m.epoch, m.cutoff, m.edge, int(m.known))
        sport = CONTROL_PORT if message is None else self.other_port
        packet = ip_header(*ends) / UDP(sport=sport, dport=CONTROL_PORT) / Raw(body)
        ethertype = 0x86DD if self.family == "v6" else 0x0800
        return ethernet(*macs, bytes(packet), ethertype)

    # What comes of it

    def happened(
        self,
        out: Sequence[tuple[To, Any]],
        to: Sequence[To],
        packet_ins: list[tuple[Reason, Any]],
        before: Registers,
    ) -> None:
        """Compare with what the rules say."""
        if to:
            where = Counter(where for where, _ in out if where not in (To.PEER, *_PUNTED))
            assert where == Counter(to), f"the rules say {out}"
        left = [
            what if where is To.PEER else (where, what)
            for where, what in out
            if where not in _PUNTED
        ]
        new = self.entry.new
        if (
            new is not None
            and switching(self.entry, before)
            and before.known == new.epoch
            and self.told != new.epoch
            and arrival.drained(self.registers)
        ):
            self.told = new.epoch
            packet_ins.append((Reason.LEG, EVENTS["drained"]))
        self.collect(left, packet_ins)

    def collect(self, out: Sequence[Any], packet_ins: Sequence[tuple[Reason, Any]]) -> None:
        """Exactly this leaves, and these packet-ins come."""
        frames = list(self._frames(len(out)))
        punted = list(self._packet_ins(len(packet_ins)))
        frames += self._frames(None)
        punted += self._packet_ins(None, 0.004)
        assert Counter(map(self.read, frames)) == Counter(map(plain, out)), (
            f"left: {list(map(self.read, frames))}\nrules: {list(out)}"
        )
        got: Counter[Any] = Counter()
        for item in punted:
            what: Any = item.frame
            if item.reason is Reason.LEG:
                what = self.events_of(item.frame)
            elif item.reason is Reason.RECEIVED:
                what = segment_of(item.frame)[1]
            got[item.reason, what] += 1
        wanted = Counter(
            (reason, plain((To.HOST, what))[1] if isinstance(what, Segment) else what)
            for reason, what in packet_ins
        )
        assert got == wanted, f"packet-ins: {got}, not {wanted}"

    def read(self, item: tuple[int, bytes]) -> Any:
        """A frame that left, as the reference has it."""
        port, frame = item
        packet = Ether(frame)
        if UDP in packet:
            assert port == OTHER_PORT
            assert packet.dst == OTHER.mac
            assert (packet[UDP].sport, packet[UDP].dport) == (CONTROL_PORT, self.other_port)
            assert rebuilt(packet) == frame
            body = bytes(packet[UDP].payload)
            assert body[:4] == MAGIC
            token, epoch, cutoff, edge, known = struct.unpack_from("!QIIIH", body, 4)
            return Announcement(token, epoch, cutoff, edge, bool(known))
        ends, segment = segment_of(frame)
        if port == A.port:
            assert ends == session(self.family).reversed
            assert packet.dst == A.mac
            return To.HOST, segment
        path = next(path for path, number in _PORTS.items() if number == port)
        assert ends == self.subsessions[path]
        assert packet.dst == (NEXT if path is Path.FIRST else OTHER).mac
        return (To.OLD if path is self.entry.path else To.NEW), segment

    def events_of(self, frame: bytes) -> int:
        """Why a report came; its registers must be the reference's."""
        assert len(frame) == ETHERNET + _REPORT.size
        slot, events, fin_sent, last_way, *values = _REPORT.unpack_from(frame, ETHERNET)
        assert slot == self.slot
        told = dict(zip(_REPORTED, values, strict=True))
        told |= {"fin_sent": bool(fin_sent)}
        if self.registers.latched:
            told |= {"last_way": Way.NEW if last_way else Way.OLD}
        wanted = {name: getattr(self.registers, name) for name in told}
        if not self.registers.known:
            # Left over from another connection: nobody looks at it.
            for name in ("cutoff_in", "ts_switch", "ts_old"):
                told[name] = wanted[name]
        if not self.registers.latched:
            told["cutoff_out"] = wanted["cutoff_out"]
        assert told == wanted, f"registers {told}\nnot {wanted}"
        return int(events)


def plain(item: Any) -> Any:
    """Without timestamps, what their echo says means nothing."""
    if isinstance(item, Announcement):
        return item
    to, segment = item
    if segment.tsval is None:
        segment = replace(segment, tsecr=0)
    return to, segment
