"""The command `softnic stf PROGRAM.json SCRIPT.stf ...`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from softnic.build import ToolchainError
from softnic.native import NativeDataPlane, compile_program
from softnic.stf.runner import Runner
from softnic.stf.script import ScriptError, parse


def run(program: Path, script: Path) -> list[str]:
    """What a script finds wrong with a program. Raises `ValueError` where either can't be used."""
    compiled = compile_program(program.read_bytes())
    plane = NativeDataPlane({}, cpu_port=None)
    try:
        plane.load(compiled)
        return Runner(plane, compiled).run(parse(script.read_text()))
    finally:
        plane.close()


def main(argv: Sequence[str]) -> int:
    """Exit status 0: all as expected; 1: not; 2: the program or a script can't be used."""
    parser = argparse.ArgumentParser(
        prog="softnic stf", description="Run scripts of P4's simple test framework on a program."
    )
    parser.add_argument("program", type=Path, metavar="PROGRAM.json", help="bmv2 JSON")
    parser.add_argument("scripts", type=Path, nargs="+", metavar="SCRIPT.stf")
    options = parser.parse_args(argv)
    status = 0
    for script in options.scripts:
        try:
            failures = run(options.program, script)
        except (OSError, ValueError, ScriptError, ToolchainError) as error:
            print(f"softnic stf: {script}: {error}", file=sys.stderr)
            return 2
        for failure in failures:
            print(f"{script}: {failure}")
        print(f"{script}: {'FAILED' if failures else 'passed'}")
        status = max(status, int(bool(failures)))
    return status
