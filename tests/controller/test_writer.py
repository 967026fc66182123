"""Writes: what is batched, what waits for what, and who is told which error."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from random import Random

import pytest
from finsy.proto import p4r, rpc_code
from hypothesis import given, settings
from hypothesis import strategies as st

from dysco.controller.writer import (
    MAX_IN_FLIGHT,
    MAX_UPDATES,
    MAX_WAITING,
    PATIENCE,
    Errors,
    Writer,
)


def update(number: int) -> p4r.Update:
    return p4r.Update(
        type=p4r.Update.INSERT, entity=p4r.Entity(table_entry=p4r.TableEntry(priority=number))
    )


def number_of(made: p4r.Update) -> int:
    return made.entity.table_entry.priority


class Device:
    """Takes Writes and answers them when told to."""

    def __init__(self) -> None:
        self.writes: list[list[int]] = []
        self.answers: dict[int, Callable[[Errors], None]] = {}

    def write(self, updates: list[p4r.Update], done: Callable[[Errors], None]) -> None:
        self.answers[len(self.writes)] = done
        self.writes.append(list(map(number_of, updates)))

    async def answer(self, index: int, errors: Errors | None = None) -> None:
        self.answers.pop(index)(errors or {})
        await settle()


async def settle() -> None:
    """Everything that is ready to run runs."""
    for _ in range(5):
        await asyncio.sleep(0)


def ignore(_: Errors) -> None:
    pass


@pytest.fixture
async def both() -> AsyncIterator[tuple[Device, Writer]]:
    device = Device()
    writer = Writer(device.write)
    writer.start()
    yield device, writer
    writer.stop("the test is over")
    await settle()
    for answer in list(device.answers.values()):
        answer({})
    await settle()


async def test_a_job_goes_at_once_when_nothing_is_under_way(both: tuple[Device, Writer]) -> None:
    device, writer = both
    writer.submit([update(1), update(2)], frozenset("ab"), ignore)
    await settle()
    assert device.writes == [[1, 2]]


async def test_jobs_of_one_wake_up_share_a_write(both: tuple[Device, Writer]) -> None:
    device, writer = both
    for number in range(3):
        writer.submit([update(number)], frozenset({number}), ignore)
    writer.dispatch()
    assert device.writes == [[0, 1, 2]]


async def test_jobs_are_batched_while_writes_are_under_way(both: tuple[Device, Writer]) -> None:
    device, writer = both
    for number in range(10):
        writer.submit([update(number)], frozenset({number}), ignore)
        await settle()
    assert device.writes == [[n] for n in range(MAX_IN_FLIGHT)]
    await device.answer(0)
    assert device.writes[-1] == list(range(MAX_IN_FLIGHT, 10))
    assert writer.counters == {"writes": MAX_IN_FLIGHT + 1, "updates": 10}


async def test_a_batch_has_its_limit(both: tuple[Device, Writer]) -> None:
    device, writer = both
    for number in range(MAX_IN_FLIGHT + MAX_UPDATES + 3):
        writer.submit([update(number)], frozenset({number}), ignore)
        if number < MAX_IN_FLIGHT:
            await settle()
    await device.answer(0)
    await device.answer(MAX_IN_FLIGHT)
    assert [len(w) for w in device.writes[MAX_IN_FLIGHT:]] == [MAX_UPDATES, 3]


async def test_what_touches_one_entry_keeps_its_order(both: tuple[Device, Writer]) -> None:
    device, writer = both
    writer.submit([update(1)], frozenset("a"), ignore)
    writer.submit([update(2)], frozenset("ab"), ignore)
    # Its entry is free, but a job before it waits with it.
    writer.submit([update(3)], frozenset("b"), ignore)
    writer.submit([update(4)], frozenset("c"), ignore)
    await settle()
    assert device.writes == [[1, 4]]
    await device.answer(0)
    assert device.writes[1:] == [[2]]
    await device.answer(1)
    assert device.writes[2:] == [[3]]


async def test_errors_go_to_the_job_whose_they_are(both: tuple[Device, Writer]) -> None:
    device, writer = both
    told: dict[str, Errors] = {}

    def tell(name: str) -> Callable[[Errors], None]:
        return lambda errors: told.__setitem__(name, errors)

    for number in range(MAX_IN_FLIGHT):
        writer.submit([update(number)], frozenset({number}), ignore)
    await settle()
    writer.submit([update(10), update(11)], frozenset("a"), tell("a"))
    writer.submit([update(20)], frozenset("b"), tell("b"))
    writer.submit([update(30), update(31)], frozenset("c"), tell("c"))
    await device.answer(0)
    assert device.writes[-1] == [10, 11, 20, 30, 31]
    full = (int(rpc_code.RESOURCE_EXHAUSTED), "full")
    exists = (int(rpc_code.ALREADY_EXISTS), "there")
    await device.answer(MAX_IN_FLIGHT, {1: full, 3: exists})
    assert told == {"a": {1: full}, "b": {}, "c": {0: exists}}


async def test_stopping_refuses_what_waits_and_what_comes(both: tuple[Device, Writer]) -> None:
    device, writer = both
    told: list[Errors] = []
    for number in range(MAX_IN_FLIGHT + 1):
        writer.submit([update(number)], frozenset({number}), told.append)
        await settle()
    writer.stop("the device is gone")
    writer.submit([update(9)], frozenset({9}), told.append)
    gone = {0: (int(rpc_code.UNAVAILABLE), "the device is gone")}
    assert told == [gone, gone]
    # What is under way is told by the device's own answer.
    await device.answer(0)
    assert told[2:] == [{}]
    assert len(device.writes) == MAX_IN_FLIGHT


async def test_too_many_waiting_jobs_are_refused_and_counted(both: tuple[Device, Writer]) -> None:
    _, writer = both
    told: list[Errors] = []
    for number in range(MAX_WAITING + 1):
        writer.submit([update(number)], frozenset({"same"}), told.append)
        if not number:
            await settle()
    assert told == []
    writer.submit([update(0)], frozenset({"same"}), told.append)
    assert told == [{0: (int(rpc_code.UNAVAILABLE), f"{MAX_WAITING} writes are waiting")}]
    assert writer.counters["write_overflow"] == 1


async def test_patient_jobs_share_a_write_a_little_later(both: tuple[Device, Writer]) -> None:
    device, writer = both
    for number in range(3):
        writer.submit([update(number)], frozenset({number}), ignore, patient=True)
    writer.submit([update(9)], frozenset({9}), ignore)
    await settle()
    assert device.writes == [[9]]
    await device.answer(0)
    async with asyncio.timeout(5):
        while len(device.writes) < 2:
            await asyncio.sleep(PATIENCE / 5)
    assert device.writes[1] == [0, 1, 2]


async def test_who_stands_behind_a_patient_job_makes_it_hurry(both: tuple[Device, Writer]) -> None:
    device, writer = both
    writer.submit([update(1)], frozenset("a"), ignore, patient=True)
    writer.submit([update(2)], frozenset("b"), ignore, patient=True)
    writer.submit([update(3)], frozenset("a"), ignore)
    await settle()
    assert device.writes == [[1]]
    await device.answer(0)
    assert device.writes == [[1], [3]]


async def test_many_patient_jobs_wait_no_longer(both: tuple[Device, Writer]) -> None:
    device, writer = both
    for number in range(MAX_UPDATES // 2):
        writer.submit([update(number)], frozenset({number}), ignore, patient=True)
    await settle()
    assert device.writes == [list(range(MAX_UPDATES // 2))]


async def test_stopping_refuses_patient_jobs_too(both: tuple[Device, Writer]) -> None:
    device, writer = both
    told: list[Errors] = []
    writer.submit([update(1)], frozenset("a"), told.append, patient=True)
    writer.stop("gone")
    assert told == [{0: (int(rpc_code.UNAVAILABLE), "gone")}]
    await asyncio.sleep(PATIENCE * 1.5)
    assert device.writes == []


Jobs = st.lists(
    st.tuples(
        st.integers(1, 3), st.frozensets(st.integers(0, 4), min_size=1, max_size=3), st.booleans()
    ),
    min_size=1,
    max_size=30,
)


@settings(max_examples=60, deadline=None)
@given(Jobs, st.randoms(use_true_random=False))
def test_whatever_order_answers_come_in(
    jobs: list[tuple[int, frozenset[int], bool]], random: Random
) -> None:
    """Each job is told once; two that touch one entry are never under way together or swapped."""

    async def run() -> None:
        device = Device()
        writer = Writer(device.write)
        writer.start()
        told: list[int] = []
        keys_of = {index: keys for index, (_, keys, _) in enumerate(jobs)}
        for index, (count, keys, patient) in enumerate(jobs):
            updates = [update(index)] * count
            writer.submit(updates, keys, lambda _, index=index: told.append(index), patient=patient)
            if random.random() < 0.5:
                await settle()
        answered = 0
        order: list[int] = []
        while len(told) < len(jobs):
            await settle()
            open_writes = list(device.answers)
            assert len(open_writes) <= MAX_IN_FLIGHT
            if not open_writes:
                # Only patient ones are left, for a moment.
                await asyncio.sleep(PATIENCE / 3)
                continue
            under_way = [set(device.writes[i]) for i in open_writes]
            touched = [key for writes in under_way for job in writes for key in keys_of[job]]
            assert len(touched) == len(set(touched))
            await device.answer(random.choice(open_writes))
            answered += 1
            assert answered <= len(jobs)
        for written in device.writes:
            order += dict.fromkeys(written)
        assert sorted(order) == sorted(told) == list(range(len(jobs)))
        for i, first in enumerate(order):
            for second in order[i + 1 :]:
                assert second > first or keys_of[second].isdisjoint(keys_of[first])

    asyncio.run(run())
