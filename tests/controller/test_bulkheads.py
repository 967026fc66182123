"""Faults of our own: what one packet or one device does wrong stops nothing else."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from lab import CLIENT, NETWORK, SECONDS, SYN_OPTIONS, Lab, ends, segment

from dysco.agent.events import Level, Tell
from dysco.agent.model import Host, OnFailure
from dysco.agent.packet import SYN
from dysco.controller import config as configuration
from dysco.controller.nic import Nic
from dysco.controller.pipeline import load
from dysco.controller.policies import PolicyStore
from dysco.controller.service import Service
from dysco.controller.told import Told


@pytest.fixture
async def service(bench: Lab) -> AsyncIterator[Service]:
    """The daemon's inside, here, with a real device."""
    config = configuration.load(bench.directory / "dyscod.toml")
    made = Service(config, configuration.load_key(config), load(), PolicyStore(":memory:"))
    running = asyncio.create_task(made.run())
    yield made
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


class Once:
    """Breaks the first call of a method, and lets the others through."""

    def __init__(self, method: Any) -> None:
        self._method, self.calls = method, 0

    def __call__(self, *arguments: Any) -> Any:
        self.calls += 1
        if self.calls == 1:
            raise ZeroDivisionError("seeded")
        return self._method(*arguments)


def nic_of(service: Service) -> Nic:
    return service.nics[0]


async def syn_leaves(bench: Lab, sport: int) -> None:
    bench.send(CLIENT, segment(ends(sport), SYN, options=SYN_OPTIONS))
    got = await asyncio.to_thread(bench.receive, NETWORK, lambda s: s.is_syn)
    assert got.payload[:4] == b"DySC"


async def test_a_packet_that_breaks_us(
    bench: Lab, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    nic = nic_of(service)
    assert await nic.device.wait_ready(SECONDS)
    await service.add_policy(
        match="", chain=["scrub"], priority=1, host=None, on_failure=OnFailure.REFUSE, name=None
    )
    await syn_leaves(bench, 53000)
    for number, (owner, method, counter) in enumerate(
        [
            (nic.runner, "execute", "packet_in_failed"),
            (next(iter(nic.runner.agents.values())), "handle", "agent_error"),
        ]
    ):
        broken = Once(getattr(owner, method))
        monkeypatch.setattr(owner, method, broken)
        bench.send(CLIENT, segment(ends(53001 + number), SYN, options=SYN_OPTIONS))
        async with asyncio.timeout(SECONDS):
            while not nic.all_counters()[counter]:
                await asyncio.sleep(0.01)
        # TCP's next try, and others' sessions.
        await syn_leaves(bench, 53001 + number)
        await syn_leaves(bench, 53010 + number)
        assert service.ready
    assert len(service.sessions()) == 5


def test_a_flood_of_lines_is_held_back(caplog: pytest.LogCaptureFixture) -> None:
    now = 0.0
    told = Told(lambda: now)
    host, other = (Host(n, f"h{n}", None, ()) for n in (1, 2))

    def tell(count: int, at: Host = host, counter: str = "header_forged") -> list[str]:
        caplog.clear()
        for number in range(count):
            told.tell(Tell(Level.WARNING, counter, at, f"line {number}"))
        return [record.getMessage() for record in caplog.records]

    with caplog.at_level("INFO"):
        assert tell(1000)[-1] == "host h1: line 9 (header_forged)"
        assert len(tell(5)) == 0
        assert len(tell(5, other)) == 5, "another host's are another's"
        assert len(tell(5, host, "bad_packet")) == 5
        now += 1
        first, *rest = tell(20)
        assert first == "host h1: and 995 more (header_forged)"
        assert len(rest) == 10
        now += 1
        assert tell(1)[0] == "host h1: and 10 more (header_forged)"
        now += 1
        assert tell(1) == ["host h1: line 0 (header_forged)"]
        told.tell(Tell(Level.DEBUG, "tag_no_room", host, "not at this level"))
        assert len(caplog.records) == 1


async def test_a_reconciliation_that_breaks_us(bench: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    config = configuration.load(bench.directory / "dyscod.toml")
    service = Service(config, configuration.load_key(config), load(), PolicyStore(":memory:"))
    nic = nic_of(service)
    broken = Once(nic.reconcile)
    monkeypatch.setattr(nic, "reconcile", broken)
    running = asyncio.create_task(service.run())
    assert await nic.device.wait_ready(SECONDS)
    assert broken.calls == 2
    assert nic.all_counters()["device_error"] == 1
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
