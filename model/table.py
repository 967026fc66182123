"""Which state goes where on what: the one table that the model and the code are both held to.

The exhaustive search writes down each step that the model takes (`MARK` in the `.pml` files), the
simulation each step of the code; both must be exactly these rows. The model's names are made from
this file too.
"""

from __future__ import annotations

import re
from enum import StrEnum
from typing import NamedTuple


class Role(StrEnum):
    """Who has a state."""

    LOCK = "lock"
    LEFT = "left anchor"
    RIGHT = "right anchor"
    MOVE = "left anchor of a move"
    JOIN = "right anchor of a move"
    SOURCE = "old host of a move"
    TARGET = "new host of a move"


class Event(StrEnum):
    """What moves it: a message, by its name, or something else."""

    # Messages.
    REQUEST = "RequestLock"
    ACK_LOCK = "AckLock"
    NACK_LOCK = "NackLock"
    CANCEL_LOCK = "CancelLock"
    ACK_CANCEL = "AckCancel"
    RELEASE = "Release"
    ACK_RELEASE = "AckRelease"
    ASK_REVOKE = "AskRevoke"
    REVOKED = "Revoked"
    CUTOFF = "Cutoff"
    # The new path's handshake.
    SYN = "SYN"
    OPEN = "the new path is open"
    REFUSED = "the new path refuses"
    # The data plane.
    ANNOUNCED = "announced"
    DRAINED = "drained"
    CLOSING = "the host has sent a FIN"
    # The anchor itself.
    START = "start"
    CANCEL = "given up"
    OVER = "the anchor is over"
    FORSAKEN = "not heard of the left anchor for too long"
    RECOVER = "restart"
    SESSION_OVER = "the session ended"
    PATIENCE = "no answer to the end for too long"
    # Moves of a session's state: messages, and what a host says of its copy.
    MOVE_OUT = "MoveOut"
    MOVE_IN = "MoveIn"
    JOIN = "Join"
    CHUNKS = "Chunk"
    GOT = "Got"
    MOVE_FAILED = "MoveFailed"
    DO_HOLD = "DoMove hold"
    DO_EXPORT = "DoMove export"
    DO_SWITCH = "DoMove switch"
    DO_SETTLE = "DoMove settle"
    DONE_PREPARE = "MoveDone prepare"
    DONE_HOLD = "MoveDone hold"
    DONE_EXPORT = "MoveDone export"
    DONE_SWITCH = "MoveDone switch"
    DONE_SETTLE = "MoveDone settle"
    QUIET = "all has left"
    EXPORTED = "the copy is there"
    IMPORTED = "the copy is taken in"


LOCK = ("unlocked", "pending", "locked", "gone")
LEFT = (
    "none",
    "locking",
    "connecting",
    "switching",
    "draining",
    "releasing",
    "finished",
    "cancelling",
    "failed",
)
RIGHT = (
    "none",
    "locked",
    "prepared",
    "draining",
    "drained",
    "revoked",
    "finished",
    "cancelled",
)
MOVE = (
    "none",
    "locking",
    "preparing",
    "holding",
    "moving",
    "switching",
    "releasing",
    "finished",
    "cancelling",
    "failed",
)
JOIN = ("none", "locked", "joined", "holding", "switched", "finished", "cancelled")
SOURCE = ("none", "leaving", "quieting", "exporting", "sending", "gone", "back")
TARGET = ("none", "arriving", "importing", "imported", "settled", "dropped")
STATES = {
    Role.LOCK: LOCK,
    Role.LEFT: LEFT,
    Role.RIGHT: RIGHT,
    Role.MOVE: MOVE,
    Role.JOIN: JOIN,
    Role.SOURCE: SOURCE,
    Role.TARGET: TARGET,
}


class Step(NamedTuple):
    """One row: this event in this state may lead there."""

    role: Role
    state: str
    event: Event
    becomes: str


def _rows(role: Role, *rows: tuple[str, Event, str]) -> frozenset[Step]:
    steps = frozenset(Step(role, *row) for row in rows)
    assert len(steps) == len(rows)
    assert all({s.state, s.becomes} <= set(STATES[role]) for s in steps)
    return steps


