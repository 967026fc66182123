"""State moves from one host to another, a box's or an end's, and the path with it.

Real agents, frames and journals; boxes that drop what they have no state for, and complain when a
segment passes them after their state was copied; TCP endpoints whose sockets move.
"""

from __future__ import annotations

import contextlib
from dataclasses import replace
from ipaddress import ip_address

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dysco.agent import packet
from dysco.agent.counters import Count
from dysco.agent.model import FiveTuple
from dysco.agent.options import Negotiated
from dysco.agent.reconfigure.facts import pack_cargo, pack_facts, read_cargo, read_facts
from dysco.agent.reconfigure.held import cut
from dysco.agent.reconfigure.messages import Deltas
from dysco.agent.reconfigure.segment import ACK, CWR, FIN, PSH
from dysco.agent.reconfigure.state import Entry, OldWay, Registers
from dysco.agent.record import RecordError
from dysco.agent.session import Leg, OnFailure, Session, State
from tests.reconfigure.agents.stories import MOVES, move
from tests.reconfigure.agents.story import Calls, Change, Story
from tests.reconfigure.agents.world import World
from tests.reconfigure.simulation.boxes import Firewall

SEEDS = 4
BOX = Change(0.02, "client", "server", ("c",), with_state=True)
END = Change(0.02, "a", "server", moves_to="server2")
BUSY = Story({"a": "firewall", "c": "firewall"}, ("a",), (BOX,), (40_000, 40_000), pause=0.001)


@pytest.mark.parametrize("kind", MOVES)
def test_bad_weather(kind: str) -> None:
    """Every byte arrives, and nothing is left: no entry, no port, no lock, no journal."""
    for seed in range(SEEDS):
        World(seed, move(seed, kind)).run()


@pytest.mark.parametrize(
    "story",
    [
        BUSY,
        replace(BUSY, boxes={"a": "nat", "c": "nat"}),
        replace(BUSY, boxes={"a": "shift", "c": "shift"}),
        replace(
            BUSY,
            boxes={"a": "nat", "b": "firewall", "c": "firewall"},
            chain=("a", "b"),
            changes=(replace(BOX, left="a"),),
        ),
        replace(
            BUSY,
            boxes={"a": "nat", "b": "firewall", "c": "nat"},
            chain=("a", "b"),
            changes=(replace(BOX, right="b"),),
        ),
        replace(BUSY, changes=(END,), ends=("server2",)),
        replace(BUSY, boxes={"a": "nat"}, changes=(END,), ends=("server2",)),
        replace(
            BUSY, boxes={}, chain=(), changes=(replace(END, left="client"),), ends=("server2",)
        ),
        replace(BUSY, calls=Calls(0.005, size=60_000)),
    ],
)
def test_calm_without_a_single_retransmission(story: Story) -> None:
    """What is held leaves in order before anything passes by itself."""
    for seed in range(2):
        world = World(seed, story).run()
        assert world.outcomes == [("finished", "")], world.tale()
        for app in world.apps:
            assert app.endpoint is not None
            assert app.endpoint.retransmitted == app.endpoint.paws_drops == 0, world.tale()
        left = world.planes[story.changes[0].left]
        assert left.agent.counters[Count.HELD] > 0
        for box in world.boxes.values():
            assert not (isinstance(box.box, Firewall) and box.box.invalid), world.tale()


@pytest.mark.parametrize(
    ("change", "calls", "why"),
    [
        (BOX, Calls(fails=frozenset({"a export"})), "export of its state at a: it does not want"),
        (BOX, Calls(fails=frozenset({"c import"})), "import of its state at c: it does not want"),
        (BOX, Calls(silent=frozenset({"a export"})), "no answer"),
        (BOX, Calls(silent=frozenset({"c import"})), "no answer"),
        (BOX, Calls(size=70_000), "more than 65536"),
        (END, Calls(fails=frozenset({"server export"})), "export of its state at server"),
        (END, Calls(fails=frozenset({"server2 import"})), "import of its state at server2"),
        (END, Calls(silent=frozenset({"server2 import"})), "no answer"),
    ],
)
def test_what_fails_ends_on_the_old_path(change: Change, calls: Calls, why: str) -> None:
    world = World(1, replace(BUSY, changes=(change,), calls=calls, ends=("server2",))).run()
    ((state, told),) = world.outcomes
    assert state == "failed"
    assert why in told
    assert not any(plane.agent.counters[Count.RECONFIGURED] for plane in world.planes.values())


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (replace(BOX, through=()), "state goes from one box to one other"),
        (replace(BOX, through=("b", "c")), "state goes from one box to one other"),
        (replace(BOX, through=("a",)), "'a' is where its state is already"),
        (replace(END, moves_to="nobody"), "no host of the trust group"),
        (replace(END, moves_to="b"), "is a middlebox"),
        (replace(END, moves_to="server"), "on the session's path already"),
        (replace(END, right="client"), "not the next host"),
        (replace(END, left="client"), "not the next host"),
    ],
)
def test_what_makes_no_sense_is_refused_before_anything_happens(change: Change, why: str) -> None:
    boxes = dict.fromkeys("abc", "firewall")
    world = World(1, replace(BUSY, boxes=boxes, changes=(change,), ends=("server2",))).run()
    assert world.answers == ["request_refused"]
    told = [t.text for t in world.planes[change.left].told if t.counter == "request_refused"]
    assert why in told[0]
    assert not world.outcomes


