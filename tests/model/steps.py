"""Writes down each step that the code's locks and anchors take, in the words of `model.table`."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from dysco.agent.reconfigure.left import LeftAnchor
from dysco.agent.reconfigure.locking import Lock
from dysco.agent.reconfigure.messages import DoMove, MoveDone
from dysco.agent.reconfigure.move_left import LeftMove
from dysco.agent.reconfigure.move_right import RightMove
from dysco.agent.reconfigure.right import RightAnchor
from dysco.agent.reconfigure.segment import ACK, RST, SYN, Segment
from dysco.agent.reconfigure.source import Source
from dysco.agent.reconfigure.target import Target
from model.table import Event, Role, Step

CALLS: dict[type, dict[str, Event | None]] = {
    Lock: {
        "request": Event.REQUEST,
        "acknowledge": Event.ACK_LOCK,
        "refuse": Event.NACK_LOCK,
        "end": None,
        "free": Event.OVER,
    },
    LeftAnchor: {
        "__init__": Event.START,
        "message": None,
        "new_path": None,
        "cancel": Event.CANCEL,
        "announced": Event.ANNOUNCED,
        "_maybe_release": Event.DRAINED,
        "closing": Event.CLOSING,
        "session_over": Event.SESSION_OVER,
        "wake": Event.PATIENCE,
    },
    RightAnchor: {
        "__init__": Event.REQUEST,
        "message": None,
        "new_path": None,
        "announced": Event.ANNOUNCED,
        "drained": Event.DRAINED,
        "revoked": Event.REVOKED,
        "forsaken": Event.FORSAKEN,
        "session_over": Event.SESSION_OVER,
        "recover": Event.RECOVER,
    },
}
"""What moves a state, by the method that is told of it; None: its argument says what it is."""

MOVE_CALLS: dict[type, dict[str, Event | None]] = {
    LeftMove: {
        "__init__": Event.START,
        "message": None,
        "cancel": Event.CANCEL,
        "session_over": Event.SESSION_OVER,
        "wake": Event.PATIENCE,
    },
    RightMove: {
        "__init__": Event.REQUEST,
        "message": None,
        "forsaken": Event.FORSAKEN,
        "recover": Event.RECOVER,
        "session_over": Event.SESSION_OVER,
        "wake": Event.PATIENCE,
    },
    Source: {
        "__init__": Event.REQUEST,
        "message": None,
        "wake": Event.QUIET,
        "exported": Event.EXPORTED,
        "back": Event.CANCEL_LOCK,
        "gone": Event.RELEASE,
    },
    Target: {
        "__init__": Event.MOVE_IN,
        "message": None,
        "imported": Event.IMPORTED,
        "session_over": Event.SESSION_OVER,
        "wake": Event.FORSAKEN,
        "drop": Event.CANCEL_LOCK,
    },
}

_OUTER = ("message", "closing", "forsaken", "new_path")
"""They say what happened, whatever they call; else the innermost does."""

_ROLES = {
    Lock: Role.LOCK,
    LeftAnchor: Role.LEFT,
    RightAnchor: Role.RIGHT,
    LeftMove: Role.MOVE,
    RightMove: Role.JOIN,
    Source: Role.SOURCE,
    Target: Role.TARGET,
}


def _event(named: Event | None, argument: Any) -> Event:
    if named is not None:
        return named
    if isinstance(argument, Segment):
        if argument.flags & RST:
            return Event.REFUSED
        return Event.SYN if argument.flags & (SYN | ACK) == SYN else Event.OPEN
    name = type(argument).__name__
    if isinstance(argument, DoMove | MoveDone):
        return Event(f"{name} {argument.step.name.lower()}")
    return Event.DRAINED if name == "Drained" else Event(name)


@contextmanager
def traced(
    watched: dict[type, dict[str, Event | None]] = CALLS,
) -> Iterator[set[Step]]:
    """The steps that are taken meanwhile."""
    steps: set[Step] = set()
    calls: list[tuple[str, Event]] = []

    def reports(name: str, named: Event | None, method: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(method)
        def call(self: object, *args: Any, **more: Any) -> Any:
            calls.append((name, _event(named, args[0] if args else None)))
            try:
                return method(self, *args, **more)
            finally:
                calls.pop()

        return call

    def setter(role: Role) -> Callable[[object, str, object], None]:
        def set_(self: object, name: str, value: object) -> None:
            if name == "state" and calls:
                before = getattr(self, "state", None)
                state = before.value if before is not None else "none"
                becomes = getattr(value, "value", "")
                if state != becomes:
                    steps.add(Step(role, state, _cause(calls), becomes))
            object.__setattr__(self, name, value)

        return set_

    with pytest.MonkeyPatch.context() as patch:
        for kind, methods in watched.items():
            for name, named in methods.items():
                patch.setattr(kind, name, reports(name, named, getattr(kind, name)))
            patch.setattr(kind, "__setattr__", setter(_ROLES[kind]), raising=False)
        yield steps


def _cause(calls: list[tuple[str, Event]]) -> Event:
    name, event = calls[-1]
    if name == "_maybe_release":
        return event
    if name == "drop" and len(calls) > 1:
        return calls[-2][1]
    return next((e for outer, e in calls if outer in _OUTER), event)
