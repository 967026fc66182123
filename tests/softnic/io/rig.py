"""A data plane between two veth pairs of the cage, with raw sockets at the far ends.

f1 ── p1 [ port 1: entities :port 2 ] p2 ── f2
"""

from __future__ import annotations

import errno
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from pyroute2 import IPRoute

from softnic.dataplane import Entry, Match, Op, PortStats, Status, Update
from softnic.native import NativeDataPlane

PROGRAMS = Path(__file__).parent.parent / "programs"
CPU_PORT = 510
WAIT_S = 5.0
ETH_P_ALL = 3
MTU = 9000


def until(condition: Callable[[], bool], what: str) -> None:
    """Wait for a condition, as long as a machine may need."""
    deadline = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < deadline, f"not within {WAIT_S} s: {what}"
        time.sleep(0.005)


def mac(number: int) -> bytes:
    return (0x02_00_00_00_00_00 | number).to_bytes(6, "big")


def frame(dst: int = 1, size: int = 60, ethertype: int = 0x88B5) -> bytes:
    """A frame of the experimental type, each with bytes of its own."""
    head = mac(dst) + mac(2) + ethertype.to_bytes(2, "big")
    return head + bytes(i % 251 for i in range(size - len(head)))


def open_socket(ifname: str) -> socket.socket:
    opened = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
    opened.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8 << 20)
    opened.bind((ifname, ETH_P_ALL))
    opened.settimeout(WAIT_S)
    return opened


@dataclass
class Wire:
    """Two links, the data plane between them, and a socket at each far end."""

    ip: IPRoute
    plane: NativeDataPlane = field(init=False)
    sockets: dict[int, socket.socket] = field(default_factory=dict)

    def link(self, port: int) -> None:
        """Lay the link of a port: pPORT at the device, fPORT far from it."""
        self.ip.link("add", kind="veth", ifname=f"p{port}", mtu=MTU, peer={"ifname": f"f{port}"})
        for name in (f"p{port}", f"f{port}"):
            # The kernel must not talk on the links.
            Path(f"/proc/sys/net/ipv6/conf/{name}/disable_ipv6").write_text("1")
            self.ip.link("set", index=self.index(name), mtu=MTU, state="up")
        self.sockets[port] = open_socket(f"f{port}")

    def cut(self, port: int) -> None:
        """Remove the link of a port."""
        self.sockets.pop(port).close()
        self.ip.link("del", index=self.index(f"p{port}"))

    def state(self, name: str, state: str) -> None:
        self.ip.link("set", index=self.index(name), state=state)

    def index(self, name: str) -> int:
        return int(self.ip.link_lookup(ifname=name)[0])

    def port(self, number: int) -> PortStats:
        return next(p for p in self.plane.ports() if p.port == number)

    def forward(self, dst: int, port: int) -> None:
        """Frames to a MAC address leave at a port."""
        match = Match(mac(dst), b"\xff" * 6)
        entry = Entry(match, "IngressImpl.forward", port.to_bytes(2, "big"))
        assert self.plane.write([Update(Op.INSERT, "IngressImpl.exact_table", entry)]) == [
            Status.OK
        ]

    def send(self, port: int, data: bytes) -> None:
        self.sockets[port].send(data)

    def receive(self, port: int) -> bytes:
        """The next frame that the device sent."""
        while True:
            try:
                data, address = self.sockets[port].recvfrom(1 << 17)
            except OSError as error:
                if error.errno != errno.ENETDOWN:  # told once, when the link had been down
                    raise
                continue
            if address[2] != socket.PACKET_OUTGOING:
                return data
