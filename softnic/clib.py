"""The runtime's C functions, as ctypes sees them (softnic/runtime/api.c, events.c)."""

from __future__ import annotations

import ctypes
from ctypes import (
    CDLL,
    POINTER,
    RTLD_GLOBAL,
    c_char_p,
    c_int,
    c_int64,
    c_uint8,
    c_uint32,
    c_uint64,
    c_void_p,
)
from functools import cache

from softnic.build import runtime_object

_BYTES = c_char_p  # read by the callee only
_BUFFER = POINTER(c_uint8)

_SIGNATURES: dict[str, tuple[object, list[object]]] = {
    "sn_device_new": (c_void_p, [c_uint32, c_uint32]),
    "sn_device_add_port": (c_int, [c_void_p, c_uint32, _BYTES]),
    "sn_device_start": (c_int, [c_void_p]),
    "sn_device_stop": (None, [c_void_p]),
    "sn_device_free": (None, [c_void_p]),
    "sn_device_load": (c_int, [c_void_p, c_void_p]),
    "sn_entities_lock": (None, [c_void_p]),
    "sn_entities_unlock": (None, [c_void_p]),
    "sn_packets_hold": (None, [c_void_p]),
    "sn_packets_release": (None, [c_void_p]),
    "sn_write": (None, [c_void_p, _BYTES, c_uint32, _BUFFER]),
    "sn_wire_new": (c_void_p, [POINTER(c_uint32)]),
    "sn_wire_free": (None, [c_void_p]),
    "sn_wire_head": (c_int, [_BYTES, c_uint64, POINTER(c_uint64)]),
    "sn_wire_write": (
        c_int,
        [c_void_p, c_void_p, _BYTES, c_uint64, POINTER(c_uint64), _BUFFER, POINTER(c_uint64)],
    ),
    "sn_entry_count": (c_uint32, [c_void_p, c_uint32]),
    "sn_entries": (c_uint64, [c_void_p, c_uint32, POINTER(c_uint32), _BUFFER, c_uint64]),
    "sn_entry_read": (
        c_uint32,
        [c_void_p, c_uint32, _BYTES, _BYTES, c_uint32, _BUFFER, c_uint32],
    ),
    "sn_entry_set_counter": (
        c_uint32,
        [c_void_p, c_uint32, _BYTES, _BYTES, c_uint32, c_uint64, c_uint64],
    ),
    "sn_default_set": (c_uint32, [c_void_p, c_uint32, c_uint32, _BYTES]),
    "sn_default_read": (c_uint32, [c_void_p, c_uint32, _BUFFER]),
    "sn_counter_access": (c_int, [c_void_p, c_uint32, c_uint32, POINTER(c_uint64), c_int]),
    "sn_register_access": (c_int, [c_void_p, c_uint32, c_uint32, _BUFFER, c_int]),
    "sn_default_meter_access": (c_int, [c_void_p, c_uint32, POINTER(c_uint64), c_int]),
    "sn_default_counter_access": (c_int, [c_void_p, c_uint32, POINTER(c_uint64), c_int]),
    "sn_meter_access": (c_int, [c_void_p, c_uint32, c_uint32, POINTER(c_uint64), c_int]),
    "sn_entry_meter_access": (
        c_int,
        [c_void_p, c_uint32, _BYTES, _BYTES, c_uint32, POINTER(c_uint64), c_int],
    ),
    "sn_profile_member": (c_uint32, [c_void_p, c_uint32, c_uint32, c_uint32, _BYTES]),
    "sn_profile_group": (c_uint32, [c_void_p, c_uint32, c_uint32, POINTER(c_uint32), c_uint32]),
    "sn_vset_set": (
        c_uint32,
        [c_void_p, c_uint32, _BYTES, c_uint32, POINTER(c_uint32), c_uint32],
    ),
    "sn_device_listen": (None, [c_void_p, c_uint32]),
    "sn_group_set": (
        c_int,
        [c_void_p, c_int, c_uint32, POINTER(c_uint32), c_uint32, c_uint32],
    ),
    "sn_packet_out": (c_int, [c_void_p, _BYTES, c_uint32]),
    "sn_inject": (
        c_int64,
        [c_void_p, c_uint32, _BYTES, c_uint32, _BYTES, _BUFFER, c_uint64],
    ),
    "sn_inject_burst": (
        c_int64,
        [c_void_p, POINTER(c_uint32), _BYTES, POINTER(c_uint32), c_uint32, _BUFFER, c_uint64],
    ),
    "sn_loop": (
        c_uint64,
        [c_void_p, c_uint32, _BYTES, c_uint32, c_uint32, c_uint32, POINTER(c_uint64)],
    ),
    "sn_events": (c_uint64, [c_void_p, _BUFFER, c_uint64, c_int64]),
    "sn_wake": (None, [c_void_p]),
    "sn_trace_start": (c_int, [c_void_p]),
    "sn_traces": (c_uint64, [c_void_p, _BUFFER, c_uint64, c_int64, POINTER(c_uint64)]),
    "sn_port_stats": (c_uint32, [c_void_p, c_uint32, POINTER(c_uint64)]),
    "sn_event_counts": (None, [c_void_p, POINTER(c_uint64)]),
}


@cache
def runtime() -> CDLL:
    """The runtime, built if need be and loaded; programs find its functions by name."""
    lib = CDLL(str(runtime_object()), mode=RTLD_GLOBAL, use_errno=True)
    for name, (result, arguments) in _SIGNATURES.items():
        function = getattr(lib, name)
        function.restype = result
        function.argtypes = arguments
    return lib


def buffer(size: int) -> ctypes.Array[c_uint8]:
    """Memory that the runtime may write to."""
    return (c_uint8 * size)()
