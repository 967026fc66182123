"""Typed access to parsed JSON: what is not as expected raises `BadProgramError` by name."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import PurePath

from softnic.compiler import ir
from softnic.dataplane import UnsupportedConstructError

Json = Mapping[str, object]

MOST_BITS = 1 << 16
MOST_CELLS = 1 << 28


class BadProgramError(ValueError):
    """The JSON isn't what p4c writes; the text says which part."""


@contextmanager
def well_formed() -> Iterator[None]:
    """What refers to nothing, or has too few parts, is told as a `BadProgramError`."""
    try:
        yield
    except (BadProgramError, UnsupportedConstructError):
        raise
    except (LookupError, ValueError, TypeError, AttributeError, RecursionError) as e:
        raise BadProgramError(
            f"not bmv2 JSON as p4c writes it: {type(e).__name__}: {str(e)[:200]}"
        ) from e


def obj(value: object, what: str) -> Json:
    """A JSON object."""
    if isinstance(value, dict):
        return value
    raise BadProgramError(f"{what}: expected an object, found {type(value).__name__}")


def items(value: object, what: str) -> Sequence[object]:
    """A JSON list."""
    if isinstance(value, list):
        return value
    raise BadProgramError(f"{what}: expected a list, found {type(value).__name__}")


def objs(parent: Json, key: str) -> list[Json]:
    """A list of objects under `key`; empty where it is missing."""
    return [obj(v, key) for v in items(parent.get(key) or [], key)]


def string(value: object, what: str) -> str:
    """A string."""
    if isinstance(value, str):
        return value
    raise BadProgramError(f"{what}: expected a string, found {value!r}")


def integer(value: object, what: str) -> int:
    """A number."""
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    raise BadProgramError(f"{what}: expected a number, found {value!r}")


def within(value: object, what: str, most: int) -> int:
    """A number from 1 to `most`."""
    n = integer(value, what)
    if not 1 <= n <= most:
        raise BadProgramError(f"{what}: {n} is not between 1 and {most}")
    return n


def pair(value: object, what: str) -> tuple[object, object]:
    """A list of two."""
    found = items(value, what)
    if len(found) != 2:
        raise BadProgramError(f"{what}: expected two values, found {len(found)}")
    return found[0], found[1]


def hexadecimal(value: object, what: str) -> int:
    """A number, written in hexadecimal."""
    if isinstance(value, int):
        return int(value)
    try:
        return int(string(value, what), 16)
    except ValueError:
        raise BadProgramError(f"{what}: not a hexadecimal number: {value!r}") from None


def optional(value: object, what: str) -> str | None:
    """A string, or null."""
    return None if value is None else string(value, what)


def source_of(o: Json) -> ir.Source:
    """Where the object stands in the P4 program."""
    info = o.get("source_info")
    if not isinstance(info, dict) or "filename" not in info:
        return ir.Source()
    text = str(info.get("source_fragment", ""))
    return ir.Source(PurePath(str(info["filename"])).name, int(info.get("line", 0)), text)
