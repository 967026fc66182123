"""The rig's fixture; its tests need a cage around them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from pyroute2 import IPRoute
from rig import CPU_PORT, PROGRAMS, Wire

from dysco.topo import cage
from softnic.native import NativeDataPlane, compile_program


@pytest.fixture(autouse=True)
def in_cage() -> None:
    """Tests that make links need a cage around them."""
    if not cage.inside():
        pytest.skip(f"no cage: {cage.refusal()}")


@pytest.fixture
def wire() -> Iterator[Wire]:
    with IPRoute() as ip:
        made = Wire(ip)
        for port in (1, 2):
            made.link(port)
        made.plane = NativeDataPlane({1: "p1", 2: "p2"}, cpu_port=CPU_PORT)
        made.plane.load(compile_program((PROGRAMS / "entities.json").read_bytes()))
        made.forward(1, 2)
        yield made
        made.plane.close()
        for port in list(made.sockets):
            made.cut(port)
