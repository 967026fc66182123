"""What of a session's reconfigurations must survive the agent's death, as bytes.

Written before anything that follows from it is done. A pickle that may name nothing but the types
of this protocol: a record of another version, or a damaged one, is refused and not run.
"""

from __future__ import annotations

import io
import pickle
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, fields, is_dataclass
from enum import Enum
from operator import attrgetter
from typing import Any

from dysco.agent.events import MoveEnd, Reconfigure
from dysco.agent.model import Address, FiveTuple
from dysco.agent.reconfigure.left import LeftAnchor
from dysco.agent.reconfigure.locking import Lock
from dysco.agent.reconfigure.member import Role, Route
from dysco.agent.reconfigure.messages import AckLock, Deltas, ReconfigurationId, RequestLock
from dysco.agent.reconfigure.move_left import LeftMove
from dysco.agent.reconfigure.move_right import RightMove
from dysco.agent.reconfigure.right import RightAnchor
from dysco.agent.reconfigure.source import Source
from dysco.agent.reconfigure.target import Target

VERSION = 6
_MODULES = (
    "dysco.agent.reconfigure.left",
    "dysco.agent.reconfigure.locking",
    "dysco.agent.reconfigure.member",
    "dysco.agent.reconfigure.messages",
    "dysco.agent.reconfigure.move_left",
    "dysco.agent.reconfigure.move_right",
    "dysco.agent.reconfigure.right",
    "dysco.agent.reconfigure.journal",
    "dysco.agent.reconfigure.source",
    "dysco.agent.reconfigure.target",
)
_TYPES = {
    ("dysco.agent.events", "MoveEnd"),
    ("dysco.agent.events", "Reconfigure"),
    ("dysco.agent.events", "Sides"),
    ("dysco.agent.model", "FiveTuple"),
    ("dysco.agent.options", "Ecn"),
    ("dysco.agent.reconfigure.state", "Path"),
    ("ipaddress", "IPv4Address"),
    ("ipaddress", "IPv6Address"),
}


class JournalError(Exception):
    """The record can't be read; the text says why."""


@dataclass(slots=True)
class Kept:
    """A session's reconfigurations at one host."""

    lock: Lock
    left: LeftAnchor | LeftMove | None
    right: RightAnchor | RightMove | None
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
    wish: Reconfigure | MoveEnd | None = None
    """What waits for its turn, or has it and has not begun."""
    hidden: dict[FiveTuple, FiveTuple] = field(default_factory=dict)
    """As in the session."""
    source: Source | None = None
    target: Target | None = None
    fixed: Deltas | None = None
    """What the host said that it added to the stream."""
    is_released: bool = False
    """This host left the chain, and all on the right of it know."""


class _Reader(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if "." in name or not (module in _MODULES or (module, name) in _TYPES):
            raise JournalError(f"it names {module}.{name}")
        return super().find_class(module, name)


_WISHES = (Reconfigure, MoveEnd)
Reduce = Callable[[Any], tuple[Any, tuple[Any, ...]]]


def _reducers() -> Iterator[tuple[type, Reduce]]:
    """A class and its fields, got in one go: by itself a dataclass looks them up each time."""
    for module in _MODULES:
        for kind in vars(sys.modules[module]).values():
            if not isinstance(kind, type) or (kind.__module__ != module and kind not in _WISHES):
                continue
            if issubclass(kind, Enum):
                yield kind, _reduce_enum
            elif is_dataclass(kind) and len(names := [f.name for f in fields(kind)]) > 1:
                yield kind, _reducer(kind, attrgetter(*names))


def _reducer(kind: type, values: Callable[[Any], tuple[Any, ...]]) -> Reduce:
    return lambda made: (kind, values(made))


def _reduce_enum(member: Enum) -> tuple[Any, tuple[Any, ...]]:
    return type(member), (member._value_,)


_REDUCERS: dict[type, Reduce] = dict(_reducers())


_FIELDS = attrgetter(*(f.name for f in fields(Kept)))
_LOCK = attrgetter(*(f.name for f in fields(Lock)))


_FIXED = (
    int,
    str,
    bytes,
    tuple,
    type(None),
    Enum,
    Reconfigure,
    MoveEnd,
    Deltas,
    RequestLock,
    AckLock,
)


def glance(kept: Kept) -> list[object]:
    """Equal only for equal records; cheaper than to write them, and safe from later changes."""
    return [_still(value) for value in _FIELDS(kept)]


def _still(value: object) -> object:
    """What `value` is now; of what is not known here, nothing that equals anything."""
    if isinstance(value, _FIXED):
        return value
    if isinstance(value, Lock):
        return [_still(part) for part in _LOCK(value)]
    if isinstance(value, dict):
        return value.copy()
    if isinstance(value, LeftAnchor | RightAnchor):
        return [_still(part) for part in value.__getstate__().values()]
    return object()


def write(kept: Kept) -> bytes:
    """The record."""
    out = io.BytesIO()
    pickler = pickle.Pickler(out, protocol=5)
    pickler.dispatch_table = _REDUCERS
    out.write(bytes((VERSION,)))
    pickler.dump(kept)
    return out.getvalue()


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
