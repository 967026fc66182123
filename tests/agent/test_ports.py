"""Ports of subsessions: never twice at once, quarantined, split by address order, exhausted."""

from __future__ import annotations

from ipaddress import ip_address
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dysco.agent.counters import Count, SetupError
from dysco.agent.model import Address
from dysco.agent.ports import LINGERS, PortAllocator, PortPair, Rest
from dysco.agent.reconfigure.left import Patience
from dysco.agent.reconfigure.legs import LINGER, MAX_LINGERS
from dysco.agent.settings import Settings

LOW, HIGH, THIRD = (ip_address(f"10.0.0.{n}") for n in (1, 2, 3))


def allocator(first: int = 61000, last: int = 61007, quarantine: float = 10.0) -> PortAllocator:
    made = Settings(first_port=first, last_port=last, port_quarantine=quarantine)
    return PortAllocator(made, Random(1))


def drain(
    ports: PortAllocator, src: Address = LOW, dst: Address = HIGH, now: float = 0.0
) -> list[PortPair]:
    pairs = []
    while True:
        try:
            pairs.append(ports.allocate(src, dst, now))
        except SetupError:
            return pairs


def test_exhaustion_is_told_with_the_addresses() -> None:
    ports = allocator()
    pairs = drain(ports)
    assert len(pairs) == len(set(pairs)) == 16
    with pytest.raises(SetupError, match=r"all 16 port pairs from 10.0.0.1 to 10.0.0.2") as error:
        ports.allocate(LOW, HIGH, 0)
    assert error.value.count is Count.PORTS_EXHAUSTED
    assert ports.allocate(LOW, THIRD, 0), "another neighbour has its own"


def test_two_agents_never_pick_the_same_pair() -> None:
    ours, theirs = allocator(), allocator()
    low = {frozenset({(LOW, p.sport), (HIGH, p.dport)}) for p in drain(ours, LOW, HIGH)}
    high = {frozenset({(HIGH, p.sport), (LOW, p.dport)}) for p in drain(theirs, HIGH, LOW)}
    assert len(low) == len(high) == 16
    assert not low & high
    assert {p.sport for p in drain(allocator(), LOW, HIGH)} == {61000, 61001, 61002, 61003}
    assert {p.sport for p in drain(allocator(), HIGH, LOW)} == {61004, 61005, 61006, 61007}


def test_a_released_pair_rests() -> None:
    ports = allocator(quarantine=10)
    pairs = drain(ports)
    ports.release(LOW, HIGH, pairs[3], now=5)
    with pytest.raises(SetupError):
        ports.allocate(LOW, HIGH, 14.9)
    assert ports.allocate(LOW, HIGH, 15) == pairs[3]
    # Twice released is once released.
    ports.release(LOW, HIGH, pairs[4], now=20)
    ports.release(LOW, HIGH, pairs[4], now=20)
    assert drain(ports, now=40) == [pairs[4]]


@pytest.mark.parametrize("quarantine", [0.0, 100.0])
def test_a_pair_that_a_session_left_rests_longer(quarantine: float) -> None:
    ports = allocator(quarantine=quarantine)
    pairs = drain(ports)
    ports.release(LOW, HIGH, pairs[3], 5, Rest.LEFT)
    ports.release(LOW, HIGH, pairs[4], 6)
    assert ports.in_use == 14
    over = 5 + max(LINGERS, quarantine)
    assert drain(ports, now=over - 0.1) == ([] if quarantine else [pairs[4]])
    assert pairs[3] in drain(ports, now=over)
    assert Patience().end + (MAX_LINGERS + 1) * LINGER < LINGERS


def test_pairs_that_are_not_ours_are_let_be() -> None:
    ports = allocator()
    for strange in (PortPair(80, 81), PortPair(61000, 61004), PortPair(65535, 61000)):
        ports.reserve(LOW, HIGH, strange)
        ports.release(LOW, HIGH, strange, 0)
    assert len(drain(ports)) == 16


def test_what_is_found_in_the_device_is_in_use() -> None:
    every = set(drain(allocator()))
    ports = allocator()
    found = sorted(every)[:5]
    for pair in found:
        ports.reserve(LOW, HIGH, pair)
    assert set(drain(ports)) == every - set(found)
    ports.release(LOW, HIGH, found[0], 0)
    assert drain(ports, now=10) == [found[0]]


def test_an_odd_range_wastes_a_port_and_no_more() -> None:
    ports = allocator(61000, 61002)
    assert drain(ports) == [PortPair(61000, 61000)]
    assert drain(ports, HIGH, LOW) == [PortPair(61001, 61001)]


STEPS = st.tuples(st.sampled_from(["take", "give", "wait"]), st.integers(0, 30))


@settings(max_examples=80, deadline=None)
@given(st.lists(STEPS, max_size=80))
def test_against_a_model(steps: list[tuple[str, int]]) -> None:
    ports = allocator(61000, 61005, quarantine=10)  # 9 pairs
    used: set[PortPair] = set()
    resting: dict[PortPair, float] = {}
    now = 0.0
    for step, number in steps:
        resting = {pair: until for pair, until in resting.items() if until > now}
        if step == "take":
            if len(used) + len(resting) == 9:
                with pytest.raises(SetupError):
                    ports.allocate(LOW, HIGH, now)
            else:
                pair = ports.allocate(LOW, HIGH, now)
                assert pair not in used
                assert pair not in resting
                used.add(pair)
        elif step == "give" and used:
            pair = sorted(used)[number % len(used)]
            ports.release(LOW, HIGH, pair, now)
            used.remove(pair)
            resting[pair] = now + 10
        elif step == "wait":
            now += number


@pytest.mark.parametrize(
    "bad", [{"first_port": 80}, {"first_port": 61000, "last_port": 61000}, {"last_port": 70000}]
)
def test_ranges_that_make_no_sense(bad: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="needs two ports within 1024-65535"):
        Settings(**bad)
