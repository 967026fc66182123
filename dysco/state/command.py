"""The command line of a state command: one call, or all of a host's calls in one process.

COMMAND VERB     DYSCO_STATE and standard input --> handle --> standard output, exit status
COMMAND serve    {"call": 7, "verb": ..., "size": N} and N bytes of state, on standard input
             --> {"call": 7, "size": N} and N bytes, or {"call": 7, "error": "why"},
                 in the order of the calls
"""

from __future__ import annotations

import json
import sys
from asyncio import IncompleteReadError, LimitOverrunError, StreamReader
from collections.abc import Callable
from typing import Any, BinaryIO, NoReturn

from dysco.agent.events import MAX_STATE, StateVerb
from dysco.state.request import Request, RequestError, StateError

SERVE = "serve"
MAX_LINE = 8192
"""Bytes of a header's line, of either way."""

Handle = Callable[[Request, bytes], bytes]
"""Does what is asked: state in, state out. Raises StateError."""


def main(name: str, handle: Handle) -> None:
    """Do what the command line says; the process ends with status 1 and the reason if it can't."""
    words = sys.argv[1:]
    verbs = [verb.value for verb in StateVerb]
    if len(words) != 1 or words[0] not in (*verbs, SERVE):
        sys.exit(f"usage: {name} {'|'.join((*verbs, SERVE))}")
    if words[0] == SERVE:
        serve(handle, sys.stdin.buffer, sys.stdout.buffer)
        return
    try:
        request = Request.of_environment()
        if request.verb.value != words[0]:
            raise RequestError(f"it asks to {request.verb.value}, the command line to {words[0]}")
        is_import = request.verb is StateVerb.IMPORT
        state = sys.stdin.buffer.read(MAX_STATE + 1) if is_import else b""
        sys.stdout.buffer.write(handle(request, state))
    except (RequestError, StateError) as error:
        _die(name, error)


def _die(name: str, error: Exception) -> NoReturn:
    sys.exit(f"{name}: {error}")


def serve(handle: Handle, calls: BinaryIO, answers: BinaryIO) -> None:
    """Answer calls until there are no more. Raises RequestError at what is no call."""
    while line := calls.readline(MAX_LINE):
        header = _header(line)
        state = calls.read(header["size"])
        if len(state) < header["size"]:
            return
        answers.write(_answer(handle, header, state))
        answers.flush()


async def answered(handle: Handle, reader: StreamReader) -> bytes | None:
    """The answer to one call, for a process that does more; None: there are no more calls.

    Raises RequestError at what is no call.
    """
    try:
        header = _header(await reader.readuntil())
        state = await reader.readexactly(header["size"])
    except IncompleteReadError:
        return None
    except LimitOverrunError as error:
        raise RequestError(f"a call's line is too long: {error}") from error
    return _answer(handle, header, state)


def _answer(handle: Handle, header: dict[str, Any], state: bytes) -> bytes:
    try:
        answer = handle(Request.of(header), state)
    except (RequestError, StateError) as error:
        return _line({"call": header["call"], "error": str(error)})
    return _line({"call": header["call"], "size": len(answer)}) + answer


def _header(line: bytes) -> dict[str, Any]:
    try:
        header: dict[str, Any] = json.loads(line)
        if not isinstance(header["call"], int) or not 0 <= int(header["size"]) <= MAX_STATE:
            raise ValueError("its call is no number, or its size none that can be")
    except (ValueError, KeyError, TypeError) as error:
        raise RequestError(f"{line[:80]!r} is no call: {error!r}") from error
    return header


def _line(tree: dict[str, Any]) -> bytes:
    return json.dumps(tree).encode() + b"\n"