E = Event
MODEL = (
    _rows(
        Role.LOCK,
        ("unlocked", E.REQUEST, "pending"),
        ("pending", E.ACK_LOCK, "locked"),
        ("pending", E.NACK_LOCK, "unlocked"),
        ("pending", E.CANCEL_LOCK, "unlocked"),
        ("locked", E.CANCEL_LOCK, "unlocked"),
        ("locked", E.RELEASE, "gone"),
        ("pending", E.RELEASE, "gone"),
        ("pending", E.OVER, "unlocked"),
        ("locked", E.OVER, "unlocked"),
    )
    | _rows(
        Role.LEFT,
        ("none", E.START, "locking"),
        ("locking", E.ACK_LOCK, "connecting"),
        ("locking", E.ACK_LOCK, "cancelling"),
        ("locking", E.NACK_LOCK, "cancelling"),
        ("locking", E.CANCEL, "cancelling"),
        ("connecting", E.OPEN, "switching"),
        ("connecting", E.REFUSED, "cancelling"),
        ("connecting", E.CANCEL, "cancelling"),
        ("switching", E.ANNOUNCED, "draining"),
        ("switching", E.CLOSING, "cancelling"),
        ("switching", E.REVOKED, "cancelling"),
        ("draining", E.DRAINED, "releasing"),
        ("releasing", E.ACK_RELEASE, "finished"),
        ("cancelling", E.ACK_CANCEL, "failed"),
        ("cancelling", E.ACK_RELEASE, "failed"),
        ("locking", E.SESSION_OVER, "cancelling"),
        ("connecting", E.SESSION_OVER, "cancelling"),
        ("switching", E.SESSION_OVER, "cancelling"),
        ("draining", E.SESSION_OVER, "cancelling"),
    )
    | _rows(
        Role.RIGHT,
        ("none", E.REQUEST, "locked"),
        ("locked", E.SYN, "prepared"),
        ("locked", E.CANCEL_LOCK, "cancelled"),
        ("locked", E.FORSAKEN, "cancelled"),
        ("prepared", E.ANNOUNCED, "draining"),
        ("prepared", E.REVOKED, "revoked"),
        ("prepared", E.CANCEL_LOCK, "cancelled"),
        ("prepared", E.RECOVER, "locked"),
        ("draining", E.DRAINED, "drained"),
        ("drained", E.RELEASE, "finished"),
        ("draining", E.RELEASE, "finished"),  # the left anchor knows already that the session ended
        ("revoked", E.CANCEL_LOCK, "cancelled"),
        ("revoked", E.FORSAKEN, "cancelled"),
        ("locked", E.SESSION_OVER, "cancelled"),
        ("prepared", E.SESSION_OVER, "cancelled"),
        ("draining", E.SESSION_OVER, "cancelled"),
        ("drained", E.SESSION_OVER, "cancelled"),
        ("revoked", E.SESSION_OVER, "cancelled"),
    )
)
"""What the model does, and the code."""

MOVES = (
    _rows(
        Role.MOVE,
        ("none", E.START, "locking"),
        ("locking", E.ACK_LOCK, "preparing"),
        ("locking", E.NACK_LOCK, "cancelling"),
        ("locking", E.CANCEL, "cancelling"),
        ("locking", E.SESSION_OVER, "cancelling"),
        ("preparing", E.DONE_PREPARE, "holding"),
        ("preparing", E.DONE_PREPARE, "moving"),  # an end moves: nobody is right of it
        ("preparing", E.MOVE_FAILED, "cancelling"),
        ("preparing", E.CANCEL, "cancelling"),
        ("preparing", E.SESSION_OVER, "cancelling"),
        ("holding", E.DONE_HOLD, "moving"),
        ("holding", E.MOVE_FAILED, "cancelling"),
        ("holding", E.CANCEL, "cancelling"),
        ("holding", E.SESSION_OVER, "cancelling"),
        ("moving", E.DONE_EXPORT, "switching"),
        ("moving", E.MOVE_FAILED, "cancelling"),
        ("moving", E.CANCEL, "cancelling"),
        ("moving", E.SESSION_OVER, "cancelling"),
        ("switching", E.DONE_SETTLE, "releasing"),
        ("switching", E.DONE_SWITCH, "releasing"),
        ("switching", E.SESSION_OVER, "cancelling"),
        ("releasing", E.ACK_RELEASE, "finished"),
        ("cancelling", E.ACK_CANCEL, "failed"),
        ("cancelling", E.ACK_RELEASE, "failed"),
    )
    | _rows(
        Role.JOIN,
        ("none", E.REQUEST, "locked"),
        ("locked", E.JOIN, "joined"),
        ("locked", E.RELEASE, "finished"),
        ("locked", E.CANCEL_LOCK, "cancelled"),
        ("locked", E.SESSION_OVER, "cancelled"),
        ("joined", E.DO_HOLD, "holding"),
        ("joined", E.DO_SWITCH, "switched"),
        ("joined", E.RELEASE, "finished"),
        ("joined", E.CANCEL_LOCK, "cancelled"),
        ("joined", E.SESSION_OVER, "cancelled"),
        ("holding", E.PATIENCE, "joined"),
        ("holding", E.RECOVER, "joined"),
        ("holding", E.DO_SWITCH, "switched"),
        ("holding", E.RELEASE, "finished"),
        ("holding", E.CANCEL_LOCK, "cancelled"),
        ("holding", E.SESSION_OVER, "cancelled"),
        ("switched", E.RELEASE, "finished"),
        ("switched", E.SESSION_OVER, "cancelled"),
    )
    | _rows(
        Role.SOURCE,
        ("none", E.REQUEST, "leaving"),
        ("leaving", E.DO_EXPORT, "quieting"),
        ("leaving", E.RELEASE, "gone"),
        ("leaving", E.CANCEL_LOCK, "back"),
        ("quieting", E.QUIET, "exporting"),
        ("quieting", E.RELEASE, "gone"),
        ("quieting", E.CANCEL_LOCK, "back"),
        ("exporting", E.EXPORTED, "sending"),
        ("exporting", E.RELEASE, "gone"),
        ("exporting", E.CANCEL_LOCK, "back"),
        ("sending", E.RELEASE, "gone"),
        ("sending", E.CANCEL_LOCK, "back"),
    )
    | _rows(
        Role.TARGET,
        ("none", E.MOVE_IN, "arriving"),
        ("arriving", E.CHUNKS, "importing"),
        ("arriving", E.FORSAKEN, "dropped"),
        ("arriving", E.CANCEL_LOCK, "dropped"),
        ("arriving", E.SESSION_OVER, "dropped"),
        ("importing", E.IMPORTED, "imported"),
        ("importing", E.FORSAKEN, "dropped"),
        ("importing", E.CANCEL_LOCK, "dropped"),
        ("importing", E.SESSION_OVER, "dropped"),
        ("imported", E.DO_SETTLE, "settled"),
        ("imported", E.SESSION_OVER, "settled"),
        ("imported", E.CANCEL_LOCK, "dropped"),
    )
)
"""The same for moves of a session's state."""

