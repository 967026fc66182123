"""One session at one host: messages that come late."""

from __future__ import annotations

import random

from dysco.agent.reconfigure.messages import (
    CancelLock,
    Ends,
    Message,
    NackLock,
    ReconfigurationId,
    RequestLock,
)
from tests.reconfigure.simulation.boxes import RIGHT
from tests.reconfigure.simulation.network import Clock, Fate
from tests.reconfigure.simulation.node import Node


def test_a_late_request_does_not_turn_the_way_of_its_cancel() -> None:
    """0 asks for a lock up to 2, and cancels; then 2 leaves the chain: it must still hear it."""
    clock, source = Clock(), random.Random(0)
    nodes = [Node(number, clock, source, 0.0, Fate()) for number in range(4)]
    hop = nodes[1]
    hop.neighbours = [nodes[0], nodes[2]]
    sent: list[tuple[int, Message]] = []
    hop.send_control = lambda node, to, message: sent.append((to, message))
    about = ReconfigurationId(0, 1)
    request = RequestLock(about, 2, 1, 1, Ends(0, 0, timestamps=True, sack=True))
    cancel = CancelLock(about, 2)
    hop.message(0, request)
    hop.message(0, cancel)
    hop.neighbours[RIGHT] = nodes[3]
    hop.message(0, request)
    hop.message(0, cancel)
    assert sent[0] == (2, request)
    assert sent[1] == (2, cancel)
    assert sent[2] == (0, NackLock(about, "it is over"))
    assert sent[3] == (2, cancel)
