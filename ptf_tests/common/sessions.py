"""Base of tests that need sessions: the entries for the ways of ways.py."""

from __future__ import annotations

from typing import Any

from common.base import DyscoTest
from common.network import A
from common.ways import Way, all_ways


class SessionTest(DyscoTest):
    """Host A has a session in each family; `install` makes the entries for both directions."""

    def entry(self, way: Way) -> Any:
        """The entry that this way needs."""
        is_outward = way.in_port == A.port
        return (self.outbound if is_outward else self.inbound)(A, way.before, way.after)

    def install(self) -> None:
        """Entries for all ways."""
        self.device.insert(*map(self.entry, all_ways()))
