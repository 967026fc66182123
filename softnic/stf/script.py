"""STF scripts as typed statements.

    add TABLE [PRIORITY] KEY:VALUE ... ACTION(ARG:VALUE, ...) [= NAME]
    setdefault TABLE ACTION(ARG:VALUE, ...)
    remove all
    packet PORT BYTES            expect PORT [PATTERN[$]]       no_packet
    check_counter NAME(INDEX or $NAME) [packets|bytes OP NUMBER]
    wait                         and commands of bmv2's CLI, such as mirroring_add SESSION PORT

One statement a line; `#` starts a comment. In a pattern `*` is any half byte, and `$` at its end
allows nothing after it. In a value `*` is any digit, and `/N` a prefix.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass


class ScriptError(ValueError):
    """The script can't be read, or doesn't fit the program; the text names the line."""


@dataclass(frozen=True, slots=True)
class Call:
    """An action with its arguments by name."""

    action: str
    args: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Statement:
    """Anything in a script."""

    line: int


@dataclass(frozen=True, slots=True)
class Add(Statement):
    """Insert an entry; a higher priority wins."""

    table: str
    priority: int
    keys: Mapping[str, str]
    call: Call
    name: str | None


@dataclass(frozen=True, slots=True)
class SetDefault(Statement):
    """Replace a table's default action."""

    table: str
    call: Call


@dataclass(frozen=True, slots=True)
class RemoveAll(Statement):
    """Empty all tables."""


@dataclass(frozen=True, slots=True)
class Packet(Statement):
    """Send a frame in at a port."""

    port: int
    data: bytes


@dataclass(frozen=True, slots=True)
class Expect(Statement):
    """A frame must come out of a port; `pattern` None: any number of any frames may."""

    port: int
    pattern: str | None
    exact: bool


@dataclass(frozen=True, slots=True)
class CheckCounter(Statement):
    """A counter's cell, or that of the entry with a name, must compare so."""

    counter: str
    index: str
    unit: str
    op: str
    value: int


@dataclass(frozen=True, slots=True)
class Command(Statement):
    """A command of bmv2's command line; `wait` and `no_packet` too."""

    name: str
    args: tuple[str, ...]


_CALL = re.compile(r"(?P<action>[\w.$\[\]]+)\s*\((?P<args>[^()]*)\)\s*(=\s*(?P<name>\w+))?\s*$")
_COUNTER = re.compile(
    r"(?P<counter>[\w.$\[\]]+)\s*\(\s*(?P<index>\$?\w+)\s*\)"
    r"(\s*(?P<unit>packets|bytes)\s*(?P<op>==|!=|<=|<|>=|>)\s*(?P<value>\w+))?\s*$"
)
_PATTERN = re.compile(r"[0-9A-Fa-f*]*\$?")


def number(text: str, line: int) -> int:
    """A number in decimal, hexadecimal (0x) or binary (0b)."""
    try:
        return int(text, 0) if text.startswith(("0x", "0b", "0o", "0X", "0B")) else int(text)
    except ValueError:
        raise ScriptError(f"line {line}: {text!r} is not a number") from None


def _call(text: str, line: int) -> tuple[str, Call, str | None]:
    """What stands before the action, the action, and the name it is given."""
    found = _CALL.search(text)
    if found is None:
        raise ScriptError(f"line {line}: expected ACTION(ARGUMENT:VALUE, ...) at the end")
    args = {}
    for part in filter(None, (p.strip() for p in found["args"].split(","))):
        name, colon, value = part.partition(":")
        if not colon:
            raise ScriptError(f"line {line}: argument {part!r} is not NAME:VALUE")
        args[name.strip()] = value.strip()
    return text[: found.start()], Call(found["action"], args), found["name"]


def _add(rest: str, line: int) -> Statement:
    before, call, name = _call(rest, line)
    table, *words = re.sub(r"\s*:\s*", ":", before).split()
    priority = number(words.pop(0), line) if words and ":" not in words[0] else 0
    keys = {}
    for word in words:
        key, colon, value = word.partition(":")
        if not colon:
            raise ScriptError(f"line {line}: key {word!r} is not NAME:VALUE")
        keys[key] = value
    return Add(line, table, priority, keys, call, name)


def _set_default(rest: str, line: int) -> Statement:
    before, call, _ = _call(rest, line)
    return SetDefault(line, before.strip(), call)


def _remove(rest: str, line: int) -> Statement:
    if rest.strip() != "all":
        raise ScriptError(f"line {line}: only 'remove all' is known")
    return RemoveAll(line)


def _port_and_data(rest: str, line: int) -> tuple[int, str]:
    port, _, data = rest.strip().partition(" ")
    return number(port, line), "".join(data.split())


def _packet(rest: str, line: int) -> Statement:
    port, data = _port_and_data(rest, line)
    try:
        return Packet(line, port, bytes.fromhex(data))
    except ValueError:
        raise ScriptError(f"line {line}: the packet isn't whole bytes in hexadecimal") from None


def _expect(rest: str, line: int) -> Statement:
    port, data = _port_and_data(rest, line)
    if not _PATTERN.fullmatch(data):
        raise ScriptError(f"line {line}: bad pattern {data!r}")
    return Expect(line, port, data.removesuffix("$").lower() or None, data.endswith("$"))


def _check_counter(rest: str, line: int) -> Statement:
    found = _COUNTER.match(rest.strip())
    if found is None:
        raise ScriptError(f"line {line}: expected check_counter NAME(INDEX) [packets == N]")
    value = number(found["value"] or "0", line)
    unit, op = found["unit"] or "packets", found["op"] or "=="
    return CheckCounter(line, found["counter"], found["index"], unit, op, value)


_STATEMENTS: Mapping[str, Callable[[str, int], Statement]] = {
    "add": _add,
    "setdefault": _set_default,
    "remove": _remove,
    "packet": _packet,
    "expect": _expect,
    "check_counter": _check_counter,
}


def parse(text: str) -> Iterator[Statement]:
    """The statements of a script. Raises `ScriptError`."""
    for line, row in enumerate(text.splitlines(), 1):
        words = row.partition("#")[0].strip()
        if not words:
            continue
        name, _, rest = words.replace("\t", " ").partition(" ")
        read = _STATEMENTS.get(name.lower())
        yield read(rest, line) if read else Command(line, name.lower(), tuple(rest.split()))
