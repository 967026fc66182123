"""Tables of every match kind against a plain model, and reading back what was written."""

from __future__ import annotations

import random
import struct

import pytest
from conftest import Loader
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from softnic.dataplane import CounterValue, Entry, Match, Op, Status, Update
from softnic.native import NativeDataPlane

NO_HIT = 0


def key_frame(a: int = 0, b: int = 0, c: int = 0, d: int = 0, e: int = 0, f: int = 0) -> bytes:
    return struct.pack(">BI", a, b) + c.to_bytes(16, "big") + struct.pack(">HH", d, e << 12 | f)


def ask(plane: NativeDataPlane, **key: int) -> dict[str, int]:
    ((port, out),) = plane.inject(1, key_frame(**key))
    assert port == 1
    exact, lpm, lpm6, mixed = struct.unpack(">IIII", out[:16])
    return {
        "exact": exact,
        "lpm": lpm,
        "lpm6": lpm6,
        "mixed": mixed,
        "wide": int.from_bytes(out[16:36], "big"),
    }


def update(op: Op, table: str, match: Match, action: str, value: int) -> Update:
    return Update(op, f"I.{table}", Entry(match, f"I.{action}", value.to_bytes(4, "big")))


def prefix_mask(bits: int, length: int) -> int:
    return ((1 << length) - 1) << (bits - length)


def lpm_match(a: int, b: int, length: int) -> Match:
    m = prefix_mask(32, length)
    return Match(struct.pack(">BI", a, b & m), struct.pack(">BI", 0xFF, m))


def test_exact(load: Loader) -> None:
    plane = load("tables")
    key = (5).to_bytes(16, "big") + struct.pack(">I", 7) + b"\x03"
    ones = b"\xff" * 20 + b"\x0f"
    assert plane.write([update(Op.INSERT, "t_exact", Match(key, ones), "exact_set", 42)]) == [0]
    assert ask(plane, c=5, b=7, e=3)["exact"] == 42
    assert ask(plane, c=5, b=7, e=2)["exact"] == NO_HIT
    assert ask(plane, c=6, b=7, e=3)["exact"] == NO_HIT
    again = plane.write(
        [
            update(Op.INSERT, "t_exact", Match(key, ones), "exact_set", 43),
            update(Op.MODIFY, "t_exact", Match(key, ones), "exact_set", 44),
        ]
    )
    assert again == [Status.EXISTS, Status.OK]
    assert ask(plane, c=5, b=7, e=3)["exact"] == 44
    ((entry, _),) = plane.entries("I.t_exact")
    assert entry == Entry(Match(key, ones), "I.exact_set", struct.pack(">I", 44))
    assert plane.write([update(Op.DELETE, "t_exact", Match(key, ones), "exact_set", 0)]) == [0]
    assert ask(plane, c=5, b=7, e=3)["exact"] == NO_HIT
    missing = plane.write(
        [
            update(Op.DELETE, "t_exact", Match(key, ones), "exact_set", 0),
            update(Op.MODIFY, "t_exact", Match(key, ones), "exact_set", 0),
        ]
    )
    assert missing == [Status.NOT_FOUND, Status.NOT_FOUND]


def test_invalid_writes_lose_nothing(load: Loader) -> None:
    plane = load("tables")
    good = lpm_match(1, 0x0A000000, 8)
    bad = [
        update(Op.INSERT, "t_lpm", good, "exact_set", 1),  # an action of another table
        update(Op.INSERT, "nowhere", good, "lpm_set", 1),
        update(Op.INSERT, "t_lpm", Match(b"\0", b"\xff"), "lpm_set", 1),
        Update(Op.INSERT, "I.t_lpm", Entry(good, "I.lpm_set", b"\0")),
        update(
            Op.INSERT,
            "t_lpm",
            Match(good.key, b"\xff\xff\x00\xff\x00"),  # not a prefix
            "lpm_set",
            1,
        ),
    ]
    status = plane.write([*bad, update(Op.INSERT, "t_lpm", good, "lpm_set", 9), *bad])
    assert status == [Status.INVALID] * 5 + [Status.OK] + [Status.INVALID] * 5
    assert ask(plane, a=1, b=0x0A010203)["lpm"] == 9


