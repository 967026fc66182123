"""Whatever fills has a bound, and whatever is dropped there a counter with its reason."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path

import pytest
from finsy.proto import p4r
from lab import CONFIG, FIXED_ROUTE, KEY, SECONDS, Lab

from dysco.agent.events import Reason, Submit
from dysco.agent.model import MacAddress
from dysco.controller import config as configuration
from dysco.controller import grpc_link, neighbours
from dysco.controller.neighbours import Neighbours
from dysco.controller.nic import Nic
from dysco.controller.pipeline import load
from dysco.controller.policies import PolicyStore
from dysco.controller.service import Service


def nic_of(directory: Path, address: str, change: Callable[[str], str] = str) -> Nic:
    """A device as the daemon has it, whether anybody serves it or not."""
    (directory / "group.key").write_text(KEY.hex())
    text = CONFIG.format(
        listen="127.0.0.1:8700",
        state="x.sqlite",
        settings="",
        address=address,
        device_id=1,
        route=FIXED_ROUTE,
    )
    path = directory / "bounds.toml"
    path.write_text(change(text))
    config = configuration.load(path)
    made = Service(config, bytes(32), load(), PolicyStore(":memory:"))
    return made.nics[0]


def packet_in(nic: Nic, reason: int, host: int, frame: bytes = b"") -> None:
    ids = nic.pipeline.metadata["packet_in"]
    values = {"reason": reason, "host": host, "port": 1, "policy": 0}
    metadata = [
        p4r.PacketMetadata(metadata_id=ids[name], value=value.to_bytes(2, "big"))
        for name, value in values.items()
    ]
    nic.packet_in(p4r.PacketIn(payload=frame, metadata=metadata))


def test_packet_ins_of_nobody(tmp_path: Path) -> None:
    nic = nic_of(tmp_path, f"unix:{tmp_path}/none.sock")
    packet_in(nic, max(Reason) + 1, 0)
    assert nic.counters["packet_in_unknown_reason"] == 1
    packet_in(nic, Reason.HOST_SYN, 4242)
    assert nic.runner.counters["packet_in_unknown_host"] == 1
    packet_in(nic, Reason.NEIGHBOUR, 0, b"\x00" * 12 + b"\x08\x06" + b"\x00" * 28)
    assert nic.counters["neighbour_malformed"] == 1


def test_a_packet_out_without_a_device(tmp_path: Path) -> None:
    nic = nic_of(tmp_path, f"unix:{tmp_path}/none.sock")
    nic.device.packet_out(1, Submit.PORT, bytes(60))
    assert nic.device.counters["packet_out_not_ready"] == 1


async def test_more_packet_outs_than_wait(bench: Lab, tmp_path: Path) -> None:
    nic = nic_of(tmp_path, bench.device_address)
    running = asyncio.create_task(nic.device.run())
    try:
        assert await nic.device.wait_ready(SECONDS)
        # Without a pause between them none can leave.
        for _ in range(grpc_link.MAX_QUEUED + 3):
            nic.device.packet_out(1, Submit.PORT, bytes(60))
        assert nic.device.counters["packet_out_overflow"] >= 3
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


async def test_more_neighbours_than_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(neighbours, "MAX_NEIGHBOURS", 2)
    asked: list[object] = []
    known = Neighbours(lambda address, port: asked.append(address), lambda *changed: None)
    told: list[MacAddress | None] = []
    for last in (1, 2, 3):
        known.resolve(IPv4Address(f"10.0.0.{last}"), 1, told.append)
    assert (len(asked), told) == (2, [None]), "the third is answered at once"
    assert known.counters["neighbour_overflow"] == 1
    known.clear()


async def test_no_address_to_ask_from(tmp_path: Path) -> None:
    def only_ipv4(text: str) -> str:
        return re.sub(r', "fd00:[^"]*"', "", text)

    nic = nic_of(tmp_path, f"unix:{tmp_path}/none.sock", only_ipv4)
    nic.neighbours.resolve(IPv6Address("fd00::1"), 1, lambda mac: None)
    assert nic.counters["neighbour_no_source"] == 1
    assert nic.device.counters["packet_out_not_ready"] == 0, "nothing was sent"
    nic.neighbours.clear()
