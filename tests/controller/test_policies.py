"""Policies: kept, checked, and as rows of the tables."""

from __future__ import annotations

import sqlite3
from dataclasses import replace
from ipaddress import ip_address
from pathlib import Path

import pytest

from dysco.agent.model import OnFailure, Peer
from dysco.controller.filters import FilterError
from dysco.controller.policies import (
    MAX_ID,
    TABLE_ENTRIES,
    NotFoundError,
    Policy,
    PolicyError,
    PolicyStore,
    agent_policies,
    check,
    rows,
)

PEERS = (
    Peer("client", None, (ip_address("10.0.0.1"),)),
    Peer("fw1", "firewall", (ip_address("10.0.0.2"), ip_address("fd00::2"))),
    Peer("fw2", "firewall", (ip_address("10.0.0.3"),)),
    Peer("nat", "nat", (ip_address("10.0.0.4"),)),
)
WEB = Policy(1, "web", "dst port 80", ("fw1",), 100, None, OnFailure.REFUSE)


@pytest.fixture
def store(tmp_path: Path) -> PolicyStore:
    return PolicyStore(tmp_path / "policies.sqlite")


def test_policies_survive(tmp_path: Path) -> None:
    path = tmp_path / "policies.sqlite"
    kept = [
        WEB,
        replace(WEB, id=2, name="tracked", chain=(), on_failure=OnFailure.DIRECT),
        replace(WEB, id=3, name="untouched", chain=None, priority=7, host="client"),
    ]
    before = PolicyStore(path)
    for policy in kept:
        before.add(policy)
    # Not closed: as after kill -9.
    assert PolicyStore(path).all() == kept
    before.remove(kept[0])
    assert PolicyStore(path).all() == kept[1:]


def test_who_wins(store: PolicyStore) -> None:
    for policy in (
        replace(WEB, id=5, name="older"),
        replace(WEB, id=6, name="younger"),
        replace(WEB, id=7, name="higher", priority=101),
    ):
        store.add(policy)
    assert [p.name for p in store.all()] == ["higher", "older", "younger"]
    priorities = {row.params[0]: key.priority for key, row in rows(store.all(), {}).items()}
    assert priorities[7] > priorities[5] > priorities[6] > 0
    lowest = rows([replace(WEB, id=MAX_ID, priority=0)], {})
    assert min(key.priority for key in lowest) >= 1, "P4Runtime forbids 0"
    highest = rows([replace(WEB, id=1, priority=32767)], {})
    assert max(key.priority for key in highest) < 2**31


def test_names_and_ids(store: PolicyStore) -> None:
    store.add(WEB)
    assert store.find("web") == store.find("1") == WEB
    with pytest.raises(PolicyError, match="there is a policy 'web' already: remove it first"):
        store.add(replace(WEB, id=2))
    with pytest.raises(NotFoundError, match="'nix'; there are: web"):
        store.find("nix")
    assert store.free_id() == 2
    store.add(replace(WEB, id=MAX_ID, name="last"))
    assert store.free_id() == 2, "the highest is taken: the lowest free one"
    store.remove(WEB)
    assert store.free_id() == 1


def test_a_file_that_is_no_store(tmp_path: Path) -> None:
    path = tmp_path / "text"
    path.write_text("This is no database, but long enough to look like something. " * 20)
    with pytest.raises(PolicyError, match="the policy store can't be used: file is not a database"):
        PolicyStore(path)
    with pytest.raises(PolicyError, match="unable to open database file"):
        PolicyStore(tmp_path / "none" / "policies.sqlite")
    bad = tmp_path / "bad.sqlite"
    PolicyStore(bad).add(WEB)
    with sqlite3.connect(bad) as db:
        db.execute("update policy set on_failure = 'explode'")
    with pytest.raises(PolicyError, match="'explode' is not a valid OnFailure"):
        PolicyStore(bad)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"name": ""}, "is no name"),
        ({"name": "1st"}, "is no name"),
        ({"name": "a" * 64}, "is no name"),
        ({"priority": -1}, "must be 0 to 32767"),
        ({"priority": 32768}, "must be 0 to 32767"),
        ({"host": "nix"}, "no device has a host 'nix'; known: client"),
        ({"chain": ("nix",)}, "'nix' is no host, no address and no kind of middlebox"),
        ({"chain": ("fw1", "fw1")}, "fw1 comes twice, which is a loop"),
        ({"chain": ("fw1", "10.0.0.2")}, "fw1 comes twice, which is a loop"),
        ({"chain": ("client",)}, "client is an end host, not a middlebox"),
        ({"chain": ("10.9.9.9",)}, "is no address of a host of the trust group"),
        ({"chain": ("nat",) * 17}, "17 middleboxes, 16 at most"),
    ],
)
def test_what_can_t_work_is_refused(change: dict[str, object], why: str) -> None:
    with pytest.raises(PolicyError, match=why):
        check(replace(WEB, **change), PEERS, ["client"])  # type: ignore[arg-type]


def test_what_can_work() -> None:
    for chain in (None, (), ("firewall", "nat"), ("firewall", "firewall"), ("fd00::2", "fw2")):
        check(replace(WEB, chain=chain), PEERS, ["client"])
    with pytest.raises(FilterError, match="TCP sessions only"):
        check(replace(WEB, match="udp"), PEERS, [])


def test_rows_are_for_hosts_of_the_device() -> None:
    here = replace(WEB, host="client")
    elsewhere = replace(WEB, id=2, name="other", host="there")
    found = rows([here, elsewhere], {"client": 7})
    assert {(row.action, row.params) for row in found.values()} == {("chain", (1,))}
    assert {key.match[0] for key in found} == {(7, 0xFFFF)}
    everywhere = rows([WEB], {"client": 7})
    assert {key.match[0] for key in everywhere} == {(0, 0)}
    assert {key.table for key in everywhere} == {"policy_v4", "policy_v6"}


def test_untouched_sessions_are_rows_that_no_agent_hears_of() -> None:
    exception = replace(WEB, id=2, name="not", chain=None)
    assert {row.action for row in rows([exception], {}).values()} == {"direct"}
    assert set(agent_policies([WEB, exception])) == {1}


def test_too_many_rows_are_refused_before_any_is_written() -> None:
    big = [replace(WEB, id=n, name=f"p{n}", match="not port 80") for n in range(1, 20)]
    with pytest.raises(PolicyError, match=f"the policy table holds {TABLE_ENTRIES}"):
        rows(big, {})
    assert len(rows(big[:16], {})) == 2 * 16 * 256