def test_longest_prefix_wins(load: Loader) -> None:
    plane = load("tables")
    rows = [(0, 1), (8, 2), (16, 3), (24, 4), (32, 5)]
    for length, value in rows:
        m = lpm_match(1, 0x0A0B0C0D, length)
        assert plane.write([update(Op.INSERT, "t_lpm", m, "lpm_set", value)]) == [0]
    asked = {0x0A0B0C0D: 5, 0x0A0B0C0E: 4, 0x0A0B0D0D: 3, 0x0A0C0C0D: 2, 0x0B000000: 1}
    for b, value in asked.items():
        assert ask(plane, a=1, b=b)["lpm"] == value
        assert ask(plane, a=2, b=b)["lpm"] == NO_HIT
    for length, _ in rows[1:]:
        m = lpm_match(1, 0x0A0B0C0D, length)
        assert plane.write([update(Op.DELETE, "t_lpm", m, "lpm_set", 0)]) == [0]
    assert ask(plane, a=1, b=0x0A0B0C0D)["lpm"] == 1


def test_ipv6_prefixes_against_a_model(load: Loader) -> None:
    plane = load("tables")
    rng = random.Random(6)
    model: dict[tuple[int, int], int] = {}
    base = rng.getrandbits(128)
    updates = []
    for n in range(400):
        length = rng.choice([0, 1, 16, 32, 48, 63, 64, 65, 127, 128])
        value = (base ^ rng.getrandbits(8) << rng.randrange(120)) & prefix_mask(128, length)
        if (value, length) in model:
            continue
        model[value, length] = n + 1
        m = Match(value.to_bytes(16, "big"), prefix_mask(128, length).to_bytes(16, "big"))
        updates.append(update(Op.INSERT, "t_lpm6", m, "lpm6_set", n + 1))
    assert set(plane.write(updates)) == {Status.OK}
    for _ in range(500):
        c = base ^ rng.getrandbits(8) << rng.randrange(120)
        hits = [(k[1], v) for k, v in model.items() if c & prefix_mask(128, k[1]) == k[0]]
        assert ask(plane, c=c)["lpm6"] == (max(hits)[1] if hits else NO_HIT)


small = st.integers(0, 3)
rule = st.fixed_dictionaries(
    {
        "a": st.tuples(small, small),
        "d": st.tuples(small, small).map(sorted),
        "b": st.tuples(st.integers(0, 3), st.sampled_from([0, 31, 32])),
        "f": st.tuples(small, small).map(sorted),
        "e": st.tuples(small, st.booleans()),
        "prio": st.integers(1, 4),
    }
)


def mixed_match(r: dict[str, tuple[int, int]]) -> Match:
    (a, am), (d0, d1), (b, length), (f0, f1), (e, has_e) = (r[k] for k in "adbfe")
    bm, em = prefix_mask(32, length), 0xF if has_e else 0
    key = struct.pack(">BHIHB", a & am, d0, b & bm, f0, e & em)
    mask = struct.pack(">BHIHB", am, d1, bm, f1, em)
    prio = r["prio"]
    assert isinstance(prio, int)
    return Match(key, mask, prio)


def matches(m: Match, a: int, d: int, b: int, f: int, e: int) -> bool:
    ka, d0, kb, f0, ke = struct.unpack(">BHIHB", m.key)
    am, d1, bm, f1, em = struct.unpack(">BHIHB", m.mask)
    return a & am == ka and d0 <= d <= d1 and b & bm == kb and f0 <= f <= f1 and e & em == ke


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(rules=st.lists(rule, max_size=25), drop=st.lists(st.integers(0, 24), max_size=10))
def test_mixed_matches_against_a_model(
    load: Loader, rules: list[dict[str, tuple[int, int]]], drop: list[int]
) -> None:
    plane = load("tables")
    model: dict[Match, int] = {}
    for n, r in enumerate(rules):
        m = mixed_match(r)
        expect = Status.EXISTS if m in model else Status.OK
        assert plane.write([update(Op.INSERT, "t_mixed", m, "mixed_set", n + 1)]) == [expect]
        model.setdefault(m, n + 1)
    for i in drop:
        if i < len(rules) and (m := mixed_match(rules[i])) in model:
            assert plane.write([update(Op.DELETE, "t_mixed", m, "mixed_set", 0)]) == [0]
            del model[m]
    assert {e.match: int.from_bytes(e.params, "big") for e, _ in plane.entries("I.t_mixed")} == (
        model
    )
    rng = random.Random(len(rules))
    for _ in range(40):
        a, d, b, f, e = (rng.randrange(4) for _ in range(5))
        hits = {m: v for m, v in model.items() if matches(m, a, d, b, f, e)}
        best = max((m.priority for m in hits), default=0)
        allowed = {v for m, v in hits.items() if m.priority == best} or {NO_HIT}
        assert ask(plane, a=a, b=b, d=d, e=e, f=f)["mixed"] in allowed
    plane.close()


