"""The two ways through the device that a session's packets take, out of and into its host."""

from __future__ import annotations

from typing import Any, NamedTuple

from common.frames import tcp
from common.network import FAMILIES, FAR, NEXT, UPLINK, A, FiveTuple, session, subsession


class Way(NamedTuple):
    """One direction: where a packet comes in and leaves, and as what."""

    name: str
    in_port: int
    out_port: int
    before: FiveTuple
    after: FiveTuple
    in_macs: tuple[str, str]
    out_macs: tuple[str, str]

    def frame(self, **fields: Any) -> bytes:
        """A segment as it comes in."""
        return tcp(self.before, *self.in_macs, **fields)

    def expected(self, **fields: Any) -> bytes:
        """The same as it must leave."""
        return tcp(self.after, *self.out_macs, **fields)


def outward(family: str) -> Way:
    """From host A to its subsession's next hop."""
    before, after = session(family), subsession(family)
    macs = (A.mac, FAR.mac), (A.mac, NEXT.mac)
    return Way(f"out {family}", A.port, UPLINK, before, after, *macs)


def inward(family: str) -> Way:
    """From the same subsession to host A."""
    before, after = subsession(family).reversed, session(family).reversed
    macs = (FAR.mac, A.mac), (FAR.mac, A.mac)
    return Way(f"in {family}", UPLINK, A.port, before, after, *macs)


def all_ways() -> list[Way]:
    """Both ways in both families."""
    return [way(family) for family in FAMILIES for way in (outward, inward)]
