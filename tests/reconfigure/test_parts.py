"""What surrounds the agents: chains as operators name them, progress, journals."""

from __future__ import annotations

import asyncio
import pickle
import sqlite3
from dataclasses import dataclass, replace
from ipaddress import ip_address
from pathlib import Path
from random import Random

import pytest

from dysco.agent.events import Progress
from dysco.agent.model import FiveTuple, OnFailure
from dysco.agent.options import Ecn, Negotiated, negotiated
from dysco.agent.reconfigure import journal as agent_journal
from dysco.agent.reconfigure.frames import to_frame
from dysco.agent.reconfigure.left import LeftAnchor, LeftState, Patience
from dysco.agent.reconfigure.locking import Lock
from dysco.agent.reconfigure.member import Route
from dysco.agent.reconfigure.messages import (
    AckLock,
    Deltas,
    Ends,
    Leg,
    ReconfigurationId,
    RequestLock,
)
from dysco.agent.reconfigure.pace import LONGEST, Pace
from dysco.agent.reconfigure.segment import ACK, SYN, Segment
from dysco.agent.reconfigure.state import Entry, Registers
from dysco.agent.session import Leg as SessionLeg
from dysco.agent.session import Session, State
from dysco.controller import chains
from dysco.controller.chains import Kind, Plan, WishError
from dysco.controller.journal import Journal, JournalFileError
from dysco.controller.progress import MAX_RECONFIGURATIONS, Chronicle

NAMES = ("client", "a", "b", "server")
NOTHING = Negotiated(None, None, False, False)


@pytest.mark.parametrize(
    ("boxes", "plan"),
    [
        (["a"], Plan("client", "b", ())),
        (["b", "a"], Plan("client", "server", ())),
        (["b"], Plan("a", "server", ())),
    ],
)
def test_delete(boxes: list[str], plan: Plan) -> None:
    assert chains.delete(NAMES, boxes) == plan


def test_insert_and_exchange() -> None:
    assert chains.insert(NAMES, "x", "client") == Plan("client", "a", ("x",))
    assert chains.insert(NAMES, "x", "b") == Plan("b", "server", ("x",))
    assert chains.exchange(NAMES, "a", "x") == Plan("client", "b", ("x",))


def test_what_takes_its_state_along() -> None:
    moved = Plan("client", "b", ("x",), Kind.STATE, "a")
    assert chains.migrate(NAMES, "a", "x") == moved
    assert chains.move(NAMES, "server", "x") == Plan("b", "server", ("x",), Kind.END, "server")


@pytest.mark.parametrize(
    ("old", "new", "why"),
    [
        ("x", "y", "x is not on the chain"),
        ("client", "y", "client began the session: only the other end, server, can be moved"),
        ("b", "y", "b is no end of the session: that is server"),
        ("server", "a", "a is on the chain client > a > b > server already"),
    ],
)
def test_impossible_moves(old: str, new: str, why: str) -> None:
    with pytest.raises(WishError, match=why):
        chains.move(NAMES, old, new)
    with pytest.raises(WishError):
        chains.migrate(NAMES, "a", "b")


@pytest.mark.parametrize(
    ("boxes", "why"),
    [
        (["x"], "x is not on the chain client > a > b > server"),
        (["client"], "client is an end"),
        (["b", "server"], "server is an end"),
    ],
)
def test_impossible_deletes(boxes: list[str], why: str) -> None:
    with pytest.raises(WishError, match=why):
        chains.delete(NAMES, boxes)


def test_boxes_that_do_not_follow_each_other() -> None:
    with pytest.raises(WishError, match="one by one"):
        chains.delete(("c", "x", "y", "z", "s"), ["x", "z"])
    with pytest.raises(WishError, match="the last host"):
        chains.insert(NAMES, "x", "server")


@dataclass(frozen=True)
class At:
    name: str
    session: Session


def hop(name: str, position: int, left: int | None, right: int | None, spare: int = 0) -> At:
    """A host whose subsessions are named by numbers, away from the left end."""
    session = Session(
        id=1,
        session=ends(99),
        policy=0,
        on_failure=OnFailure.REFUSE,
        position=position,
        rest=(),
        created=0.0,
        state=State.ESTABLISHED,
    )
    if left is not None:
        session.left = SessionLeg(session, 1, ends(99), ends(left).reversed, 0, False, NOTHING)
    if right is not None:
        session.right = SessionLeg(session, 1, ends(99), ends(right), 0, True, NOTHING)
        session.right.spare = ends(spare) if spare else None
    return At(name, session)


def ends(number: int) -> FiveTuple:
    return FiveTuple(ip_address("10.0.0.1"), number, ip_address("10.0.0.2"), number)


def names(hops: tuple[At, ...]) -> list[str]:
    return [at.name for at in hops]


def test_paths_follow_subsessions_and_not_positions() -> None:
    # x was put in behind the client, and y is about to take its place; z has left.
    hops = [
        hop("server", 1, 3, None),
        hop("y", 1, 4, 5),
        hop("x", 1, 2, 3),
        hop("client", 0, None, 2, spare=4),
        hop("z", 1, 7, 8),
    ]
    found = chains.paths(hops)
    assert names(found.chain) == ["client", "x", "server"]
    assert names(found.new) == ["y"]
    assert names(found.rest) == ["z"]


