"""What a state command is asked: which session, as which host's stack knows it.

    dyscod --DYSCO_STATE (JSON)--> command --standard output: the state, of an export
           --standard input: the state, of an import-->

One file for both ends: `dyscod` writes it, the commands read it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Any

from dysco.agent.events import Sides, StateVerb
from dysco.agent.model import FiveTuple

VARIABLE = "DYSCO_STATE"
"""The environment variable with the request."""


class RequestError(ValueError):
    """That is no request; the text says why."""


class StateError(Exception):
    """A state command can't do what it is asked; the text says why, and what to do."""


@dataclass(frozen=True, slots=True)
class Request:
    """What a command is asked. The five-tuples are those of the host's own stack."""

    verb: StateVerb
    session: str
    """13 hex digits."""
    host: str
    sides: Sides
    """As this host has the session, or is to have it."""
    was: Sides
    """As the host has it that it comes from."""

    def tree(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "verb": self.verb.value,
            "session": self.session,
            "host": self.host,
            **_sides_tree(self.sides),
            "was": _sides_tree(self.was),
        }

    @staticmethod
    def of(tree: Any) -> Request:
        """From JSON. Raises RequestError."""
        try:
            return Request(
                StateVerb(tree["verb"]),
                str(tree["session"]),
                str(tree["host"]),
                _sides(tree),
                _sides(tree["was"]),
            )
        except (ValueError, KeyError, TypeError) as error:
            raise RequestError(f"that is no request of dyscod's: {error!r}") from error

    @staticmethod
    def of_environment(environment: Mapping[str, str] = os.environ) -> Request:
        """As `dyscod` gave it to this process. Raises RequestError."""
        text = environment.get(VARIABLE)
        if text is None:
            raise RequestError(f"{VARIABLE} is not set: it is dyscod that runs this command")
        try:
            tree = json.loads(text)
        except ValueError as error:
            raise RequestError(f"{VARIABLE} is no JSON: {error}") from error
        return Request.of(tree)


def _sides_tree(sides: Sides) -> dict[str, Any]:
    return {"received": _ends_tree(sides.received), "emitted": _ends_tree(sides.emitted)}


def _sides(tree: Any) -> Sides:
    return Sides(_ends(tree["received"]), _ends(tree["emitted"]))


def _ends_tree(ends: FiveTuple | None) -> dict[str, str | int] | None:
    if ends is None:
        return None
    return {"src": str(ends.src), "sport": ends.sport, "dst": str(ends.dst), "dport": ends.dport}


def _ends(tree: Any) -> FiveTuple | None:
    if tree is None:
        return None
    ends = FiveTuple(
        ip_address(tree["src"]), int(tree["sport"]), ip_address(tree["dst"]), int(tree["dport"])
    )
    if ends.src.version != ends.dst.version:
        raise ValueError("addresses of two families")
    if not (0 < ends.sport < 65536 and 0 < ends.dport < 65536):
        raise ValueError("a port is a number from 1 to 65535")
    return ends
