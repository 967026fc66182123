"""The API's HTTP server, in the daemon's own event loop."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import stat
from collections.abc import Generator
from pathlib import Path

import uvicorn

from dysco.controller.api import make_app
from dysco.controller.service import Service

BACKLOG = 128


class _Server(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None]:
        """Signals are the daemon's."""
        yield


def listen(endpoint: tuple[str, int] | Path) -> socket.socket:
    """A listening socket; a dead daemon's Unix socket is replaced. Raises OSError."""
    if isinstance(endpoint, Path):
        _remove_dead(endpoint)
        sock = socket.socket(socket.AF_UNIX)
        address: str | tuple[str, int] = str(endpoint)
    else:
        family = socket.AF_INET6 if ":" in endpoint[0] else socket.AF_INET
        sock = socket.socket(family)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        address = endpoint
    try:
        sock.bind(address)
    except OSError as error:
        sock.close()
        raise OSError(f"can't listen at {endpoint}: {error.strerror}") from error
    if isinstance(endpoint, Path):
        endpoint.chmod(0o660)
    sock.listen(BACKLOG)
    return sock


def _remove_dead(path: Path) -> None:
    """Remove a Unix socket that nobody listens at any more."""
    if not path.exists() or not stat.S_ISSOCK(path.stat().st_mode):
        return
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            path.unlink()


async def serve(service: Service, sock: socket.socket, stopping: asyncio.Event) -> None:
    """Answer requests until `stopping` is set."""
    config = uvicorn.Config(
        make_app(service),
        log_config=None,
        access_log=False,
        lifespan="off",
        timeout_graceful_shutdown=2,
    )
    server = _Server(config)
    serving = asyncio.create_task(server.serve(sockets=[sock]))
    await stopping.wait()
    server.should_exit = True
    await serving