@pytest.mark.parametrize(
    ("chain", "change", "why"),
    [
        (("a", "b"), BOX, "not its neighbours"),
        ((), BOX, "no box is between"),
        (("a",), replace(BOX, right="b"), "not its neighbours"),
    ],
)
def test_what_the_lock_finds_ends_it(chain: tuple[str, ...], change: Change, why: str) -> None:
    boxes = dict.fromkeys("abc", "firewall")
    ((state, told),) = (
        World(1, replace(BUSY, boxes=boxes, chain=chain, changes=(change,))).run().outcomes
    )
    assert state == "failed"
    assert why in told


def test_what_is_held_too_long_is_dropped_and_the_move_goes_on() -> None:
    world = World(1, replace(BUSY, calls=Calls(0.3))).run()
    assert world.outcomes == [("finished", "")]
    left = world.planes["client"].agent.counters
    assert left[Count.HOLD_DROPPED] > 0
    assert world.apps[0].endpoint is not None
    assert world.apps[0].endpoint.retransmitted > 0


@pytest.mark.parametrize("change", [BOX, END], ids=["box", "end"])
@pytest.mark.parametrize("dead", ["left", "old", "new", "right"])
def test_a_restart_at_any_moment_leaves_the_session_whole(change: Change, dead: str) -> None:
    """The agent of one party dies after each of its actions, and is back, soon or late."""
    names = {"left": change.left, "old": "a", "new": "c", "right": "server"}
    if change is END:
        names |= {"old": "server", "new": "server2", "right": "client"}
    story = replace(BUSY, changes=(change,), sizes=(8000, 8000), ends=("server2",))
    outcomes = set()
    for actions in range(1, 34, 2):
        outage = (0.01, 0.7)[actions // 2 % 2]
        crashes = ((names[dead], actions, outage),)
        world = World(actions, replace(story, crashes=crashes)).run()
        outcomes |= {state for state, _ in world.outcomes}
    assert "finished" in outcomes


@pytest.mark.parametrize("sizes", [(0, 60_000), (60_000, 0)], ids=["leftwards", "rightwards"])
def test_who_is_let_go_after_a_restart_is_believed_by_the_new_box(sizes: tuple[int, int]) -> None:
    """All agents die, and what is held with them: the hosts' next segments are retransmissions."""
    repeated = 0
    for actions in range(10, 27):
        crashes = (("client", actions, 0.7),)
        world = World(actions, replace(BUSY, sizes=sizes, crashes=crashes, together=True)).run()
        ((state, _),) = world.outcomes
        for box in world.boxes.values():
            assert isinstance(box.box, Firewall)
            assert not box.box.invalid, world.tale()
        if state == "finished":
            ends = [app.endpoint for app in world.apps]
            repeated += sum(end is not None and end.retransmitted > 4 for end in ends)
    assert repeated > 0


@pytest.mark.parametrize(
    ("dead", "actions", "why"),
    [
        ("a", 1, "no answer while locking for 3 s"),
        ("c", 1, "no answer while preparing for 2 s"),
        ("c", 7, "no answer while moving for 2 s"),
        ("server", 1, "no answer while locking for 3 s"),
    ],
)
def test_who_is_not_heard_of_any_more_ends_it_in_time(dead: str, actions: int, why: str) -> None:
    """An agent that stays away for long: the session is on its old path long before it is back."""
    crashes = ((dead, actions, 20.0),)
    story = replace(BUSY, sizes=(8000, 8000), linger=30.0, crashes=crashes, limit=100.0)
    world = World(1, story).run()
    assert world.outcomes == [("failed", why)], world.tale()
    steps = [at for at, step in world.planes["client"].progress if step.state == "cancelling"]
    # Where nobody answers an agent's messages, it says them ever more rarely.
    assert steps[0] < 8, world.tale()


def test_a_move_goes_there_and_back() -> None:
    back = replace(BOX, at=0.2, through=("a",))
    story = replace(BUSY, changes=(BOX, back), sizes=(20_000, 20_000), linger=0.5)
    world = World(1, story).run()
    assert world.outcomes == [("finished", ""), ("finished", "")]


# Bytes between the hosts.

_ENDS = FiveTuple(ip_address("10.0.0.1"), 33000, ip_address("10.0.0.9"), 80)
_OPTIONS = Negotiated(1460, 7, True, True)
WORDS = st.integers(0, 2**32 - 1)


def _session(*, goes_on: bool) -> Session:
    session = Session(7, _ENDS, 5, OnFailure.REFUSE, 1, (), 0.0, State.ESTABLISHED)
    session.left = Leg(session, 1, _ENDS.reversed, _ENDS.reversed, 5, False, _OPTIONS, _OPTIONS, 6)
    if goes_on:
        session.right = Leg(session, 1, _ENDS, _ENDS, 5, True, _OPTIONS, _OPTIONS, 6)
    return session


@given(
    st.builds(OldWay, WORDS, WORDS, WORDS, st.integers(0, 14), st.none() | WORDS),
    st.booleans(),
    st.none() | st.builds(Deltas, WORDS, WORDS),
)
def test_facts_are_read_as_they_were(way: OldWay, goes_on: bool, fixed: Deltas | None) -> None:
    session, entry = _session(goes_on=goes_on), Entry(way, scale_own=3, scale_heard=4)
    facts = read_facts(pack_facts(_ENDS, [(leg, entry) for leg in session.legs], fixed))
    assert facts.fixed == fixed
    assert facts.subsession == _ENDS
    assert [leg.emitted for leg in facts.legs] == [leg.emitted for leg in session.legs]
    assert all(leg.entry == entry and leg.next == leg.emitted.dst for leg in facts.legs)


@given(st.builds(Registers, snd_max=WORDS, fin_sent=st.booleans(), ts_given=WORDS), st.binary())
def test_cargo_is_read_as_it_was(registers: Registers, state: bytes) -> None:
    session = _session(goes_on=True)
    session.legs[0].fin_received = True
    cargo = read_cargo(pack_cargo([(leg, registers) for leg in session.legs], state))
    assert cargo.state == state
    assert [leg.registers for leg in cargo.legs] == [registers, registers]
    assert [leg.fin_received for leg in cargo.legs] == [True, False]


@settings(max_examples=200)
@given(st.data())
def test_damaged_facts_are_refused_or_read(data: st.DataObject) -> None:
    """They are authentic, so that this is a fault of ours: it has a name all the same."""
    session = _session(goes_on=data.draw(st.booleans()))
    facts = bytearray(pack_facts(_ENDS, [(leg, Entry()) for leg in session.legs]))
    for _ in range(3):
        facts[data.draw(st.integers(0, len(facts) - 1))] = data.draw(st.integers(0, 255))
    cargo = pack_cargo([(leg, Registers()) for leg in session.legs], b"x")
    for read, wire in (
        (read_facts, bytes(facts)),
        (read_cargo, cargo[: data.draw(st.integers(0, 30))]),
    ):
        with contextlib.suppress(RecordError):
            read(wire)


@given(st.integers(1, 70_000), st.integers(0, 2000), st.integers(0, 10))
def test_super_segments_are_cut_to_what_the_other_host_takes(
    size: int, limit: int, words: int
) -> None:
    whole = packet.Segment(
        bytes(6),
        bytes(6),
        packet.ip_header(_ENDS),
        _ENDS,
        0xFFFFFF00,
        7,
        ACK | PSH | FIN | CWR,
        100,
        0,
        b"\1" * 4 * words,
        bytes(size % 65_000),
    )
    pieces = cut(whole, limit)
    assert b"".join(piece.payload for piece in pieces) == whole.payload
    room = limit - 4 * words
    assert all(len(piece.payload) <= room for piece in pieces) or len(pieces) == 1
    at = whole.seq
    for piece in pieces:
        assert piece.seq == at
        at = (at + len(piece.payload)) % 2**32
    assert [bool(piece.flags & FIN) for piece in pieces] == [False] * (len(pieces) - 1) + [True]
    assert [bool(piece.flags & CWR) for piece in pieces] == [True] + [False] * (len(pieces) - 1)
