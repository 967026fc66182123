"""A P4 program compiled for this target.

compile_program(json) ──load──▶ ir ──generate──▶ C ──gcc──▶ NativeProgram
"""

from __future__ import annotations

import ctypes
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from softnic import wire
from softnic.build import shared_object
from softnic.clib import runtime
from softnic.compiler.generate import VERSION, Generated, generate
from softnic.compiler.load import load
from softnic.compiler.probes import Probed
from softnic.dataplane import (
    ActionInfo,
    Field,
    ProfileInfo,
    TableInfo,
    ValueSetInfo,
    WireTable,
    WritePlan,
)


@dataclass(eq=False)
class NativeProgram:
    """A compiled pipeline (see `dataplane.Program`)."""

    tables: Mapping[str, TableInfo]
    actions: Mapping[str, ActionInfo]
    digests: Mapping[str, tuple[Field, ...]]
    counters: Mapping[str, int]
    registers: Mapping[str, tuple[int, int]]
    meters: Mapping[str, int]
    profiles: Mapping[str, ProfileInfo]
    value_sets: Mapping[str, ValueSetInfo]
    messages: Sequence[str]
    probed: Probed | None
    """What the numbers of its traces mean, in the traced build."""
    path: Path
    source: str

    def write_plan(self, tables: Sequence[WireTable]) -> WritePlan:
        """Prepare to read entries of these tables, none with a profile, from the wire."""
        return wire.NativePlan(tables, self.tables, self.actions)

    def descriptor(self) -> int:
        """Address of the program's `sn_program`. The code stays loaded as long as we run."""
        lib = ctypes.CDLL(str(self.path), mode=ctypes.RTLD_LOCAL)
        return ctypes.addressof(ctypes.c_char.in_dll(lib, "sn_program"))


def compile_program(
    json_bytes: bytes, *, cache_dir: Path | None = None, traced: bool = False
) -> NativeProgram:
    """Translate bmv2 JSON to native code, or find it in the cache.

    `traced`: slower code that tells what each packet goes through (`NativeDataPlane.traces`).
    Raises `UnsupportedConstructError` by name for what this target can't do, `BadProgramError`
    for what isn't bmv2 JSON, `ToolchainError` where there is no C compiler.
    """
    made: Generated = generate(load(json_bytes), traced=traced)
    runtime()
    source = f"/* generator {VERSION} */\n{made.source}"
    return NativeProgram(
        tables=made.tables,
        actions=made.actions,
        digests=made.digests,
        counters=made.counters,
        registers=made.registers,
        meters=made.meters,
        profiles=made.profiles,
        value_sets=made.value_sets,
        messages=made.messages,
        probed=made.probed,
        path=shared_object("program", [source], cache_dir),
        source=source,
    )
