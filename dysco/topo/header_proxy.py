"""A proxy that tells the server who the client is, and then has nothing more to do.

    client ── C > S ──> [tproxy] proxy ── C > S: "PROXY TCP4 ...", then what the client sends ──> S
                                   │
                                   └── API: "I added 45 bytes, and will add none any more"

In front of what a client sends it puts a line of the PROXY protocol, version 1 (HAProxy,
proxy-protocol.txt, 2.1). From then on it passes everything on as it is, and could be taken out of
the session's path: it says so over the middlebox API, with what it added.

    python -m dysco.topo.header_proxy --host NAME --api URL [--api-namespace FILE]
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import logging
import os
import socket
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

from dysco.controller.client import ApiError, Client, UnreachableError
from dysco.topo import system
from dysco.topo.devices import can_connect
from dysco.topo.namespace import Namespace
from dysco.topo.process import Process
from dysco.topo.proxy import PORT

log = logging.getLogger("header_proxy")

_PIECE = 1 << 16
_TRIES, _PAUSE = 20, 0.05
"""The agent may learn of the session later than we do."""
_TRANSPARENT = {
    # linux/in.h, linux/in6.h
    socket.AF_INET: (socket.SOL_IP, 19),
    socket.AF_INET6: (socket.IPPROTO_IPV6, 75),
}


class Ends(NamedTuple):
    """A connection as the client has it."""

    src: str
    sport: int
    dst: str
    dport: int

    @property
    def header(self) -> bytes:
        """The line that names it."""
        family = "TCP6" if ":" in self.src else "TCP4"
        return f"PROXY {family} {self.src} {self.dst} {self.sport} {self.dport}\r\n".encode()


class Agent:
    """The agent beside us, by the daemon's API; asked by one thread of its own."""

    def __init__(self, host: str, api: str, namespace: Path | None) -> None:
        """`namespace`: the network that the API is reached by, if it is not ours."""
        self._host, self._client = host, Client(api)
        enter = (lambda: None) if namespace is None else (lambda: _enter(namespace))
        self._thread = ThreadPoolExecutor(1, initializer=enter)

    async def fix_deltas(self, ends: Ends, rightwards: int) -> None:
        """We added so many bytes, and will add none any more."""
        body = {"five_tuple": ends._asdict(), "rightwards": rightwards, "leftwards": 0}
        loop = asyncio.get_running_loop()
        for _ in range(_TRIES):
            try:
                await loop.run_in_executor(self._thread, self._post, body)
            except (ApiError, UnreachableError) as error:
                log.info("%s: %s", ends, error)
                await asyncio.sleep(_PAUSE)
            else:
                return
        log.warning("%s: the agent does not listen; the session keeps its path", ends)

    def _post(self, body: dict[str, Any]) -> None:
        self._client.post("v1", "middlebox", self._host, "deltas", body=body)


def start(namespace: Namespace, host: str, api: str, reached_by: Namespace) -> Process:
    """One in a middlebox's namespace, for connections to `PORT`. Raises ProcessError."""
    argv = [sys.executable, "-m", "dysco.topo.header_proxy", "--host", host, "--api", api]
    argv += ["--api-namespace", f"/proc/{os.getpid()}/fd/{reached_by.fd}"]
    process = namespace.start("header_proxy", argv)
    process.wait_ready(lambda: can_connect(namespace, f"127.0.0.1:{PORT}"), "it listened")
    return process


def _enter(namespace: Path) -> None:
    fd = os.open(namespace, os.O_RDONLY | os.O_CLOEXEC)
    try:
        system.setns(fd, system.CLONE_NEWNET)
    finally:
        os.close(fd)


def transparent(family: socket.AddressFamily) -> socket.socket:
    """A socket that may have any address."""
    made = socket.socket(family)
    made.setsockopt(*_TRANSPARENT[family], 1)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    made.setblocking(False)
    return made


async def _serve(client: socket.socket, agent: Agent) -> None:
    """One client, to its end."""
    loop = asyncio.get_running_loop()
    src, dst = client.getpeername(), client.getsockname()
    ends = Ends(src[0], src[1], dst[0], dst[1])
    with client, transparent(client.family) as server:
        try:
            server.bind(src)
            await loop.sock_connect(server, dst)
            await loop.sock_sendall(server, ends.header)
            async with asyncio.TaskGroup() as group:
                group.create_task(agent.fix_deltas(ends, len(ends.header)))
                group.create_task(relay(client, server))
        except* OSError as errors:
            log.info("%s: %r", ends, errors)


async def relay(one: socket.socket, other: socket.socket) -> None:
    """All bytes, both ways, until both have ended. Raises ExceptionGroup of OSError.

    Nothing of it outlives an error: the loop would go on to watch the numbers of the closed
    sockets, and never watch those that get them next.
    """
    async with asyncio.TaskGroup() as group:
        group.create_task(_pass(one, other))
        group.create_task(_pass(other, one))


async def _pass(source: socket.socket, sink: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    while piece := await loop.sock_recv(source, _PIECE):
        await loop.sock_sendall(sink, piece)
    with contextlib.suppress(OSError):
        sink.shutdown(socket.SHUT_WR)


async def _listen(family: socket.AddressFamily, everywhere: str, agent: Agent) -> None:
    loop = asyncio.get_running_loop()
    serving: set[asyncio.Task[None]] = set()
    with transparent(family) as listener:
        if family == socket.AF_INET6:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        listener.bind((everywhere, PORT))
        listener.listen()
        while True:
            client, _ = await loop.sock_accept(listener)
            client.setblocking(False)
            task = loop.create_task(_serve(client, agent))
            serving.add(task)
            task.add_done_callback(serving.discard)


async def _run(agent: Agent) -> None:
    await asyncio.gather(
        _listen(socket.AF_INET, "0.0.0.0", agent), _listen(socket.AF_INET6, "::", agent)
    )


def main() -> None:
    """Until it is ended."""
    parser = argparse.ArgumentParser(prog="header_proxy")
    parser.add_argument("--host", required=True, help="our name, as dyscod knows us")
    parser.add_argument("--api", required=True, help="dyscod's API")
    parser.add_argument("--api-namespace", type=Path, help="the network that it is reached by")
    given = parser.parse_args()
    logging.basicConfig(level=logging.INFO)
    asyncio.run(_run(Agent(given.host, given.api, given.api_namespace)))


if __name__ == "__main__":
    main()
