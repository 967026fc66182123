"""Names and orders in P4Info that the controller relies on.

Rows of the controller list match fields and parameters in the order of the P4 program.
"""

from __future__ import annotations

import pytest

from dysco.controller import filter_compiler
from dysco.controller.mappings import TABLE_NAMES, MappingCodec
from dysco.controller.pipeline import Pipeline

SESSION_KEY = ("host", "src", "dst", "sport", "dport")
KEYS = {
    "port": ("ingress_port",),
    "bridge": ("dst_mac",),
    "route_v4": ("dst",),
    "route_v6": ("dst",),
    "policy_v4": ("host", *filter_compiler.FIELDS),
    "policy_v6": ("host", *filter_compiler.FIELDS),
    **dict.fromkeys(TABLE_NAMES, SESSION_KEY),
}
BITS = {
    "policy_v4": (16, *filter_compiler.V4.bits),
    "policy_v6": (16, *filter_compiler.V6.bits),
    "outbound_v4": (16, 32, 32, 16, 16),
    "inbound_v6": (16, 128, 128, 16, 16),
    "port": (9,),
}
PARAMS = {
    ("port", "host_port"): ("host", "is_middlebox", "uplink"),
    ("port", "network_port"): (),
    ("bridge", "bridge_to_host"): ("port", "host"),
    ("route_v4", "next_hop"): ("port", "dst_mac"),
    ("route_v6", "next_hop"): ("port", "dst_mac"),
    ("route_v4", "to_host"): ("port", "dst_mac", "host"),
    ("route_v6", "to_host"): ("port", "dst_mac", "host"),
    ("policy_v4", "chain"): ("policy",),
    ("policy_v6", "chain"): ("policy",),
    ("policy_v4", "direct"): (),
    ("policy_v6", "direct"): (),
}


@pytest.mark.parametrize("table", KEYS)
def test_keys(pipeline: Pipeline, table: str) -> None:
    assert pipeline.tables[table].field_names == KEYS[table]


@pytest.mark.parametrize("table", BITS)
def test_widths(pipeline: Pipeline, table: str) -> None:
    assert pipeline.tables[table].bits == BITS[table]


@pytest.mark.parametrize(("table", "action"), PARAMS)
def test_parameters(pipeline: Pipeline, table: str, action: str) -> None:
    assert pipeline.tables[table].actions[action].param_names == PARAMS[table, action]


def test_session_tables_are_known(pipeline: Pipeline) -> None:
    assert len(MappingCodec(pipeline).table_ids) == len(TABLE_NAMES)


def test_session_tables_tell_idle_entries_and_count(pipeline: Pipeline) -> None:
    counted = {c.direct_table_id for c in pipeline.p4info.direct_counters}
    for table in pipeline.p4info.tables:
        if table.preamble.alias in TABLE_NAMES:
            assert table.idle_timeout_behavior == table.NOTIFY_CONTROL
            assert table.preamble.id in counted


def test_packet_metadata(pipeline: Pipeline) -> None:
    assert pipeline.metadata["packet_in"].keys() >= {"port", "host", "policy", "reason"}
    assert pipeline.metadata["packet_out"].keys() >= {"port", "submit"}
