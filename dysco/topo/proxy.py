"""HAProxy as a transparent proxy: clients connect to the server's address, and the server sees
the client's address and port.

    client ── C > S ──> [tproxy: a local socket takes it] HAProxy ── C > S ──> server
                                    └── two TCP connections ──┘
"""

from __future__ import annotations

import socket
from pathlib import Path

from dysco.topo.namespace import Namespace
from dysco.topo.process import Process

PORT = 9000
"""Where a transparent proxy listens, on its own machine."""
_MARK = 1
_TABLE = 100
_MAX_CONNECTIONS = 4096

_RULES = f"""
table inet dysco_proxy {{
  chain prerouting {{
    type filter hook prerouting priority mangle; policy accept;
    meta l4proto tcp socket transparent 1 meta mark set {_MARK} accept
    tcp dport @PORTS tproxy to :{PORT} meta mark set {_MARK} accept
  }}
}}
"""

_CONFIG = """
global
  maxconn {connections}
defaults
  mode tcp
  maxconn {connections}
  timeout connect 5s
  timeout client 1h
  timeout server 1h
"""

_FAMILY = """
frontend taken{version}
  bind {any}:{port} {options} transparent
  default_backend onwards{version}
backend onwards{version}
  source {any} usesrc client
  server any {any}
"""
# A server without address and port: where the client was going.

_LISTEN = 10
_STATES = {
    # linux/tcp_states.h
    1: "established",
    4: "fin-wait-1",
    5: "fin-wait-2",
    6: "time-wait",
    8: "close-wait",
    9: "last-ack",
    11: "closing",
}

_VERSIONS = ((4, "0.0.0.0", ""), (6, "[::]", "v6only"))


def intercept(namespace: Namespace, ports: tuple[int, ...]) -> None:
    """What comes for these ports, to whatever address, is for the local socket at `PORT`."""
    rules = _RULES.replace("@PORTS", "{ " + ", ".join(map(str, ports)) + " }")
    namespace.run(["nft", "-f", "-"], stdin=rules)
    for family, everything in ((socket.AF_INET, "0.0.0.0/0"), (socket.AF_INET6, "::/0")):
        namespace.ip.rule("add", family=family, fwmark=_MARK, table=_TABLE)
        loopback = namespace.link_index("lo")
        namespace.ip.route(
            "add",
            family=family,
            type="local",
            scope="host",
            dst=everything,
            oif=loopback,
            table=_TABLE,
        )


class TransparentProxy:
    """A running HAProxy in a middlebox's namespace."""

    def __init__(self, namespace: Namespace, directory: Path, ports: tuple[int, ...]) -> None:
        """Start it for connections to these ports, IPv4 and IPv6. Raises ProcessError."""
        directory.mkdir(parents=True, exist_ok=True)
        self._namespace = namespace
        intercept(namespace, ports)
        config = directory / "haproxy.cfg"
        text = _CONFIG.format(connections=_MAX_CONNECTIONS)
        for version, everywhere, options in _VERSIONS:
            text += _FAMILY.format(version=version, any=everywhere, port=PORT, options=options)
        config.write_text(text)
        argv = ["haproxy", "-db", "-f", str(config.resolve())]
        self.process: Process = namespace.start("haproxy", argv)
        self.process.wait_ready(self._listens, "it listened")

    def sockets(self, client_port: int) -> list[str]:
        """The states of both sockets of a client's session; of dying ones too."""
        port = f":{client_port:04X}"
        return [
            _STATES.get(state, str(state))
            for local, remote, state in self._all_sockets()
            if local.endswith(port) or remote.endswith(port)
        ]

    def _listens(self) -> bool:
        """True if it does so for both IP versions."""
        port = f":{PORT:04X}"
        listening = [s for s in self._all_sockets() if s[0].endswith(port) and s[2] == _LISTEN]
        return len(listening) >= len(_VERSIONS)

    def _all_sockets(self) -> list[tuple[str, str, int]]:
        """Local end, remote end and state of every TCP socket here."""
        with self._namespace.entered():
            lines = [
                line.split()
                for table in ("tcp", "tcp6")
                for line in Path("/proc/thread-self/net", table).read_text().splitlines()[1:]
            ]
        return [(local, remote, int(state, 16)) for _, local, remote, state, *_ in lines]
