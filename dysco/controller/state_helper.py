"""A resident helper: one process, or one Unix socket, that answers all of a host's calls.

    {"call": 7, "verb": ..., "size": N} and N bytes -->  helper
    {"call": 7, "size": N} and N bytes, or {"call": 7, "error": "why"}  <--

A process is started with `dyscod`, a socket connected to at the first call, and both again at the
first call after they ended. One that leaves a call without an answer for its time is ended, unless
it may still be starting: what it has not answered by then has failed.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dysco.agent.events import MAX_STATE
from dysco.controller.state_command import Child, HookError, start, tail, words
from dysco.state.command import MAX_LINE
from dysco.state.request import Request

log = logging.getLogger(__name__)

_START = 30.0
"""Seconds that a helper may take until its first answer."""
_LAST_WORDS = 0.5
"""Seconds for what a helper says on standard error when it ends."""


class _Connection:
    """One life of the helper."""

    def __init__(
        self,
        name: str,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        child: Child | None,
    ) -> None:
        self._name = name
        self._reader, self.writer, self._child = reader, writer, child
        self.calls: dict[int, asyncio.Future[bytes]] = {}
        self.is_over = False
        loop = asyncio.get_running_loop()
        self._begun = loop.time()
        self._answered = False
        self._tail = loop.create_task(tail(child.stderr)) if child is not None else None
        self._reading = loop.create_task(self._read())

    @property
    def is_starting(self) -> bool:
        """True if it has a reason not to answer yet."""
        age = asyncio.get_running_loop().time() - self._begun
        return self._child is not None and not self._answered and age < _START

    async def _read(self) -> None:
        why = "it ended"
        try:
            while line := await self._reader.readline():
                await self._answer(json.loads(line))
        except (ValueError, KeyError, TypeError, asyncio.IncompleteReadError) as error:
            why = f"what it answered makes no sense: {str(error)[:80]!a}"
        except OSError as error:
            why = error.strerror or str(error)
        self.is_over = True
        self.writer.close()
        if self._tail is not None:
            await asyncio.wait([self._tail], timeout=_LAST_WORDS)
        if self._child is not None:
            await self._child.end()
        if self._tail is not None:
            why = f"{why}: {words(await self._tail)}"
        self._fail(why)

    async def _answer(self, head: dict[str, Any]) -> None:
        if "error" in head:
            answer: bytes | HookError = HookError(str(head["error"]))
        else:
            size = int(head["size"])
            if not 0 <= size <= MAX_STATE:
                raise ValueError(f"{size} bytes are no state: it has at most {MAX_STATE}")
            answer = await self._reader.readexactly(size)
        self._answered = True
        # A call that was given up may be answered yet.
        future = self.calls.pop(head["call"], None)
        if future is None or future.done():
            return
        if isinstance(answer, HookError):
            future.set_exception(answer)
        else:
            future.set_result(answer)

    def _fail(self, why: str) -> None:
        for future in self.calls.values():
            if not future.done():
                future.set_exception(HookError(f"{self._name}: {why}"))
        self.calls.clear()

    async def close(self) -> None:
        """End it; calls without an answer fail."""
        self.is_over = True
        if self._child is not None:
            await self._child.end()
        self.writer.close()
        await asyncio.wait([self._reading])


class Helper:
    """The helper of one host."""

    def __init__(self, where: Sequence[str] | Path) -> None:
        """`where`: the command that starts it, or the Unix socket that it listens on."""
        self._where = where
        self._name = str(where) if isinstance(where, Path) else where[0]
        self._connection: _Connection | None = None
        self._opening = asyncio.Lock()
        self._numbers = itertools.count(1)

    async def open(self) -> None:
        """Start it, if it is a process: its first call need not wait for that."""
        if isinstance(self._where, Path):
            return
        try:
            await self._open()
        except HookError as error:
            log.warning("state helper: %s", error)

    async def call(self, request: Request, state: bytes, limit: float) -> bytes:
        """Ask it; what it answered. Raises HookError."""
        connection: _Connection | None = None
        try:
            async with asyncio.timeout(limit):
                connection = await self._open()
                number = next(self._numbers)
                future = asyncio.get_running_loop().create_future()
                connection.calls[number] = future
                head = {"call": number, "size": len(state), **request.tree()}
                connection.writer.write(json.dumps(head).encode() + b"\n" + state)
                with contextlib.suppress(OSError):  # its end is told to the future
                    await connection.writer.drain()
                return bytes(await future)
        except TimeoutError as error:
            if connection is not None and not connection.is_starting:
                await connection.close()
            raise HookError(f"{self._name} did not answer within {limit:g} s") from error

    async def _open(self) -> _Connection:
        async with self._opening:
            if self._connection is not None and not self._connection.is_over:
                return self._connection
            if isinstance(self._where, Path):
                self._connection = await self._connect(self._where)
            else:
                self._connection = await self._start(self._where)
            return self._connection

    async def _connect(self, path: Path) -> _Connection:
        try:
            reader, writer = await asyncio.open_unix_connection(path, limit=MAX_LINE)
        except OSError as error:
            raise HookError(f"{path} can't be reached: {error.strerror}") from error
        return _Connection(self._name, reader, writer, None)

    async def _start(self, argv: Sequence[str]) -> _Connection:
        child = await start(argv)
        log.info("state helper %s is started (pid %d)", argv[0], child.process.pid)
        return _Connection(self._name, child.stdout, child.stdin, child)

    async def close(self) -> None:
        """End it."""
        if self._connection is not None:
            await self._connection.close()