def test_const_entries_and_wide_parameters(load: Loader) -> None:
    plane = load("tables")
    assert ask(plane, f=1)["wide"] == 0x0102030405060708090A0B0C0D0E0F1011121314
    assert ask(plane, f=2)["wide"] == 0
    match = Match(b"\0\1", b"\x0f\xff")
    (entry, _) = plane.entry("I.t_wide", match) or (None, None)
    assert entry is not None
    assert entry.action == "I.wide_set"
    change = Update(Op.DELETE, "I.t_wide", Entry(match, "", b""))
    assert plane.write([change]) == [Status.INVALID]


def test_default_actions(load: Loader) -> None:
    plane = load("tables")
    assert plane.default("I.t_lpm") == ("NoAction", b"")
    assert plane.set_default("I.t_lpm", "I.lpm_set", struct.pack(">I", 77)) == Status.OK
    assert plane.default("I.t_lpm") == ("I.lpm_set", struct.pack(">I", 77))
    assert ask(plane)["lpm"] == 77
    assert plane.set_default("I.t_lpm", "I.lpm_set", b"") == Status.INVALID
    assert plane.reset_default("I.t_lpm") == Status.OK
    assert ask(plane)["lpm"] == 0


def test_a_full_table(load: Loader) -> None:
    plane = load("switch")

    def acl(n: int) -> Update:
        key, mask = struct.pack(">IHB", n, 0, 0), struct.pack(">IHB", 0xFFFFFFFF, 0xFFFF, 0)
        return Update(Op.INSERT, "I.acl", Entry(Match(key, mask, 1), "I.drop", b""))

    status = plane.write([acl(n) for n in range(70)])
    assert status == [Status.OK] * 64 + [Status.FULL] * 6
    assert plane.write([Update(Op.DELETE, "I.acl", acl(3).entry), acl(69)]) == [0, 0]


def test_many_entries_grow_shrink_and_stay_found(load: Loader) -> None:
    plane = load("tables")
    count = 100_000
    ones = b"\xff" * 20 + b"\x0f"

    def match(n: int) -> Match:
        return Match((n * n).to_bytes(16, "big") + struct.pack(">I", n) + b"\1", ones)

    for at in range(0, count, 5000):
        batch = range(at, at + 5000)
        updates = [update(Op.INSERT, "t_exact", match(n), "exact_set", n + 1) for n in batch]
        assert set(plane.write(updates)) == {Status.OK}
        assert ask(plane, c=(at // 2) ** 2, b=at // 2, e=1)["exact"] == at // 2 + 1
    gone = range(0, count, 2)
    updates = [update(Op.DELETE, "t_exact", match(n), "exact_set", 0) for n in gone]
    assert set(plane.write(updates)) == {Status.OK}
    for n in random.Random(1).sample(range(count), 500):
        assert ask(plane, c=n * n, b=n, e=1)["exact"] == (n + 1 if n % 2 else NO_HIT)
    assert sum(1 for _ in plane.entries("I.t_exact")) == count // 2


def test_direct_counters(load: Loader) -> None:
    plane = load("switch")
    mac = bytes.fromhex("020000000001")
    match = Match(mac, b"\xff" * 6)
    write = Update(Op.INSERT, "I.l2", Entry(match, "I.forward", b"\0\2", 5_000_000_000))
    assert plane.write([write]) == [Status.OK]
    for _ in range(3):
        plane.inject(1, mac + bytes(54))
    found = plane.entry("I.l2", match)
    assert found == (write.entry, CounterValue(3, 180))
    assert plane.set_direct_counter("I.l2", match, CounterValue(1, 2)) == Status.OK
    plane.inject(1, mac + bytes(54))
    assert [c for _, c in plane.entries("I.l2")] == [CounterValue(2, 62)]
    idle = plane.idle_ns("I.l2", match)
    assert idle is not None
    assert idle < 5_000_000_000
    other = Match(bytes(6), b"\xff" * 6)
    assert plane.idle_ns("I.l2", other) is None
    assert plane.set_direct_counter("I.l2", other, CounterValue(0, 0)) == Status.NOT_FOUND


@pytest.mark.parametrize("table", ["I.l2", "I.acl"])
def test_wrong_key_length_finds_nothing(load: Loader, table: str) -> None:
    plane = load("switch")
    assert plane.entry(table, Match(b"", b"")) is None
    assert plane.set_direct_counter(table, Match(b"", b""), CounterValue(0, 0)) == Status.INVALID
