"""What of a session's reconfigurations must survive the agent's death, as bytes.

Written before anything that follows from it is done. A pickle that may name nothing but the types
of this protocol: a record of another version, or a damaged one, is refused and not run.
"""

from __future__ import annotations

import io
import pickle
from dataclasses import dataclass, field
from typing import Any

from dysco.agent.events import Reconfigure
from dysco.agent.model import Address, FiveTuple
from dysco.agent.reconfigure.left import LeftAnchor
from dysco.agent.reconfigure.locking import Lock
from dysco.agent.reconfigure.member import Role, Route
from dysco.agent.reconfigure.messages import ReconfigurationId
from dysco.agent.reconfigure.right import RightAnchor

VERSION = 2
_MODULES = (
    "dysco.agent.reconfigure.left",
    "dysco.agent.reconfigure.locking",
    "dysco.agent.reconfigure.member",
    "dysco.agent.reconfigure.messages",
    "dysco.agent.reconfigure.right",
    "dysco.agent.reconfigure.journal",
)
_TYPES = {
    ("dysco.agent.events", "Reconfigure"),
    ("dysco.agent.model", "FiveTuple"),
    ("ipaddress", "IPv4Address"),
    ("ipaddress", "IPv6Address"),
}


class JournalError(Exception):
    """The record can't be read; the text says why."""


@dataclass(slots=True)
class Kept:
    """A session's reconfigurations at one host."""

    lock: Lock
    left: LeftAnchor | None
    right: RightAnchor | None
    routes: dict[ReconfigurationId, Route]
    finished_right: dict[int, int]
    number: int
    through: tuple[Address, ...] = ()
    """Hosts to cross on the new path that begins here."""
    spare: dict[Role, FiveTuple] = field(default_factory=dict)
    """Subsessions of new paths, away from this host."""
    chain: tuple[str, ...] = ()
    """The hosts after this one; the device knows only those of the set-up."""
    names: tuple[str, ...] = ()
    """The same, as it is to be when the reconfiguration that begins here is over."""
    wish: Reconfigure | None = None
    """What waits for its turn, or has it and has not begun."""


class _Reader(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if "." in name or not (module in _MODULES or (module, name) in _TYPES):
            raise JournalError(f"it names {module}.{name}")
        return super().find_class(module, name)


def write(kept: Kept) -> bytes:
    """The record."""
    return bytes((VERSION,)) + pickle.dumps(kept, protocol=5)


def read(record: bytes) -> Kept:
    """What was written. Raises JournalError."""
    if record[:1] != bytes((VERSION,)):
        raise JournalError(f"version {record[:1].hex() or 'missing'}, ours is {VERSION}")
    try:
        kept = _Reader(io.BytesIO(record[1:])).load()
    except JournalError:
        raise
    except Exception as error:
        raise JournalError(f"damaged: {error!r}") from error
    if not isinstance(kept, Kept):
        raise JournalError(f"holds a {type(kept).__name__}")
    return kept
