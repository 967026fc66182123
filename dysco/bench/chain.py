"""A chain twice over on the same devices and boxes: by Dysco, and by plain static routing.

    client ── box ── ... ── server      every host behind a softnic of its own, one router
      port 80: a policy chains it       what is measured
      port 81: the router does          its baseline: bridged by the same devices

Both are up together, so that they can be measured in turns.
"""

from __future__ import annotations

import re
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from dysco.topo.boxes import set_up_boxes
from dysco.topo.controller import Controller, group_key
from dysco.topo.devices import Device, Target, start_devices
from dysco.topo.namespace import Namespace
from dysco.topo.spec import chain_spec
from dysco.topo.static import route_through
from dysco.topo.topology import Topology

DYSCO_PORT, STATIC_PORT = 80, 81
"""Servers' ports: their sessions take the same boxes, each in its own way."""

_POLICY = f"tcp and dst port {DYSCO_PORT}"


@dataclass(frozen=True, slots=True)
class Chain:
    """A running chain."""

    topology: Topology
    devices: dict[str, Device]
    controller: Controller

    @property
    def client(self) -> Namespace:
        """Where sessions start."""
        return self.topology.hosts["client"]

    @property
    def server(self) -> Namespace:
        """Where they end."""
        return self.topology.hosts["server"]

    @property
    def address(self) -> str:
        """The server's."""
        return str(self.topology.spec.host("server").ipv4)

    def metrics(self) -> dict[str, float]:
        """The daemon's metrics by name, summed over their labels. Raises OSError."""
        with (
            self.topology.devices.entered(),
            urllib.request.urlopen(f"{self.controller.url}/metrics", timeout=10) as answer,
        ):
            text = answer.read().decode()
        total: dict[str, float] = {}
        for name, value in re.findall(r"^(\w+)(?:\{[^}]*\})? (\S+)$", text, re.MULTILINE):
            total[name] = total.get(name, 0.0) + float(value)
        return total


@contextmanager
def chain(boxes: Sequence[tuple[str, str]], target: Target, directory: Path) -> Iterator[Chain]:
    """Build one of these boxes (name, kind); gone with the `with`. Raises ProcessError."""
    spec = chain_spec(boxes)
    with Topology(spec, directory, offloads=target.offloads) as topology:
        devices = start_devices(topology, target)
        set_up_boxes(topology, (DYSCO_PORT, STATIC_PORT))
        names = [name for name, _ in boxes]
        route_through(topology, ["client", *names, "server"], STATIC_PORT)
        controller = Controller(topology, devices, group_key())
        controller.start()
        controller.add_policy(_POLICY, names)
        yield Chain(topology, devices, controller)
