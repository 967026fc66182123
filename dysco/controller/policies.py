"""Policies: kept in SQLite, compiled to rows of the policy tables.

Which of several policies wins: the higher priority; of the same priority, the older one.
"""

from __future__ import annotations

import json
import re
import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path

from dysco.agent.model import OnFailure, Peer
from dysco.agent.model import Policy as AgentPolicy
from dysco.controller.filter_compiler import compile_filter
from dysco.controller.pipeline import Row, RowKey

DEFAULT_PRIORITY = 100
MAX_PRIORITY = 32767
MAX_ID = 65535
MAX_CHAIN = 16
TABLE_ENTRIES = 4096
"""Entries of each policy table."""
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_.-]{0,62}")
_SCHEMA = """
create table if not exists policy (
    id integer primary key,
    name text unique not null,
    match text not null,
    chain text,
    priority integer not null,
    host text,
    on_failure text not null
) strict
"""
_COLUMNS = "id, name, match, chain, priority, host, on_failure"


Rows = dict[RowKey, Row]


class PolicyError(ValueError):
    """A policy is refused; the text says why."""


class NotFoundError(LookupError):
    """There is no such policy."""


@dataclass(frozen=True, slots=True)
class Policy:
    """A policy as the operator gave it."""

    id: int
    name: str
    match: str
    chain: tuple[str, ...] | None
    """None: sessions stay untouched. Empty: tracked, but direct."""
    priority: int
    host: str | None
    """Only for sessions that this host starts; None: for all."""
    on_failure: OnFailure


class PolicyStore:
    """The policies in a SQLite file."""

    def __init__(self, path: Path | str) -> None:
        """Open or make it; raises PolicyError if it is no such file."""
        try:
            self._db = sqlite3.connect(path, isolation_level=None)
            self._db.execute("pragma journal_mode=wal")
            self._db.execute("pragma synchronous=normal")
            self._db.execute(_SCHEMA)
            self._policies = {policy.id: policy for policy in self._read()}
        except (sqlite3.Error, ValueError) as error:
            raise PolicyError(f"{path}: the policy store can't be used: {error}") from error

    def close(self) -> None:
        """Nothing may follow."""
        self._db.close()

    def _read(self) -> Iterator[Policy]:
        for number, name, match, chain, priority, host, on_failure in self._db.execute(
            f"select {_COLUMNS} from policy order by id"
        ):
            hops = None if chain is None else tuple(json.loads(chain))
            yield Policy(number, name, match, hops, priority, host, OnFailure(on_failure))

    def all(self) -> list[Policy]:
        """All policies, the one that wins first."""
        return sorted(self._policies.values(), key=lambda p: (-p.priority, p.id))

    def find(self, name_or_id: str) -> Policy:
        """By name, or by id. Raises NotFoundError."""
        for policy in self._policies.values():
            if name_or_id in (policy.name, str(policy.id)):
                return policy
        known = ", ".join(p.name for p in self.all()) or "none"
        raise NotFoundError(f"no policy has the name or id {name_or_id!r}; there are: {known}")

    def free_id(self) -> int:
        """For the next policy: ids are used again as late as possible. Raises PolicyError."""
        highest = max(self._policies, default=0)
        if highest < MAX_ID:
            return highest + 1
        number = next((n for n in range(1, MAX_ID + 1) if n not in self._policies), None)
        if number is None:
            raise PolicyError(f"there are {MAX_ID} policies already: remove some first")
        return number

    def add(self, policy: Policy) -> None:
        """Keep a policy. Raises PolicyError if the name is taken."""
        if any(p.name == policy.name for p in self._policies.values()):
            raise PolicyError(f"there is a policy {policy.name!r} already: remove it first")
        chain = None if policy.chain is None else json.dumps(policy.chain)
        self._db.execute(
            f"insert into policy ({_COLUMNS}) values (?, ?, ?, ?, ?, ?, ?)",
            (
                policy.id,
                policy.name,
                policy.match,
                chain,
                policy.priority,
                policy.host,
                policy.on_failure.value,
            ),
        )
        self._policies[policy.id] = policy

    def remove(self, policy: Policy) -> None:
        """Forget a policy."""
        self._db.execute("delete from policy where id = ?", (policy.id,))
        self._policies.pop(policy.id, None)


