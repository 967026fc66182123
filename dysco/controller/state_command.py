"""State commands that are started for each call: argv lists, without a shell.

    request --DYSCO_STATE, state--> [command] --standard output--> state
                                              --status, standard error--> the reason

Bounded in time and in bytes; whatever is over a bound is killed, with all its children.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
from asyncio.subprocess import Process, SubprocessStreamProtocol
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from dysco.agent.events import MAX_STATE, StateVerb
from dysco.state.request import VARIABLE, Request

_TAIL = 2048
"""Bytes of standard error that are kept, the last ones."""
_CHUNK = 1 << 16


class HookError(Exception):
    """A call was not carried out; the text says why, for the operator."""


class Commands:
    """The commands of one host."""

    def __init__(self, commands: Mapping[StateVerb, Sequence[str]]) -> None:
        self._commands = commands

    async def open(self) -> None:
        """Nothing runs between calls."""

    async def call(self, request: Request, state: bytes, limit: float) -> bytes:
        """Run the command for this request; what it printed. Raises HookError."""
        argv = self._commands.get(request.verb)
        if argv is None:
            raise HookError(f"no command is configured for {request.verb.value}")
        environment = {**os.environ, VARIABLE: json.dumps(request.tree())}
        child = await start(argv, environment)
        try:
            async with asyncio.timeout(limit):
                out, told = await _converse(child, state)
                status = await child.process.wait()
        except TimeoutError as error:
            raise HookError(f"{argv[0]} still ran after {limit:g} s, and was killed") from error
        finally:
            await child.end()
        if len(out) > MAX_STATE:
            raise HookError(f"{argv[0]} printed more than {MAX_STATE} bytes: that is no state")
        if status != 0:
            ended = f"status {status}" if status > 0 else f"signal {-status}"
            raise HookError(f"{argv[0]} ended with {ended}: {words(told)}")
        return out

    async def close(self) -> None:
        """Nothing stays between calls."""


@dataclass(frozen=True, slots=True)
class Child:
    """A running command."""

    process: Process
    transport: asyncio.SubprocessTransport
    stdin: asyncio.StreamWriter
    stdout: asyncio.StreamReader
    stderr: asyncio.StreamReader

    async def end(self) -> None:
        """Kill it if it still runs, and its children; it is gone when this returns."""
        if self.process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
        # Its end is told when its pipes have ended: also one that is full, or that a child holds.
        self.transport.close()
        await self.process.wait()


async def start(argv: Sequence[str], environment: Mapping[str, str] | None = None) -> Child:
    """Start a command in a process group of its own. Raises HookError."""
    loop = asyncio.get_running_loop()

    def protocol() -> SubprocessStreamProtocol:
        return SubprocessStreamProtocol(limit=_CHUNK, loop=loop)

    try:
        transport, its = await loop.subprocess_exec(
            protocol, *argv, env=environment, start_new_session=True
        )
    except FileNotFoundError as error:
        raise HookError(f"there is no command {argv[0]}") from error
    except OSError as error:
        raise HookError(f"{argv[0]} can't be started: {error.strerror}") from error
    process = Process(transport, its, loop)
    if process.stdin is None or process.stdout is None or process.stderr is None:
        raise HookError(f"{argv[0]} has no pipes")
    return Child(process, transport, process.stdin, process.stdout, process.stderr)


async def _converse(child: Child, state: bytes) -> tuple[bytes, bytes]:
    """Everything in, and what comes out: of the state one byte more than may be, at most."""
    async with asyncio.TaskGroup() as group:
        group.create_task(_feed(child.stdin, state))
        out = group.create_task(_head(child.stdout, MAX_STATE + 1))
        told = group.create_task(tail(child.stderr))
    return out.result(), told.result()


async def _feed(stdin: asyncio.StreamWriter, state: bytes) -> None:
    # Who does not read its input may do without it.
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        stdin.write(state)
        await stdin.drain()
    stdin.close()


async def _head(stream: asyncio.StreamReader, size: int) -> bytes:
    """The first bytes; the rest is read and forgotten, until the end or the time is over."""
    kept = bytearray()
    while piece := await stream.read(_CHUNK):
        kept += piece[: size - len(kept)]
    return bytes(kept)


async def tail(stream: asyncio.StreamReader) -> bytes:
    """The last bytes."""
    kept = b""
    while piece := await stream.read(_CHUNK):
        kept = (kept + piece)[-_TAIL:]
    return kept


def words(told: bytes) -> str:
    """The last line of what a command said, for a line of ours."""
    lines = told.decode(errors="replace").strip().splitlines()
    return "".join(c if c.isprintable() else "?" for c in lines[-1]) if lines else "it said nothing"
