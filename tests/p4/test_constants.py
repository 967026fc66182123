"""Numbers that P4 and Python must agree on: define.p4 beside everyone who uses them.

The packet tests have copies of their own, in an environment of their own: of what they use.
"""

from __future__ import annotations

from enum import IntEnum
from types import ModuleType

import pytest
from conftest import Define, module_at

from dysco.agent import header
from dysco.agent.events import Reason, Submit
from dysco.agent.model import Host, Policy
from dysco.agent.reconfigure import control, in_band, state
from dysco.controller import config, legs, nic, policies, static_rows
from dysco.controller.pipeline import Pipeline
from dysco.topo import devices


@pytest.fixture(scope="module")
def packet_tests() -> ModuleType:
    return module_at("ptf_tests/common/network.py")


@pytest.fixture(scope="module")
def packet_test_runner() -> ModuleType:
    return module_at("ptf_tests/__main__.py")


def values(enum: type[IntEnum]) -> dict[str, int]:
    return {member.name: member.value for member in enum}


def test_define_is_read_whole(define: Define) -> None:
    # The reader of define.p4 sees what the file has, or nothing below means anything.
    assert {
        "CPU_PORT",
        "DYSCO_MAGIC",
        "CPU_CLONE_SESSION",
        "FLOOD_GROUP",
    } <= define.constants.keys()
    assert {"Reason", "Submit", "Drop"} <= define.enums.keys()


def test_reasons(define: Define, packet_tests: ModuleType) -> None:
    reasons = {name: n for name, n in define.enums["Reason"].items() if name != "NONE"}
    assert values(Reason) == reasons
    assert values(packet_tests.Reason).items() <= reasons.items()


def test_submits(define: Define, packet_tests: ModuleType) -> None:
    assert values(Submit) == define.enums["Submit"]
    assert values(packet_tests.Submit).items() <= define.enums["Submit"].items()


def test_drops(define: Define, packet_tests: ModuleType, pipeline: Pipeline) -> None:
    drops = define.enums["Drop"]
    assert {name.upper(): index for index, name in enumerate(nic._DROPS)} == drops
    assert values(packet_tests.Drop).items() <= drops.items()
    sizes = {c.preamble.id: c.size for c in pipeline.p4info.counters}
    assert pipeline.drop_counters
    for number in pipeline.drop_counters:
        assert sizes[number] > max(drops.values())


def test_magic(define: Define) -> None:
    assert define.constants["DYSCO_MAGIC"].to_bytes(4, "big") == header.MAGIC
    assert define.constants["DYSCO_MAGIC_SIZE"] == len(header.MAGIC)


@pytest.mark.parametrize("name", ["CPU_PORT", "FLOOD_GROUP"])
def test_device_numbers(define: Define, packet_tests: ModuleType, name: str) -> None:
    assert getattr(packet_tests, name) == define.constants[name]
    module = config if name == "CPU_PORT" else static_rows
    assert getattr(module, name) == define.constants[name]


def test_devices_are_started_with_the_cpu_port(
    define: Define, packet_test_runner: ModuleType
) -> None:
    assert define.constants["CPU_PORT"] == devices.CPU_PORT
    assert define.constants["CPU_PORT"] == packet_test_runner.CPU_PORT


def test_nobody_is_number_zero(define: Define) -> None:
    # Hosts and policies are numbered from 1 on, which their types' docstrings promise.
    assert define.constants["NO_HOST"] == define.constants["NO_POLICY"] == 0
    for kind in (Host, Policy):
        assert kind.__dataclass_fields__["id"].type == "int"
    assert policies.MAX_ID < 1 << 16


def test_room_for_policies(pipeline: Pipeline) -> None:
    for name in ("policy_v4", "policy_v6"):
        assert pipeline.tables[name].size == policies.TABLE_ENTRIES


def test_copies(define: Define) -> None:
    names = ("COPY_WATCH", "COPY_EXTRA", "COPY_REPORT", "COPY_ANNOUNCE")
    assert tuple(define.constants[name] for name in names) == static_rows.COPIES
    assert define.constants["COPY_WATCH"] == define.constants["CPU_CLONE_SESSION"]


def test_messages_between_hosts(define: Define) -> None:
    constants = define.constants
    assert constants["ANNOUNCEMENT_MAGIC"].to_bytes(4, "big") == legs.ANNOUNCEMENT_MAGIC
    assert constants["CONTROL_MAGIC"].to_bytes(4, "big") == control.MAGIC
    assert constants["ANNOUNCEMENT_PORT"] == legs.ANNOUNCEMENT_PORT == control.PORT
    assert constants["ETHERTYPE_LEG"] == legs.ETHERTYPE_LEG
    assert constants["IN_BAND_OPTION"].to_bytes(8, "big") == in_band.OPTION
    assert in_band.OPTION.endswith(control.MAGIC)


def test_legs(define: Define) -> None:
    assert define.constants["SLOTS"] == legs.SLOTS
    events = {
        name.removeprefix("EVENT_"): value
        for name, value in define.constants.items()
        if name.startswith("EVENT_")
    }
    assert {event.name: event.value for event in legs.Event} == events
    assert [count.name for count in state.Count] == list(define.enums["Count"])
    assert list(define.enums["Count"].values()) == list(range(len(state.Count)))
