"""What the data plane tells the anchors of a switch, and what a move's anchors have no use for."""

from __future__ import annotations

from dysco.agent.reconfigure.messages import Do, Leg


class NoSwitch:
    """An anchor that latches no cutoff: there is one path at a time."""

    def refresh(self, leg: Leg) -> list[Do]:
        """Registers say nothing to it."""
        return []

    def closing(self, leg: Leg) -> list[Do]:
        """Nothing is latched."""
        return []

    def announced(self, leg: Leg) -> list[Do]:
        """Nothing is announced."""
        return []

    def drained(self, leg: Leg) -> list[Do]:
        """Nothing drains."""
        return []