def check(policy: Policy, peers: Iterable[Peer], hosts: Iterable[str]) -> None:
    """Raises PolicyError, and FilterError for its match, if the policy can't work."""
    if not _NAME.fullmatch(policy.name):
        raise PolicyError(
            f"{policy.name!r} is no name: a letter, then letters, digits, '_', '.' or '-'"
        )
    if not 0 <= policy.priority <= MAX_PRIORITY:
        raise PolicyError(f"priority {policy.priority}: must be 0 to {MAX_PRIORITY}")
    known_hosts = set(hosts)
    if policy.host is not None and policy.host not in known_hosts:
        raise PolicyError(
            f"no device has a host {policy.host!r}; known: {', '.join(sorted(known_hosts))}"
        )
    _check_chain(policy.chain or (), policy.host, tuple(peers))
    compile_filter(policy.match)


def _check_chain(chain: tuple[str, ...], start: str | None, peers: tuple[Peer, ...]) -> None:
    if len(chain) > MAX_CHAIN:
        raise PolicyError(f"the chain has {len(chain)} middleboxes, {MAX_CHAIN} at most")
    by_name = {p.name: p for p in peers}
    kinds = {p.kind for p in peers if p.kind}
    addresses = {a: p for p in peers for a in p.addresses}
    visited: list[str] = []
    for element in chain:
        peer = by_name.get(element)
        if peer is None and element not in kinds:
            try:
                peer = addresses.get(ip_address(element))
            except ValueError:
                raise PolicyError(
                    f"chain: {element!r} is no host, no address and no kind of middlebox; "
                    f"hosts: {', '.join(sorted(by_name))}; kinds: {', '.join(sorted(kinds))}"
                ) from None
            if peer is None:
                raise PolicyError(f"chain: {element} is no address of a host of the trust group")
        if peer is not None:
            if peer.kind is None:
                raise PolicyError(f"chain: {peer.name} is an end host, not a middlebox (no kind)")
            if peer.name == start:
                raise PolicyError(f"chain: {peer.name} is where the sessions start: a loop")
            if peer.name in visited:
                raise PolicyError(f"chain: {peer.name} comes twice, which is a loop")
            visited.append(peer.name)


def agent_policies(policies: Iterable[Policy]) -> dict[int, AgentPolicy]:
    """What agents are told."""
    return {p.id: AgentPolicy(p.id, p.chain, p.on_failure) for p in policies if p.chain is not None}


def rows(policies: Iterable[Policy], host_ids: Mapping[str, int]) -> Rows:
    """The rows of one device, whose hosts are `host_ids`. Raises PolicyError if too many."""
    found: Rows = {}
    sizes = {4: 0, 6: 0}
    for policy in sorted(policies, key=lambda p: p.id):
        if policy.host is not None and policy.host not in host_ids:
            continue
        host = (0, 0) if policy.host is None else (host_ids[policy.host], 0xFFFF)
        # The P4Runtime priority: the policy's own, then age; never 0, which P4Runtime forbids.
        priority = (policy.priority << 16) + MAX_ID + 1 - policy.id
        compiled = compile_filter(policy.match)
        action, params = ("direct", ()) if policy.chain is None else ("chain", (policy.id,))
        for version, matches in ((4, compiled.v4), (6, compiled.v6)):
            sizes[version] += len(matches)
            for match in matches:
                key = RowKey(f"policy_v{version}", (host, *match), priority)
                found[key] = Row(key, action, params)
    if (size := max(sizes.values())) > TABLE_ENTRIES:
        raise PolicyError(
            f"all policies together need {size} entries, the policy table holds {TABLE_ENTRIES}: "
            "make matches simpler or remove policies"
        )
    return found
