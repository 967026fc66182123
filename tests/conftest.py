"""Tests that make networks run in a cage: whatever they leave, the kernel removes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from dysco.topo import cage

_HERE = Path(__file__).parent
_NETWORKED = tuple(_HERE / room for room in ("topo", "e2e", "controller", "state", "softnic/io"))


@pytest.hookimpl(tryfirst=True)
def pytest_cmdline_main(config: pytest.Config) -> int | None:
    """Start again inside a cage if any of the chosen tests needs one and none is around."""
    if cage.inside() or config.option.help or not any(map(_networked, config.args)):
        return None
    if cage.refusal() is not None:  # the tests concerned skip themselves and say why
        return None
    arguments = [str(argument) for argument in config.invocation_params.args]
    return subprocess.call(cage.command_for([sys.executable, "-m", "pytest", *arguments]))


def _networked(argument: str) -> bool:
    chosen = Path(argument.partition("::")[0]).resolve()
    return any(
        chosen == path or chosen in path.parents or path in chosen.parents for path in _NETWORKED
    )
