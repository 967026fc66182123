"""Devices to talk to: without a pipeline, with one, and with a primary."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from p4rt import Client, program_config
from target import Target, serve


@pytest.fixture
def bare() -> Iterator[Target]:
    """A device without a pipeline."""
    target = serve()
    yield target
    target.close()


@pytest.fixture
def target(bare: Target) -> Target:
    """A device that runs the program `entities`, and knows no client."""
    config = program_config("entities")
    pusher = bare.client()
    pusher.primary(role="set-up")
    pusher.push(config, role="set-up")
    pusher.close()
    bare.clients.clear()
    return bare


@pytest.fixture
def client(target: Target) -> Client:
    """The primary of `target`, with election id 1."""
    made = target.client()
    made.primary()
    return made
