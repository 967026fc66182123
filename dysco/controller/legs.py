"""Legs in the data plane: what the reference's types are as table entries and packets.

A leg (one host's side of one subsession) that is tracked has a slot: the index of its registers.

    outbound entry: session's five-tuple  -> slot, subsession of Path.FIRST
    second_path:    slot                  -> subsession of Path.SECOND
    inbound entry:  subsession, each path -> slot, path, session's five-tuple
    leg:            slot                  -> Entry
    token:          token                 -> slot             while there is a new way

So one write of `leg` decides which path is which, and everything that a change of it needs is
written before. Order for a new way: inbound and outbound/second_path of the path that is not
`Entry.path`, token, then leg; and when it is over, leg first.

    Submit.LATCH, REVOKE   frame: announcement(...)    the token in it names the leg
    Submit.QUERY           frame: query(slot)
    Submit.HOST            any frame, as if the host at `port` had sent it: parts of a split segment
    Reason.LEG             frame: report, read by parse_report: what a leg's registers hold, and why
                           it is told
    Reason.SPLIT           a host's segment that lies across the cutoff; split() parts it
    Reason.NEW_PATH        SYN-ACK, ACK or RST of the new path's handshake, as the network has it
    Reason.CONTROL         a UDP datagram to ANNOUNCEMENT_PORT of a host of ours that starts with
                           CONTROL_MAGIC: for its agent

Announcements are UDP datagrams from host to host; the data planes exchange them, and repeat
nothing: the agent does, with LATCH.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntFlag

from finsy.proto import p4r

from dysco.agent.model import Address, FiveTuple, MacAddress
from dysco.agent.reconfigure.state import Entry, Registers
from dysco.controller.pipeline import Pipeline

SLOTS = 32768
"""Legs that a device can track; slot 0 is no leg's."""
ANNOUNCEMENT_PORT = 17529
"""UDP, at both ends."""
CONTROL_MAGIC = b"DyCo"


class Event(IntFlag):
    """Why a report comes; 0: because of a query."""

    ANNOUNCED = 1
    """The other anchor's announcement came, for the first time; this side has latched too."""
    DRAINED = 2
    """This anchor needs the old path no more."""
    CLOSING = 4
    """A latch was refused: the host has sent a FIN."""
    REVOKED = 8
    """This new way will never be latched."""


@dataclass(frozen=True, slots=True)
class Report:
    """What the registers of a leg hold."""

    slot: int
    events: Event
    registers: Registers


class LegCodec:
    """Encodes and decodes the entries of the tables `leg`, `second_path_v4`/`_v6` and `token`."""

    def __init__(self, pipeline: Pipeline) -> None:
        self.pipeline = pipeline

    def leg(self, slot: int, entry: Entry) -> p4r.TableEntry:
        """The constants of a leg; without an entry of its own a leg has those of `Entry()`."""
        raise NotImplementedError

    def leg_key(self, slot: int) -> p4r.TableEntry:
        """Names it, for a delete."""
        raise NotImplementedError

    def parse_leg(self, entry: p4r.TableEntry) -> tuple[int, Entry]:
        """Slot and constants of an entry read from the device. Raises PipelineError."""
        raise NotImplementedError

    def second_path(self, slot: int, subsession: FiveTuple) -> p4r.TableEntry:
        """Where what the host sends goes by Path.SECOND."""
        raise NotImplementedError

    def second_path_key(self, slot: int, version: int) -> p4r.TableEntry:
        """Names it; IP `version`."""
        raise NotImplementedError

    def parse_second_path(self, entry: p4r.TableEntry) -> tuple[int, FiveTuple]:
        """Slot and subsession of an entry read from the device. Raises PipelineError."""
        raise NotImplementedError

    def token(self, token: int, slot: int) -> p4r.TableEntry:
        """Finds the leg that an announcement is for."""
        raise NotImplementedError

    def token_key(self, token: int) -> p4r.TableEntry:
        """Names it."""
        raise NotImplementedError


def announcement(token: int, epoch: int, src: Address, dst: Address, src_mac: MacAddress) -> bytes:
    """The frame for LATCH and REVOKE; the data plane fills in what it announces, and the way."""
    raise NotImplementedError


def query(slot: int) -> bytes:
    """The frame for QUERY."""
    raise NotImplementedError


def parse_report(frame: bytes) -> Report:
    """The frame of a packet-in with Reason.LEG. Raises ValueError."""
    raise NotImplementedError


def split(frame: bytes, cutoff: int) -> tuple[bytes, bytes]:
    """The two parts of a host's frame, before and from a cutoff inside it; for Submit.HOST.

    `cutoff`: `registers.cutoff_out` while there is a new way that is latched, else
    `entry.old.floor`. Raises ValueError if the segment doesn't lie across it.
    """
    raise NotImplementedError