TIMED = _rows(
    Role.LEFT,
    ("releasing", E.PATIENCE, "finished"),
    ("cancelling", E.PATIENCE, "failed"),
)
TIMED_MOVES = _rows(
    Role.MOVE,
    ("switching", E.PATIENCE, "releasing"),
    ("releasing", E.PATIENCE, "finished"),
    ("cancelling", E.PATIENCE, "failed"),
) | _rows(
    Role.JOIN,
    ("locked", E.FORSAKEN, "cancelled"),
    ("joined", E.FORSAKEN, "cancelled"),
    ("holding", E.FORSAKEN, "cancelled"),
    ("switched", E.FORSAKEN, "finished"),
)
"""What the code does only where nothing came through for longer than the model's faults last."""

_PREFIX = {
    Role.LOCK: "U",
    Role.LEFT: "L",
    Role.RIGHT: "R",
    Role.MOVE: "M",
    Role.JOIN: "J",
    Role.SOURCE: "S",
    Role.TARGET: "T",
}

_MARK = """
#ifdef COVER
byte before, cause, after;      /* scratch */
c_decl {
static unsigned char cover_seen[7][16][64][16];
static void cover_dump(void) {
    int r, f, e, t;
    for (r = 0; r < 7; r++) for (f = 0; f < 16; f++)
    for (e = 0; e < 64; e++) for (t = 0; t < 16; t++)
        if (cover_seen[r][f][e][t]) printf("step %d %d %d %d\\n", r, f, e, t);
}
static void cover(int r, int f, int e, int t) {
    static int registered;
    if (!registered) { registered = 1; atexit(cover_dump); }
    cover_seen[r][f][e][t] = 1;
}
}
#define MARK(role, from, event, to) \\
    before = from; cause = event; after = to; \\
    c_code { cover(role, now.before, now.cause, now.after); }; \\
    before = 0; cause = 0; after = 0
#else
#define MARK(role, from, event, to) skip
#endif
"""


def promela() -> str:
    """The names of the table as the model includes them."""
    lines = [f"#define ROLE_{role.name} {number}" for number, role in enumerate(Role)]
    for role, states in STATES.items():
        lines += [f"#define {_PREFIX[role]}_{s.upper()} {n}" for n, s in enumerate(states)]
    lines += [f"#define E_{event.name} {number}" for number, event in enumerate(Event)]
    return "\n".join(lines) + _MARK


def steps_of(output: str) -> frozenset[Step]:
    """What the search says that the model did."""
    found = re.findall(r"^step (\d+) (\d+) (\d+) (\d+)$", output, re.MULTILINE)
    roles, events = tuple(Role), tuple(Event)
    return frozenset(
        Step(roles[r], STATES[roles[r]][f], events[e], STATES[roles[r]][t])
        for r, f, e, t in (map(int, numbers) for numbers in found)
    )