def test_paths_of_a_session_whose_first_hops_are_elsewhere() -> None:
    found = chains.paths([hop("server", 2, 3, None), hop("b", 1, 2, 3)])
    assert names(found.chain) == ["b", "server"]


def step(state: str, number: int = 1, why: str = "") -> Progress:
    return Progress(7, "client", number, "left anchor", state, why)


def test_times_of_a_reconfiguration() -> None:
    chronicle = Chronicle()
    at = chronicle.asked(7, "client", "server", ("x",))
    for state in ("locking", "connecting", "switching", "draining", "releasing", "finished"):
        chronicle.add("client", step(state))
        chronicle.add("server", Progress(7, "client", 1, "right anchor", "drained", ""))
    (known,) = chronicle.reconfigurations(7)
    assert known.started == at
    assert (known.right, known.through) == ("server", ("x",))
    assert known.locked is not None
    assert known.switched is not None
    assert known.finished is not None
    assert at <= known.locked <= known.switched <= known.finished
    assert known.is_over
    assert chronicle.reconfigurations(8) == []


def test_one_that_waits_is_listed_and_keeps_the_time_when_it_was_asked_for() -> None:
    chronicle = Chronicle()
    at = chronicle.asked(7, "client", "server", ("x",))
    chronicle.add("client", step("waiting", 0))
    (known,) = chronicle.reconfigurations(7)
    assert (known.state, known.number, known.is_over) == ("waiting", 0, False)
    chronicle.add("client", step("locking", 5))
    (known,) = chronicle.reconfigurations(7)
    assert (known.state, known.number, known.started) == ("locking", 5, at)


def test_one_that_is_refused_changes_nothing_of_one_that_is_about_to_begin() -> None:
    chronicle = Chronicle()
    first = chronicle.asked(7, "client", "server", ("x",))
    second = chronicle.asked(7, "client", "server", ("y",))
    chronicle.refused(7, "client", second)
    chronicle.add("client", step("locking"))
    (known,) = chronicle.reconfigurations(7)
    assert (known.started, known.through) == (first, ("x",))


def test_what_is_refused_leaves_nothing_to_the_next_one() -> None:
    chronicle = Chronicle()
    chronicle.refused(7, "client", chronicle.asked(7, "client", "server", ("y",)))
    at = chronicle.asked(7, "client", "server", ("x",))
    chronicle.add("client", step("locking"))
    (known,) = chronicle.reconfigurations(7)
    assert (known.started, known.through) == (at, ("x",))


def test_each_that_never_began_is_one_of_its_own() -> None:
    """Whoever waits for the second must not be shown the first."""
    chronicle = Chronicle()
    for why in ("first", "second"):
        at = chronicle.asked(7, "client", "server", ())
        chronicle.add("client", step("failed", 0, why))
        (known,) = chronicle.reconfigurations(7)
        assert (known.why, known.started) == (why, at)


def test_chronicles_are_bounded() -> None:
    chronicle = Chronicle()
    for number in range(MAX_RECONFIGURATIONS + 10):
        chronicle.add("client", step("failed", number, "why not"))
    known = chronicle.reconfigurations()
    assert len(known) == MAX_RECONFIGURATIONS
    assert known[0].number == 10
    assert known[0].why == "why not"


async def test_who_follows_is_told_at_once() -> None:
    chronicle = Chronicle()
    assert await chronicle.after(0, 0.0) == []
    waiting = asyncio.create_task(chronicle.after(0, 30.0))
    await asyncio.sleep(0)
    chronicle.add("client", step("locking"))
    (event,) = await asyncio.wait_for(waiting, 5.0)
    assert event.number == 1
    assert await chronicle.after(1, 0.01) == []


def test_a_journal_keeps_the_last_record(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "state")
    journal.keep("a", 1, b"old")
    journal.keep("a", 1, b"new")
    journal.keep("a", 2, b"gone")
    journal.keep("a", 2, b"")
    journal.keep("b", 1, b"other")
    journal.flush()
    killed = Journal(tmp_path / "state")
    assert killed.of("a") == ((1, b"new"),)
    killed.close()
    journal.keep("a", 1, b"newest")
    journal.close()
    again = Journal(tmp_path / "state")
    assert again.of("a") == ((1, b"newest"),)
    assert again.of("b") == ((1, b"other"),)
    assert again.of("c") == ()


def test_a_journal_that_can_not_be_written_keeps_what_it_was_given(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "state")
    journal.keep("a", 1, b"kept")
    other = sqlite3.connect(tmp_path / "state", timeout=0.0, isolation_level=None)
    other.execute("drop table journal")
    with pytest.raises(JournalFileError, match="can't be written: no such table"):
        journal.flush()
    other.execute("create table journal (host, session, record, primary key (host, session))")
    journal.flush()
    assert journal.of("a") == ((1, b"kept"),)


