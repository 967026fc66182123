"""HAProxy as a transparent proxy: clients connect to the server's address, and the server sees
the client's address and port.

client ── SYN C > S ──> [tproxy: a local socket takes it] HAProxy ── SYN C > S ──> server
"""

from __future__ import annotations

from pathlib import Path

from dysco.topo.namespace import Namespace
from dysco.topo.process import Process

_PORT = 9000
_MARK = 1

_RULES = f"""
table inet dysco_proxy {{
  chain prerouting {{
    type filter hook prerouting priority mangle; policy accept;
    meta l4proto tcp socket transparent 1 meta mark set {_MARK} accept
    tcp dport @PORTS tproxy to :{_PORT} meta mark set {_MARK} accept
  }}
}}
"""

_CONFIG = """
global
  maxconn 4096
  stats socket {directory}/haproxy.sock mode 600
defaults
  mode tcp
  timeout connect 5s
  timeout client 1h
  timeout server 1h
frontend taken
  bind 0.0.0.0:{port} transparent
  default_backend onwards
backend onwards
  source 0.0.0.0 usesrc client
  server any 0.0.0.0
"""


class TransparentProxy:
    """A running HAProxy in a middlebox's namespace."""

    def __init__(self, namespace: Namespace, directory: Path, ports: tuple[int, ...]) -> None:
        """Start it for connections to these ports. Raises ProcessError."""
        directory.mkdir(parents=True, exist_ok=True)
        rules = _RULES.replace("@PORTS", "{ " + ", ".join(map(str, ports)) + " }")
        namespace.run(["nft", "-f", "-"], stdin=rules)
        namespace.run(["ip", "rule", "add", "fwmark", str(_MARK), "lookup", "100"])
        namespace.run(["ip", "link", "set", "lo", "up"])
        namespace.run(["ip", "route", "add", "local", "default", "dev", "lo", "table", "100"])
        config = directory / "haproxy.cfg"
        config.write_text(_CONFIG.format(port=_PORT, directory=directory), encoding="utf-8")
        argv = ["haproxy", "-db", "-f", str(config)]
        self.process: Process = namespace.start("haproxy", argv)
        self.process.wait_ready(
            (directory / "haproxy.sock").exists, "HAProxy's socket", seconds=10.0
        )
