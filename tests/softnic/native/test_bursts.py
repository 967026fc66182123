"""Packets that come together do what they do one by one, though they wait for memory together."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
SOFTNIC = HERE.parent
AHEAD = {"control": True, "switch": False, "tables": True}
"""Whether the program runs ahead to an exact table; none of these draws random numbers."""


@pytest.mark.parametrize("name", AHEAD)
def test_side_by_side_as_one_by_one(name: str) -> None:
    command = [sys.executable, str(HERE / "side_by_side.py")]
    command += [str(SOFTNIC / "programs" / f"{name}.json"), str(SOFTNIC / "stf" / f"{name}.stf")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith(f"ahead: {AHEAD[name]}\n")
