"""SetForwardingPipelineConfig and GetForwardingPipelineConfig (P4Runtime 1.4, 14 and 15)."""

from __future__ import annotations

import json

import grpc
import pytest
from finsy.proto import p4r
from p4rt import INSERT, Client, Get, Push, mac, program_config
from target import Target

CODE = grpc.StatusCode


def refusal(client: Client, *args: object, **more: object) -> tuple[grpc.StatusCode, str]:
    with pytest.raises(grpc.RpcError) as error:
        client.push(*args, **more)  # type: ignore[arg-type]
    return error.value.code(), error.value.details() or ""


def entry(client: Client) -> p4r.Entity:
    names = client.names
    return names.entry("exact_table", {"hdr.ethernet.dst": mac(1)}, names.action("forward", b"1"))


@pytest.fixture
def first(bare: Target) -> Client:
    """The primary of a device without a pipeline."""
    made = bare.client()
    made.primary()
    return made


def test_capabilities(first: Client) -> None:
    answer = first.stub.Capabilities(p4r.CapabilitiesRequest())
    assert answer.p4runtime_api_version == "1.4.0"


def test_nothing_goes_before_a_pipeline(first: Client) -> None:
    assert first.get() == p4r.ForwardingPipelineConfig()
    with pytest.raises(grpc.RpcError) as error:
        first.insert(entry(first))
    assert error.value.code() is CODE.FAILED_PRECONDITION
    with pytest.raises(grpc.RpcError) as error:
        first.entries("exact_table")
    assert error.value.code() is CODE.FAILED_PRECONDITION


def test_verify_changes_nothing(first: Client) -> None:
    first.push(program_config("entities"), Push.VERIFY)
    assert first.get() == p4r.ForwardingPipelineConfig()


def test_commit_empties_the_tables(first: Client) -> None:
    first.push(program_config("entities"))
    first.insert(entry(first))
    first.push(program_config("entities"))
    assert first.entries("exact_table") == []
    assert len(first.entries("port_acl")) == 1  # const entries are there again


def test_saved_then_committed(first: Client) -> None:
    first.push(program_config("entities", cookie=1))
    first.insert(entry(first))
    first.push(program_config("switch", cookie=2), Push.VERIFY_AND_SAVE)
    assert first.get().cookie.cookie == 1  # still the one that runs
    with pytest.raises(grpc.RpcError) as error:
        first.entries("exact_table")
    assert error.value.code() is CODE.FAILED_PRECONDITION
    first.push(None, Push.COMMIT)
    assert first.get().cookie.cookie == 2
    assert refusal(first, None, Push.COMMIT)[0] is CODE.NOT_FOUND
    assert refusal(first, program_config("switch"), Push.COMMIT)[0] is CODE.INVALID_ARGUMENT


def test_reconcile_keeps_entries_under_the_same_program(first: Client) -> None:
    first.push(program_config("entities", cookie=1))
    first.insert(entry(first))
    first.push(program_config("entities", cookie=2), Push.RECONCILE_AND_COMMIT)
    assert first.get().cookie.cookie == 2
    assert len(first.entries("exact_table")) == 1
    code, text = refusal(first, program_config("switch"), Push.RECONCILE_AND_COMMIT)
    assert code is CODE.INVALID_ARGUMENT
    assert "VERIFY_AND_COMMIT" in text
    assert len(first.entries("exact_table")) == 1


def test_reconcile_sets_the_first_pipeline(first: Client) -> None:
    first.push(program_config("entities"), Push.RECONCILE_AND_COMMIT)
    first.insert(entry(first))


def test_the_parts_asked_for(first: Client) -> None:
    config = program_config("entities", cookie=77)
    first.push(config)
    assert first.get(Get.ALL) == config
    cookie = p4r.ForwardingPipelineConfig(cookie=config.cookie)
    assert first.get(Get.COOKIE_ONLY) == cookie
    cookie.p4info.CopyFrom(config.p4info)
    assert first.get(Get.P4INFO_AND_COOKIE) == cookie
    cookie.ClearField("p4info")
    cookie.p4_device_config = config.p4_device_config
    assert first.get(Get.DEVICE_CONFIG_AND_COOKIE) == cookie


