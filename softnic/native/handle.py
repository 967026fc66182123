"""A device in native memory, and the program that runs in it: what all parts stand on."""

from __future__ import annotations

from collections.abc import Mapping
from ctypes import CDLL
from dataclasses import dataclass, field

from softnic.clib import runtime
from softnic.dataplane import TableInfo
from softnic.native.program import NativeProgram

NO_PORT = 0xFFFFFFFF
"""Stands for no port, and is above every index."""


class DataPlaneError(RuntimeError):
    """The device couldn't be made or run; the text says why and what to do."""


@dataclass(frozen=True, slots=True)
class Numbers:
    """The numbers in C of what a program names."""

    tables: Mapping[str, int] = field(default_factory=dict)
    counters: Mapping[str, int] = field(default_factory=dict)
    registers: Mapping[str, int] = field(default_factory=dict)
    meters: Mapping[str, int] = field(default_factory=dict)
    profiles: Mapping[str, int] = field(default_factory=dict)
    value_sets: Mapping[str, int] = field(default_factory=dict)


def numbers_of(program: NativeProgram) -> Numbers:
    """Each list is in the order of the C arrays."""

    def count(names: Mapping[str, object]) -> dict[str, int]:
        return {name: number for number, name in enumerate(names)}

    return Numbers(
        tables=count(program.tables),
        counters=count(program.counters),
        registers=count(program.registers),
        meters=count(program.meters),
        profiles=count(program.profiles),
        value_sets=count(program.value_sets),
    )


class Handle:
    """The address of a device, while it lives, and its program."""

    def __init__(self, name: str, cpu_port: int | None, drop_port: int) -> None:
        self.name = name
        self._lib: CDLL = runtime()
        self._program: NativeProgram | None = None
        self._numbers = Numbers()
        self._dev: int | None = self._lib.sn_device_new(
            NO_PORT if cpu_port is None else cpu_port, drop_port
        )
        if not self._dev:
            raise DataPlaneError(f"{name}: out of memory")

    def _free(self) -> None:
        dev, self._dev = self._dev, None
        if dev is not None:
            self._lib.sn_device_stop(dev)
            self._lib.sn_device_free(dev)

    @property
    def _d(self) -> int:
        if self._dev is None:
            raise DataPlaneError(f"{self.name}: closed")
        return self._dev

    @property
    def address(self) -> int:
        """Where the device is, for native code that works on it too."""
        return self._d

    def _loaded(self) -> NativeProgram:
        if self._program is None:
            raise DataPlaneError(f"{self.name}: no program is loaded")
        return self._program

    def _table(self, name: str) -> tuple[int, TableInfo]:
        return self._numbers.tables[name], self._loaded().tables[name]

    def _params_size(self, action: str) -> int:
        return sum(p.size for p in self._loaded().actions[action].params)
