"""Finds the line of a TOML key, so that an error can name the place and not only the key.

`tomllib` reports lines for syntax errors only. This reads headers and `key =` lines, which is
enough for configuration files: a key inside an inline table is found at the line of its table.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

_HEADER = re.compile(r"^\s*(\[\[?)\s*([^\[\]]+?)\s*\]\]?\s*(?:#.*)?$")
_KEY = re.compile(r"""^\s*(?:([A-Za-z0-9_-]+)|"([^"]*)"|'([^']*)')\s*[.=]""")

Path = tuple[str | int, ...]


def index(text: str) -> dict[Path, int]:
    """Line numbers (from 1) of every section and key in `text`."""
    lines: dict[Path, int] = {}
    counts: dict[Path, int] = {}
    section: Path = ()
    for number, line in enumerate(text.splitlines(), start=1):
        if header := _HEADER.match(line):
            names = [part.strip(" \"'") for part in header[2].split(".")]
            section = _enter(names, is_array=header[1] == "[[", counts=counts)
            lines.setdefault(section, number)
        elif key := _KEY.match(line):
            lines.setdefault((*section, key[1] or key[2] or key[3]), number)
    return lines


def _enter(names: Sequence[str], *, is_array: bool, counts: dict[Path, int]) -> Path:
    """Path of a section header, array elements counted from 0."""
    path: Path = ()
    for depth, name in enumerate(names):
        path = (*path, name)
        if is_array and depth == len(names) - 1:
            counts[path] = counts.get(path, -1) + 1
        if path in counts:
            path = (*path, counts[path])
    return path


def locate(lines: dict[Path, int], path: Sequence[str | int]) -> int | None:
    """Line of `path`, or of the nearest section around it."""
    for end in range(len(path), 0, -1):
        if (line := lines.get(tuple(path[:end]))) is not None:
            return line
    return None
