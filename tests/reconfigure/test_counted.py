"""What agents count of reconfigurations: each name, provoked; and what must not come of it."""

from __future__ import annotations

from collections.abc import Callable
from ipaddress import ip_address

from dysco.agent.counters import Count
from dysco.agent.events import PacketIn, Reason
from dysco.agent.model import FiveTuple
from dysco.agent.reconfigure.control import Letter, datagram, encode, host_number
from dysco.agent.reconfigure.frames import to_frame
from dysco.agent.reconfigure.messages import Drained, ReconfigurationId
from dysco.agent.reconfigure.segment import ACK, Segment
from dysco.agent.trust import Nonce
from tests.reconfigure.agents.plane import GROUP, Packet, Plane
from tests.reconfigure.agents.story import Change, Story
from tests.reconfigure.agents.world import World
from tests.reconfigure.simulation.network import Weather

CHANGE = Change(0.05, "client", "server", ("b",))


def make(
    *, control: Weather | None = None, linger: float = 0.1, changes: tuple[Change, ...] = (CHANGE,)
) -> World:
    boxes = {"a": "pass", "b": "pass"}
    weather = control or Weather()
    return World(1, Story(boxes, ("a",), changes, control=weather, linger=linger))


def run_until(world: World, done: Callable[[], bool]) -> None:
    while not done():
        assert world.clock.step(), world.tale()
        assert world.clock.now < 200, world.tale()


def counted(plane: Plane, count: Count) -> int:
    return plane.agent.counters[count]


def has(world: World, state: str) -> Callable[[], bool]:
    client = world.planes["client"]
    return lambda: any(step.state == state for _, step in client.progress)


def test_a_box_that_is_taken_out() -> None:
    world = make().run()
    assert counted(world.planes["a"], Count.SENT_ON) == 1
    assert counted(world.planes["a"], Count.LEFT_CHAIN) == 1
    assert counted(world.planes["client"], Count.RECONFIGURED) == 1


def test_a_message_that_comes_twice() -> None:
    world = make(control=Weather(repeat=1.0)).run()
    assert world.outcomes == [("finished", "")]
    assert counted(world.planes["server"], Count.CONTROL_REPLAYED) > 0


def test_a_message_for_a_session_that_is_not_here() -> None:
    world = make()
    world.run()
    server = world.planes["server"]
    client, own = (world.planes[n].host.interfaces[0] for n in ("client", "server"))
    about = ReconfigurationId(host_number("client"), 1)
    letter = Letter(1, host_number("client"), Nonce(1 << 40, 1), Drained(about))
    frame = datagram(client.addresses[0], own.addresses[0], client.mac, encode(letter, GROUP))
    server.tell(PacketIn(Reason.CONTROL, 9, server.host.id, 0, frame))
    assert counted(server, Count.CONTROL_UNKNOWN) == 1


def test_a_segment_of_a_new_path_that_nobody_waits_for() -> None:
    world = make(linger=2.0)
    run_until(world, has(world, "finished"))
    server = world.planes["server"]
    ends = FiveTuple(ip_address("10.0.0.1"), 61000, ip_address("10.0.0.4"), 61001)
    frame = to_frame(Segment(1, 1, ACK, 1), ends, bytes(6)).build()
    server.tell(PacketIn(Reason.NEW_PATH, 9, server.host.id, 0, frame))
    assert counted(server, Count.NEW_PATH_UNKNOWN) == 1


def test_a_syn_that_comes_after_its_path_took_over_changes_nothing() -> None:
    """It was sent again and delayed: the path that it opened is in use, and must stay."""
    world = make(linger=5.0)
    server = world.planes["server"]
    late: list[Packet] = []
    arrive = server.arrive

    def hold(what: object) -> None:
        if isinstance(what, Packet) and what.is_syn and has(world, "locking")():
            late.append(what)
            if len(late) == 1:
                return
        arrive(what)  # type: ignore[arg-type]

    server.arrive = hold  # type: ignore[method-assign]
    run_until(world, has(world, "finished"))
    assert len(late) > 1, "it was not sent again"
    before = set(server.mappings)
    arrive(late[0])
    run_until(world, lambda: counted(server, Count.NEW_PATH_UNKNOWN) == 1)
    then = world.clock.now
    run_until(world, lambda: world.clock.now > then + 3.0)
    (session,) = server.agent.sessions.values()
    assert session.left is not None
    assert set(session.left.keys) <= before
    assert set(session.left.keys) <= set(server.mappings)
    world.run()


def test_a_lock_whose_holder_is_dead_for_good() -> None:
    world = make(linger=100.0)
    run_until(world, has(world, "connecting"))
    client = world.planes["client"]
    client.outage = 150.0
    client.crash()
    run_until(world, lambda: counted(world.planes["a"], Count.LEASE_EXPIRED) > 0)
    assert not world.planes["a"].alive or "a" not in world.locked()


def test_a_journal_that_is_damaged() -> None:
    world = make(linger=2.0)
    run_until(world, has(world, "finished"))
    client = world.planes["client"]
    (number,) = client.journal
    client.journal[number] = b"\x00"
    client.outage = 0.1
    client.crash()
    run_until(world, lambda: client.alive)
    assert counted(client, Count.JOURNAL_UNREADABLE) == 1


def test_a_box_that_has_left_is_gone_soon_after_a_restart_too() -> None:
    """It knows that its lock is over everywhere, and waits for nobody's word again."""
    boxes = {"a": "firewall", "b": "pass"}
    world = World(1, Story(boxes, ("a",), (CHANGE,), linger=60.0))
    run_until(world, has(world, "finished"))
    box = world.planes["a"]
    assert box.agent.sessions
    # Its connections are reset by now, and strict conntrack lets no second RST pass.
    box.outage = 1.0
    box.crash()
    run_until(world, lambda: box.alive)
    then = world.clock.now
    run_until(world, lambda: not box.agent.sessions)
    assert world.clock.now - then < 5.0
    run_until(world, lambda: not box.mappings)