def test_without_a_cookie_there_is_none(first: Client) -> None:
    first.push(program_config("entities"))
    assert not first.get().HasField("cookie")


def without_table(config: p4r.ForwardingPipelineConfig) -> None:
    program = json.loads(config.p4_device_config)
    for pipeline in program["pipelines"]:
        for table in pipeline["tables"]:
            if table["name"] == "IngressImpl.lpm_table":
                table["name"] = "other"
        text = json.dumps(pipeline).replace('"IngressImpl.lpm_table"', '"other"')
        pipeline.update(json.loads(text))
    config.p4_device_config = json.dumps(program).encode()


def narrow(config: p4r.ForwardingPipelineConfig) -> None:
    table = next(t for t in config.p4info.tables if t.preamble.alias == "exact_table")
    table.match_fields[0].bitwidth = 47


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (lambda c: c.ClearField("p4info"), "p4info"),
        (lambda c: c.ClearField("p4_device_config"), "p4_device_config"),
        (lambda c: setattr(c, "p4_device_config", b"{not json"), "JSON"),
        (lambda c: setattr(c, "p4_device_config", b"\xff\xfe\x00"), "JSON"),
        (lambda c: setattr(c, "p4_device_config", b"[]"), "p4_device_config"),
        (lambda c: setattr(c, "p4_device_config", b"{}"), "p4_device_config"),
        (lambda c: setattr(c, "p4_device_config", b"[" * 100_000), "p4_device_config"),
        (without_table, "IngressImpl.lpm_table"),
        (narrow, "hdr.ethernet.dst"),
    ],
)
def test_a_config_that_cannot_be_is_refused_by_name(
    first: Client, damage: object, told: str
) -> None:
    first.push(program_config("entities", cookie=1))
    first.insert(entry(first))
    config = program_config("entities", cookie=2)
    damage(config)  # type: ignore[operator]
    code, text = refusal(first, config)
    assert code is CODE.INVALID_ARGUMENT
    assert told in text
    assert first.get().cookie.cookie == 1
    assert len(first.entries("exact_table")) == 1


def test_only_the_primary_sets_a_pipeline(first: Client) -> None:
    assert refusal(first, program_config("entities"), election_id=3)[0] is CODE.PERMISSION_DENIED


def test_unknown_action_and_device(first: Client) -> None:
    code, _ = refusal(first, program_config("entities"), Push.UNSPECIFIED)
    assert code is CODE.INVALID_ARGUMENT
    for request in (
        lambda: first.stub.GetForwardingPipelineConfig(Get(device_id=5)),
        lambda: first.stub.SetForwardingPipelineConfig(Push(device_id=5)),
        lambda: first.stub.Write(p4r.WriteRequest(device_id=5)),
        lambda: list(first.stub.Read(p4r.ReadRequest(device_id=5))),
    ):
        with pytest.raises(grpc.RpcError) as error:
            request()
        assert error.value.code() is CODE.NOT_FOUND


def test_a_large_batch_and_a_push_at_the_same_time(first: Client) -> None:
    """A write runs against the old pipeline or is refused by the new one, never both."""
    first.push(program_config("entities"))
    names = first.names
    batch = p4r.WriteRequest(device_id=1, election_id=p4r.Uint128(low=1))
    for number in range(1000):
        entity = names.entry(
            "exact_table", {"hdr.ethernet.dst": mac(number)}, names.action("forward", b"1")
        )
        batch.updates.add(type=INSERT, entity=entity)
    pending = first.stub.Write.future(batch)
    first.push(program_config("entities"))
    pending.result()
    assert len(first.entries("exact_table")) in (0, 1000)
