"""Reconfigurations that meet each other, bad weather, and boxes that fail."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
from chained import nft
from control import Fate, Kind, Weather, dropped, rule
from reconfigured import (
    CHAIN,
    CHAINED,
    OVER,
    Sessions,
    Talk,
    ask,
    reconfigured,
    told,
    wait_states,
)
from streams import Stream

from dysco.topo.waiting import wait_until


@pytest.fixture(scope="module")
def network(caged: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sessions]:
    with reconfigured(tmp_path_factory.mktemp("troubles")) as network:
        yield network


# Several at once.


def test_two_of_one_session_on_disjoint_segments_at_the_same_time(network: Sessions) -> None:
    """client > a > middle, and middle > b > server; the second begins while the first lasts."""
    stream = Stream(network, CHAINED)
    assert stream.chain() == CHAIN
    with rule(network, dropped(Kind.ACK_LOCK)):
        stream.ask(delete=["a"])
        stream.ask(delete=["b"])
        wait_until(lambda: states(stream) == ["locking"] * 2, "both to be under way")
        stream.wait_more()
    wait_until(lambda: states(stream) == ["finished"] * 2, "both to be over")
    assert stream.chain() == ["client", "middle", "server"]
    stream.wait_more()
    stream.finish(wait=False)
    network.wait_clean()


def states(stream: Stream) -> list[str]:
    with stream.network.controller.api() as client:
        return [r["state"] for r in client.get("v1", "reconfigurations", session=stream.id)]


def test_of_two_that_overlap_one_wins(network: Sessions) -> None:
    """client > a > middle, and a > middle > b: the segments share a subsession."""
    talks = [Talk(network, CHAINED) for _ in range(4)]
    answers = [[ask(network, [talk], delete=[box])[0] for box in ("a", "middle")] for talk in talks]
    for talk, asked in zip(talks, answers, strict=True):
        assert wait_all_over(network, talk, sum(a["accepted"] for a in asked)) >= 1
        refused = [a["detail"] for a in asked if not a["accepted"]]
        ended = reconfigurations(network, talk)
        refused += [str(r["why"]) for r in ended if r["state"] == "failed"]
        for why in refused:
            assert "pending" in why or "locked" in why or "left the chain" in why
        assert len(talk.chain()) == len(CHAIN) - 2 + len(refused)
        talk.exchange(50_000)
        talk.finish()
    network.wait_clean()


def reconfigurations(network: Sessions, talk: Talk) -> list[dict[str, Any]]:
    with network.controller.api() as client:
        return list(client.get("v1", "reconfigurations", session=talk.id))


def wait_all_over(network: Sessions, talk: Talk, number: int) -> int:
    """Until so many reconfigurations of a session are over; how many succeeded."""

    def over() -> bool:
        known = reconfigurations(network, talk)
        return len(known) == number and all(r["over"] for r in known)

    wait_until(over, "all to be over", 20.0, every=0.05)
    return sum(r["state"] == "finished" for r in reconfigurations(network, talk))


def test_a_second_one_of_the_same_host_is_refused_with_the_reason(network: Sessions) -> None:
    talk = Talk(network, CHAINED)
    with rule(network, dropped(Kind.ACK_LOCK)):
        assert ask(network, [talk], delete=["a"])[0]["accepted"]
        wait_states(network, [talk], ("locking",))
        (answer,) = ask(network, [talk], replace="a", by="spare")
        assert not answer["accepted"]
        assert "begin" in answer["detail"], answer
    assert wait_states(network, [talk], OVER) == ["finished"]
    talk.exchange()
    talk.finish()


def test_ten_in_a_row(network: Sessions) -> None:
    stream = Stream(network, CHAINED)
    there = [("a", "spare"), ("middle", "firewall")]
    back = [(new, old) for old, new in there]
    for old, new in [*there, *back, *there, *back, *there]:
        stream.ask(replace=old, by=new)
        stream.wait_state("finished")
    assert stream.chain() == ["client", "spare", "firewall", "b", "server"]
    stream.wait_more()
    stream.finish(wait=False)
    network.wait_clean()
    assert network.dropped("b") == 0


# Bad weather between agents.


def first_ones_lost() -> Fate:
    """The first two of each kind are lost."""
    seen: Counter[int | None] = Counter()

    def fate(kind: int | None, source: random.Random) -> list[float]:
        seen[kind] += 1
        return [] if seen[kind] <= 2 else [0.0]

    return fate


def three_times_each(kind: int | None, source: random.Random) -> list[float]:
    return [0.0, 0.02, 0.2]


def bad(kind: int | None, source: random.Random) -> list[float]:
    """Some are lost, some come more than once, and all in any order, up to 0.3 s late."""
    copies = source.choice((0, 1, 1, 2, 3))
    return [source.random() ** 3 * 0.3 for _ in range(copies)]


@pytest.mark.parametrize("fate", [first_ones_lost(), three_times_each, bad])
def test_control_messages_in_bad_weather(network: Sessions, fate: Fate) -> None:
    talks = [Talk(network, CHAINED) for _ in range(6)]
    with Weather(network, fate, seed=1) as air:
        assert all(a["accepted"] for a in ask(network, talks[:3], delete=["middle"]))
        assert all(a["accepted"] for a in ask(network, talks[3:], replace="a", by="spare"))
        ended = wait_states(network, talks, OVER, 30.0)
        assert air.seen > 40
        for talk in talks:
            talk.exchange(20_000)
    # In weather as bad as this a lock may not be had in its time: then nothing has changed.
    for talk, state in zip(talks, ended, strict=True):
        if state == "failed":
            assert "no answer while" in told(network, talk.id)[-1]
            assert talk.chain() == CHAIN
        else:
            assert talk.chain() != CHAIN
        talk.exchange()
    if fate is not bad:
        assert ended == ["finished"] * 6, network.log()
    for talk in talks:
        talk.finish()
    network.wait_clean()


# Boxes that fail while the new path opens.


@pytest.mark.parametrize("lost", ["syn == syn", "(syn | ack) == (syn | ack)"])
def test_a_new_box_loses_the_handshake(network: Sessions, lost: str) -> None:
    stream = Stream(network, CHAINED)
    flags = "tcp flags & (syn | ack) == syn" if "|" not in lost else f"tcp flags & {lost}"
    with nft(network.host("spare"), "forward", f"{flags} counter drop"):
        stream.ask(replace="middle", by="spare")
        stream.wait_state("failed")
    assert told(network, stream.id)[-1].startswith("failed  no answer while connecting")
    stream.wait_more()
    assert stream.chain() == CHAIN
    stream.ask(replace="middle", by="spare")
    stream.wait_state("finished")
    stream.wait_more()
    stream.finish(wait=False)
    network.wait_clean()
