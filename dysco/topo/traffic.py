"""Real clients and servers: NGINX, curl, wrk, iperf3."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dysco.topo.devices import can_connect
from dysco.topo.namespace import Namespace
from dysco.topo.process import Process, ProcessError

# As root, its own default is to give its folders to a user that a plain user's cage doesn't have.
_NGINX = """
user root root;
daemon off;
master_process off;
pid {directory}/nginx.pid;
error_log {directory}/error.log warn;
events {{ worker_connections 8192; }}
http {{
  access_log off;
  client_body_temp_path {directory}/body;
  proxy_temp_path {directory}/proxy;
  fastcgi_temp_path {directory}/fastcgi;
  uwsgi_temp_path {directory}/uwsgi;
  scgi_temp_path {directory}/scgi;
  keepalive_requests 1000000;
  sendfile on;
  default_type application/octet-stream;
  server {{
{listens}
    root {directory}/www;
    location = /who {{ return 200 "$remote_addr\\n"; }}
  }}
}}
"""

_FAST_OPEN_SERVER = {"ipv4/tcp_fastopen": 3}


@dataclass(frozen=True, slots=True)
class Download:
    """What curl got."""

    status: int
    size: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Load:
    """What wrk measured."""

    requests: int
    requests_per_second: float
    errors: int
    """Of sockets (connect, read, write, time-out), and responses other than 2xx and 3xx."""


class WebServer:
    """An NGINX of our own, with its files, in a host's namespace."""

    def __init__(
        self, namespace: Namespace, directory: Path, ports: tuple[int, ...] = (80,)
    ) -> None:
        """Start it and wait until it listens, on IPv4 and IPv6. Raises ProcessError."""
        self._www = directory / "www"
        self._www.mkdir(parents=True, exist_ok=True)
        listens = "".join(
            f"    listen {port} fastopen=256 backlog=4096;\n"
            f"    listen [::]:{port} fastopen=256 backlog=4096;\n"
            for port in ports
        )
        config = directory / "nginx.conf"
        text = _NGINX.format(directory=directory.resolve(), listens=listens)
        config.write_text(text)
        namespace.sysctl(_FAST_OPEN_SERVER)
        argv = ["nginx", "-p", str(directory.resolve()), "-c", str(config.resolve())]
        self.process: Process = namespace.start("nginx", argv)
        self.process.wait_ready(
            lambda: can_connect(namespace, f"127.0.0.1:{ports[-1]}"), "it listened"
        )

    def publish(self, name: str, content: bytes) -> str:
        """Serve a file; its SHA-256."""
        (self._www / name).write_bytes(content)
        return hashlib.sha256(content).hexdigest()


def download(
    namespace: Namespace, url: str, file: Path, *, options: tuple[str, ...] = (), seconds: int = 20
) -> Download:
    """Fetch a URL with curl into `file`. Raises ProcessError."""
    argv = ["curl", "--silent", "--show-error", "--globoff", "--max-time", str(seconds)]
    argv += ["--output", str(file), "--write-out", "%{http_code}", *options, url]
    status = namespace.run(argv, seconds=seconds + 5)
    content = file.read_bytes() if file.exists() else b""
    return Download(int(status), len(content), hashlib.sha256(content).hexdigest())


def load(
    namespace: Namespace, url: str, *, seconds: int, connections: int = 20, threads: int = 1
) -> Load:
    """Have wrk ask for a URL as fast as it can. Raises ProcessError."""
    argv = ["wrk", "-t", str(threads), "-c", str(connections), "-d", f"{seconds}s", url]
    text = namespace.run(argv, seconds=seconds + 20)
    requests = re.search(r"(\d+) requests in", text)
    rate = re.search(r"Requests/sec:\s+([\d.]+)", text)
    if requests is None or rate is None:
        raise ProcessError(f"{namespace.name}: wrk said:\n{text}")
    bad = re.findall(r"(?:connect|read|write|timeout|Non-2xx or 3xx responses:) (\d+)", text)
    return Load(int(requests[1]), float(rate[1]), sum(map(int, bad)))


def start_iperf_server(namespace: Namespace, port: int = 5201) -> Process:
    """Start `iperf3 -s` and wait until it listens. Raises ProcessError."""
    process = namespace.start(f"iperf3-{port}", ["iperf3", "-s", "-p", str(port)])
    process.wait_ready(lambda: can_connect(namespace, f"127.0.0.1:{port}"), "it listened")
    return process


def iperf(
    namespace: Namespace,
    address: str,
    *,
    seconds: int,
    port: int = 5201,
    options: tuple[str, ...] = (),
) -> dict[str, Any]:
    """Run an iperf3 client; its JSON report. Raises ProcessError."""
    argv = ["iperf3", "--json", "-c", address, "-p", str(port), "-t", str(seconds), *options]
    report: dict[str, Any] = json.loads(namespace.run(argv, seconds=seconds + 20, check=False))
    if "error" in report:
        raise ProcessError(f"{namespace.name}: iperf3 to {address}: {report['error']}")
    return report