def test_patience_grows_with_what_answers_take() -> None:
    pace = Pace()

    def answers(seconds: float, times: int) -> None:
        for _ in range(times):
            pace.asked("a", 5.0)
            pace.answered("a", 5.0 + seconds)

    assert pace.patient(0.05) == 0.05
    answers(0.2, 20)
    assert 0.2 < pace.patient(0.05) < 0.25, "steady answers: little more than they take"
    assert pace.patient(0.5) == 0.5
    pace.asked("a", 0.0)
    pace.unanswered("a", 0.1)
    assert pace.patient(0.05) < 0.25, "no answer yet, which is nothing new"
    pace.unanswered("a", 30.0)
    assert pace.patient(0.05) == LONGEST
    pace.unanswered("b", 99.0)
    answers(0.001, 80)
    assert pace.patient(0.05) == 0.05


def test_patience_grows_with_how_many_wait() -> None:
    pace = Pace()
    for number in range(100):
        pace.asked(number, 0.0)
    assert pace.patient(0.05) == pytest.approx(0.4)
    for number in range(100):
        pace.answered(number, 0.001)
    assert pace.patient(0.05) == 0.05


def test_how_long_an_anchor_has_waited_is_not_kept() -> None:
    about = ReconfigurationId(5, 9)
    request = RequestLock(about, 6, 7, 8, Ends(0, 0, False, False))
    left = LeftAnchor(request, Patience(lock=4.0), Random(1))
    kept = agent_journal.Kept(Lock(5), left, None, {about: Route(None, 6)}, {}, 9)
    before = agent_journal.write(kept)
    left.wake(Leg(Entry(), Registers()))
    assert agent_journal.write(kept) == before
    read = agent_journal.read(before)
    assert read.left is not None
    read.left.patience = left.patience
    assert vars(read.left) == vars(LeftAnchor(request, left.patience, Random(1)))
    assert (read.lock, read.routes) == (kept.lock, kept.routes)


def test_a_file_that_is_no_journal(tmp_path: Path) -> None:
    path = tmp_path / "state"
    path.write_bytes(b"something else, and long enough to be a file of its own" * 20)
    with pytest.raises(JournalFileError, match="can't be used"):
        Journal(path)


def test_a_record_is_read_as_it_was_written() -> None:
    kept = agent_journal.Kept(Lock(5), None, None, {}, {3: 4}, 9, (ip_address("10.0.0.1"),))
    assert agent_journal.read(agent_journal.write(kept)) == kept


class Evil:
    def __reduce__(self) -> tuple[object, ...]:
        return (print, ("run",))


@pytest.mark.parametrize(
    ("record", "why"),
    [
        (b"", "version missing"),
        (b"\x04rest", "version 04"),
        (b"\x06", "damaged"),
        (b"\x06" + pickle.dumps([1]), "holds a list"),
        (b"\x06" + pickle.dumps(Evil()), "names builtins.print"),
    ],
)
def test_a_record_that_is_none(record: bytes, why: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(agent_journal.JournalError, match=why):
        agent_journal.read(record)
    assert not capsys.readouterr().out


WHOLE = Ends(7, 0, timestamps=True, sack=True, takes=1460, sends=1460, ecn=Ecn.CLASSIC)


@pytest.mark.parametrize(
    ("theirs", "why"),
    [
        (WHOLE, ""),
        (replace(WHOLE, timestamps=False), "timestamps are negotiated on one side only"),
        (replace(WHOLE, sack=False), "SACK is negotiated on one side only"),
        (replace(WHOLE, ecn=Ecn.NONE), "the same ECN is not negotiated on both sides"),
        (replace(WHOLE, ecn=Ecn.ACCURATE), "the same ECN is not negotiated on both sides"),
        (replace(WHOLE, takes=1400), "one host sends longer segments than the other takes (MSS)"),
        (replace(WHOLE, sends=1461), "one host sends longer segments than the other takes (MSS)"),
    ],
)
def test_what_constants_can_not_translate_is_refused_with_the_lock(theirs: Ends, why: str) -> None:
    about = ReconfigurationId(5, 9)
    left = LeftAnchor(RequestLock(about, 6, 7, 8, WHOLE), Patience(), Random(1))
    left.message(AckLock(about, theirs, Deltas()), Leg(Entry(), Registers()))
    assert left.why == why
    assert left.state is (LeftState.CANCELLING if why else LeftState.CONNECTING)


def test_the_new_path_opens_with_the_sessions_ecn() -> None:
    ends = FiveTuple(ip_address("10.0.0.1"), 1, ip_address("10.0.0.2"), 2)
    for ecn, flags in ((Ecn.NONE, (0, 0)), (Ecn.CLASSIC, (0xC0, 0x40)), (Ecn.ACCURATE, (0, 0))):
        offered = NOTHING._replace(ecn=ecn)
        syn = to_frame(Segment(1, 0, SYN, 9), ends, bytes(6), offered=offered)
        answer = to_frame(Segment(1, 2, SYN | ACK, 9), ends, bytes(6), offered=offered)
        assert (syn.flags & ~SYN, answer.flags & ~(SYN | ACK)) == flags
        assert negotiated(b"", answer.flags).ecn is (Ecn.CLASSIC if flags[1] else Ecn.NONE)
