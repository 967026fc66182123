"""Cells of counters, registers and meters, indirect and direct."""

from __future__ import annotations

import ctypes
import sys
from typing import Literal

from softnic.dataplane import CounterValue, Match, MeterConfig, Status
from softnic.native.handle import NO_PORT, Handle

_METER_READ, _METER_SET, _METER_UNSET = 0, 1, 2


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
        return self._meter(name, index, _METER_READ, None)

    def set_meter(self, name: str, index: int, config: MeterConfig | None) -> None:
        """Set the rates of a cell of an indirect meter."""
        self._meter(name, index, *_meter_op(config))

    def _meter(
        self, name: str, index: int, op: int, config: MeterConfig | None
    ) -> MeterConfig | None:
        rates = _rates(config)
        rc = -1
        if 0 <= index < NO_PORT:
            rc = self._lib.sn_meter_access(self._d, self._numbers.meters[name], index, rates, op)
        if rc < 0:
            raise IndexError(f"meter {name} has no cell {index}")
        return MeterConfig(*rates) if rc else None

    def direct_meter(self, table: str, match: Match) -> MeterConfig | None:
        """Rates of an entry's direct meter, None: not set, or no such entry."""
        return self._direct_meter(table, match, _METER_READ, None)[1]

    def set_direct_meter(self, table: str, match: Match, config: MeterConfig | None) -> Status:
        """Set the rates of an entry's direct meter."""
        return self._direct_meter(table, match, *_meter_op(config))[0]

    def _direct_meter(
        self, table: str, match: Match, op: int, config: MeterConfig | None
    ) -> tuple[Status, MeterConfig | None]:
        index, info = self._table(table)
        size = sum(k.size for k in info.key)
        if len(match.key) != size or len(match.mask) != size or not info.has_meter:
            return Status.INVALID, None
        rates = _rates(config)
        rc = self._lib.sn_entry_meter_access(
            self._d, index, match.key, match.mask, match.priority, rates, op
        )
        if rc < 0:
            return Status.NOT_FOUND, None
        return Status.OK, MeterConfig(*rates) if rc else None


def _rates(config: MeterConfig | None) -> ctypes.Array[ctypes.c_uint64]:
    c = config or MeterConfig(0, 0, 0, 0)
    return (ctypes.c_uint64 * 4)(c.cir, c.cburst, c.pir, c.pburst)


def _meter_op(config: MeterConfig | None) -> tuple[int, MeterConfig | None]:
    if config is not None and config.pir < config.cir:
        raise ValueError(f"peak rate {config.pir} below committed rate {config.cir}")
    return (_METER_UNSET if config is None else _METER_SET), config
