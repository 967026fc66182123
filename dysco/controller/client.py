"""A client of the daemon's API for `dysco-ctl`: one request, one connection, TCP or Unix socket.

Made of the standard library's HTTP client, whose import takes a fifth of httpx's: a command line
tool is started for every request.
"""

from __future__ import annotations

import http.client
import json
import socket
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

DEFAULT_SERVER = "http://127.0.0.1:8700"
TIMEOUT = 15.0


_SERVERS = "write http://ADDRESS:PORT or unix:/path"


class UnreachableError(Exception):
    """The daemon can't be reached, or does not answer as it should."""


class ApiError(Exception):
    """The daemon answered with an error."""

    def __init__(self, status: int, detail: str) -> None:
        super().__init__(detail)
        self.status, self.detail = status, detail


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: str, timeout: float) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


class Client:
    """Talks to one daemon."""

    def __init__(self, server: str, timeout: float = TIMEOUT) -> None:
        """`server`: http://ADDRESS:PORT, ADDRESS:PORT or unix:/path. Raises ValueError."""
        self.server = server
        self._timeout = timeout
        self._unix = server.removeprefix("unix:") if server.startswith("unix:") else None
        if self._unix is None:
            self._host, self._port = _address(server)
        elif not self._unix:
            raise ValueError(f"{server!r}: {_SERVERS}")

    def get(self, *path: str, **query: str | int | None) -> Any:
        """The answer to a GET. Raises UnreachableError and ApiError."""
        return self._request("GET", path, query)

    def post(self, *path: str, body: dict[str, Any]) -> Any:
        """The answer to a POST. Raises UnreachableError and ApiError."""
        return self._request("POST", path, {}, body)

    def delete(self, *path: str) -> Any:
        """The answer to a DELETE. Raises UnreachableError and ApiError."""
        return self._request("DELETE", path, {})

    def _request(
        self,
        method: str,
        path: tuple[str, ...],
        query: dict[str, str | int | None],
        body: dict[str, Any] | None = None,
    ) -> Any:
        target = "/" + "/".join(quote(part, safe="") for part in path)
        if given := {key: value for key, value in query.items() if value is not None}:
            target += "?" + urlencode(given)
        connection = (
            http.client.HTTPConnection(self._host, self._port, timeout=self._timeout)
            if self._unix is None
            else _UnixConnection(self._unix, self._timeout)
        )
        try:
            headers = {"Content-Type": "application/json"} if body is not None else {}
            connection.request(method, target, None if body is None else json.dumps(body), headers)
            response = connection.getresponse()
            answer = json.loads(response.read() or b"null")
        except TimeoutError as error:
            raise UnreachableError(
                f"dyscod at {self.server} did not answer within {self._timeout:g} s"
            ) from error
        except OSError as error:
            raise UnreachableError(
                f"dyscod can't be reached at {self.server}: {error.strerror or error}"
            ) from error
        except (http.client.HTTPException, ValueError) as error:
            raise UnreachableError(
                f"what answers at {self.server} is no dyscod: {str(error)[:80]!a}"
            ) from error
        finally:
            connection.close()
        if response.status >= 400:
            detail = answer.get("detail") if isinstance(answer, dict) else None
            raise ApiError(response.status, str(detail or answer))
        return answer


def _address(server: str) -> tuple[str, int]:
    """Host and port of a URL. Raises ValueError."""
    parts = urlsplit(server if "//" in server else f"http://{server}")
    try:
        port = parts.port or http.client.HTTP_PORT
    except ValueError as error:
        raise ValueError(f"{server!r}: a port is a number from 1 to 65535") from error
    if parts.scheme != "http" or not parts.hostname:
        raise ValueError(f"{server!r}: {_SERVERS}")
    return parts.hostname, port
