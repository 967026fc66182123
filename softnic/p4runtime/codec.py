"""Byte strings of P4Runtime (8.4) and the packed fields that the data plane takes.

On the wire a value is the shortest big-endian string; towards the data plane every field has
ceil(bits / 8) bytes. Errors are ValueError with the reason; the caller adds where.
"""

from __future__ import annotations


def canonical(value: bytes) -> bytes:
    """The shortest string with this value; one zero byte for zero."""
    return value.lstrip(b"\0") or b"\0"


def pack(value: bytes, bits: int, size: int) -> bytes:
    """`value` in exactly `size` = ceil(bits / 8) bytes."""
    length = len(value)
    if length != size:
        if not length:
            raise ValueError("value is empty")
        if length < size:
            return value.rjust(size, b"\0")
        if value[: length - size].strip(b"\0"):
            raise ValueError(f"value 0x{value.hex()} is wider than {bits} bits")
        value = value[length - size :]
    if bits & 7 and value[0] >> (bits & 7):
        raise ValueError(f"value 0x{value.hex()} is wider than {bits} bits")
    return value


def ones(bits: int) -> bytes:
    """All `bits` bits set, packed."""
    return ((1 << bits) - 1).to_bytes((bits + 7) // 8, "big")


def prefix_mask(bits: int, prefix_len: int) -> bytes:
    """The mask of a prefix of `prefix_len` bits in a field of `bits` bits, packed."""
    mask = ((1 << prefix_len) - 1) << (bits - prefix_len)
    return mask.to_bytes((bits + 7) // 8, "big")


def prefix_len(mask: bytes) -> int:
    """Length of the prefix whose mask this is."""
    return int.from_bytes(mask, "big").bit_count()


def within(value: bytes, mask: bytes) -> bool:
    """True if no bit of `value` is outside `mask`."""
    bits = int.from_bytes(value, "big")
    return bits & int.from_bytes(mask, "big") == bits


def uint_to_bytes(value: int) -> bytes:
    """Canonical string of an unsigned integer."""
    return value.to_bytes(max(1, (value.bit_length() + 7) // 8), "big")


def sint_to_bytes(value: int) -> bytes:
    """Canonical two's complement string of a signed integer."""
    magnitude = value if value >= 0 else ~value
    return value.to_bytes(magnitude.bit_length() // 8 + 1, "big", signed=True)


def bytes_to_sint(value: bytes, bits: int) -> int:
    """The signed integer of `bits` bits in a two's complement string."""
    if not value:
        raise ValueError("value is empty")
    number = int.from_bytes(value, "big", signed=True)
    if not -(1 << (bits - 1)) <= number < 1 << (bits - 1):
        raise ValueError(f"value {number} doesn't fit in int<{bits}>")
    return number
