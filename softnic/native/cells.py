"""Cells of counters, registers and meters, indirect and direct."""

from __future__ import annotations

import ctypes
import sys
from dataclasses import dataclass
from enum import IntEnum
from typing import Literal

from softnic.dataplane import Colors, CounterValue, Match, MeterConfig, Status
from softnic.native.handle import NO_PORT, Handle

_METER_WORDS = 10
"""Of `struct meter_view` (runtime/api.c): four of rates, two of each colour."""

_NO_COLORS: Colors = (CounterValue(0, 0), CounterValue(0, 0), CounterValue(0, 0))


class _MeterOp(IntEnum):
    """`enum meter_op` (runtime/api.c)."""

    READ = 0
    SET = 1
    UNSET = 2
    COLORS = 3


class Cells(Handle):
    """The indexed objects of a device, and the meters of its entries."""

    def counter(self, name: str, index: int) -> CounterValue:
        """Read a cell of an indirect counter; IndexError where there is none."""
        packets, octets = self._counter(name, index, None)
        return CounterValue(packets, octets)

    def set_counter(self, name: str, index: int, value: CounterValue) -> None:
        """Write a cell of an indirect counter."""
        self._counter(name, index, (value.packets, value.bytes))

    def register(self, name: str, index: int) -> int:
        """Read a register cell."""
        return self._register(name, index, None)

    def set_register(self, name: str, index: int, value: int) -> None:
        """Write a register cell."""
        self._register(name, index, value & ((1 << self._loaded().registers[name][1]) - 1))

    def _counter(self, name: str, index: int, write: tuple[int, int] | None) -> tuple[int, int]:
        values = (ctypes.c_uint64 * 2)(*(write or (0, 0)))
        number, flag = self._numbers.counters[name], int(write is not None)
        if not 0 <= index < NO_PORT or self._lib.sn_counter_access(
            self._d, number, index, values, flag
        ):
            raise IndexError(f"counter {name} has no cell {index}")
        return values[0], values[1]

    def _register(self, name: str, index: int, write: int | None) -> int:
        bits = self._loaded().registers[name][1]
        # A cell is one word or two, or above 128 bits the number's bytes (pipe.c).
        size = 8 if bits <= 64 else 16 if bits <= 128 else (bits + 7) // 8
        order: Literal["little", "big"] = sys.byteorder if bits <= 128 else "big"
        cell = (ctypes.c_uint8 * size).from_buffer_copy((write or 0).to_bytes(size, order))
        number, flag = self._numbers.registers[name], int(write is not None)
        if not 0 <= index < NO_PORT or self._lib.sn_register_access(
            self._d, number, index, cell, flag
        ):
            raise IndexError(f"register {name} has no cell {index}")
        return int.from_bytes(bytes(cell), order)

    # ---- meters

    def meter(self, name: str, index: int) -> MeterConfig | None:
        """Rates of a cell of an indirect meter, None: not set (always green)."""
        return self._meter(name, index, _MeterOp.READ, None).config

    def set_meter(self, name: str, index: int, config: MeterConfig | None) -> None:
        """Set the rates of a cell of an indirect meter."""
        self._meter(name, index, _set_or_unset(config), config)

    def meter_colors(self, name: str, index: int) -> Colors:
        """What a cell of an indirect meter marked so far."""
        return self._meter(name, index, _MeterOp.READ, None).colors

    def clear_meter_colors(self, name: str, index: int) -> None:
        """Count what a cell of an indirect meter marks from 0 again."""
        self.set_meter_colors(name, index, _NO_COLORS)

    def set_meter_colors(self, name: str, index: int, colors: Colors) -> None:
        """Count what a cell of an indirect meter marks from there."""
        self._meter(name, index, _MeterOp.COLORS, None, colors)

    def _meter(
        self,
        name: str,
        index: int,
        op: _MeterOp,
        config: MeterConfig | None,
        colors: Colors = _NO_COLORS,
    ) -> _Meter:
        words = _words(config, colors)
        rc = -1
        if 0 <= index < NO_PORT:
            rc = self._lib.sn_meter_access(self._d, self._numbers.meters[name], index, words, op)
        if rc < 0:
            raise IndexError(f"meter {name} has no cell {index}")
        return _read(words, rc)

    def direct_meter(self, table: str, match: Match | None) -> MeterConfig | None:
        """Rates of an entry's direct meter (None: of the default action); None: not set."""
        found = self._direct_meter(table, match, _MeterOp.READ, None)[1]
        return None if found is None else found.config

    def set_direct_meter(
        self, table: str, match: Match | None, config: MeterConfig | None
    ) -> Status:
        """Set the rates of an entry's direct meter (None: of the default action)."""
        return self._direct_meter(table, match, _set_or_unset(config), config)[0]

    def direct_meter_colors(self, table: str, match: Match | None) -> Colors | None:
        """What a direct meter marked so far; None: there is none."""
        found = self._direct_meter(table, match, _MeterOp.READ, None)[1]
        return None if found is None else found.colors

    def clear_direct_meter_colors(self, table: str, match: Match | None) -> Status:
        """Count what a direct meter marks from 0 again."""
        return self.set_direct_meter_colors(table, match, _NO_COLORS)

    def set_direct_meter_colors(self, table: str, match: Match | None, colors: Colors) -> Status:
        """Count what a direct meter marks from there."""
        return self._direct_meter(table, match, _MeterOp.COLORS, None, colors)[0]

    def _direct_meter(
        self,
        table: str,
        match: Match | None,
        op: _MeterOp,
        config: MeterConfig | None,
        colors: Colors = _NO_COLORS,
    ) -> tuple[Status, _Meter | None]:
        index, info = self._table(table)
        size = sum(k.size for k in info.key)
        if not info.has_meter:
            return Status.INVALID, None
        words = _words(config, colors)
        if match is None:
            rc = self._lib.sn_default_meter_access(self._d, index, words, op)
        elif len(match.key) != size or len(match.mask) != size:
            return Status.INVALID, None
        else:
            rc = self._lib.sn_entry_meter_access(
                self._d, index, match.key, match.mask, match.priority, words, op
            )
        return (Status.OK, _read(words, rc)) if rc >= 0 else (Status.NOT_FOUND, None)

    # ---- default actions

    def default_counter(self, table: str) -> CounterValue:
        """Packets that found no entry."""
        values = (ctypes.c_uint64 * 2)()
        self._lib.sn_default_counter_access(self._d, self._numbers.tables[table], values, 0)
        return CounterValue(*values)

    def set_default_counter(self, table: str, value: CounterValue) -> None:
        """Count packets that find no entry from there."""
        values = (ctypes.c_uint64 * 2)(value.packets, value.bytes)
        self._lib.sn_default_counter_access(self._d, self._numbers.tables[table], values, 1)


@dataclass(frozen=True, slots=True)
class _Meter:
    """A meter as it is: its rates, and what it marked."""

    config: MeterConfig | None
    colors: Colors


def _words(config: MeterConfig | None, colors: Colors) -> ctypes.Array[ctypes.c_uint64]:
    c = config or MeterConfig(0, 0, 0, 0)
    counts = (count for color in colors for count in (color.packets, color.bytes))
    return (ctypes.c_uint64 * _METER_WORDS)(c.cir, c.cburst, c.pir, c.pburst, *counts)


def _read(words: ctypes.Array[ctypes.c_uint64], is_set: int) -> _Meter:
    values = list(words)
    colors = (CounterValue(*values[4:6]), CounterValue(*values[6:8]), CounterValue(*values[8:10]))
    return _Meter(MeterConfig(*values[:4]) if is_set else None, colors)


def _set_or_unset(config: MeterConfig | None) -> _MeterOp:
    if config is not None and config.pir < config.cir:
        raise ValueError(f"peak rate {config.pir} below committed rate {config.cir}")
    return _MeterOp.UNSET if config is None else _MeterOp.SET
