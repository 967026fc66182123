"""Traces of packets: the raw records that the traced build writes (runtime/trace.c)."""

from __future__ import annotations

import ctypes
import struct

from softnic.clib import buffer
from softnic.native.handle import DataPlaneError, Handle

_EVENT = struct.Struct("=IIII")
_BUFFER = 4 << 20
"""More than the longest trace."""


class Traces(Handle):
    """What packets went through, from the moment when it is asked for."""

    _trace_buffer: ctypes.Array[ctypes.c_uint8] | None = None
    traces_missed: int = 0
    """Packets whose trace there was no room for."""

    def trace(self) -> None:
        """Trace every packet from now on; programs must be of the traced build."""
        if self._lib.sn_trace_start(self._d) != 0:
            raise DataPlaneError(f"{self.name}: no memory for traces")
        self._trace_buffer = buffer(_BUFFER)

    def traces(self, timeout: float) -> list[bytes]:
        """Wait up to `timeout` seconds for traces; the records of each packet. One caller only.

        The queue is bounded: `traces_missed` counts those that it had no room for.
        """
        if self._trace_buffer is None:
            raise DataPlaneError(f"{self.name}: nothing is traced")
        missed = ctypes.c_uint64(0)
        n = self._lib.sn_traces(
            self._d, self._trace_buffer, _BUFFER, max(int(timeout * 1e9), 0), ctypes.byref(missed)
        )
        self.traces_missed = missed.value
        data = ctypes.string_at(self._trace_buffer, n)
        out, at = [], 0
        while at < n:
            _, _, length, _ = _EVENT.unpack_from(data, at)
            start = at + _EVENT.size
            out.append(data[start : start + length])
            at += (_EVENT.size + length + 7) & ~7
        return out
