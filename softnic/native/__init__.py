"""The native data plane: `dataplane.DataPlane` on the C runtime, and programs compiled for it.

compile_program(json) ──▶ NativeProgram ──load──▶ NativeDataPlane ──ctypes──▶ runtime/api.c

    program   what was compiled          tables    entries      cells  counters, registers, meters
    handle    the device's address       choices   profiles, value sets, replicas
    plane     the device: its life, packets, events, statistics             traces
"""

from softnic.native.handle import DataPlaneError
from softnic.native.plane import DROP_REASONS, PROGRAM_EVENTS, NativeDataPlane, Sent
from softnic.native.program import NativeProgram, compile_program

__all__ = [
    "DROP_REASONS",
    "PROGRAM_EVENTS",
    "DataPlaneError",
    "NativeDataPlane",
    "NativeProgram",
    "Sent",
    "compile_program",
]
