from __future__ import annotations

from collections.abc import Iterator

import pytest
from chained import OPENED, Network, PolicyArgs, box, running

from dysco.topo import cage
from dysco.topo.spec import DeviceSpec, HostSpec, TopologySpec


@pytest.fixture(autouse=True, scope="session")
def caged() -> None:
    """Every test here makes network namespaces."""
    if not cage.inside():
        pytest.skip(f"needs a cage: {cage.refusal()}")


@pytest.fixture(autouse=True)
def conversations_end() -> Iterator[None]:
    """A test that fails in the middle of a session leaves nothing to the next one."""
    yield
    while OPENED:
        OPENED.pop().close()


POLICIES = [
    PolicyArgs("tcp and dst port 80", ("firewall", "nat", "counter")),
    PolicyArgs("tcp and dst port 81", ("counter",)),
    PolicyArgs("tcp and dst port 82", ("spare",), ("--on-failure", "refuse")),
    PolicyArgs("tcp and dst port 83", ("spare",), ("--on-failure", "direct")),
    PolicyArgs("tcp and dst port 84", ("scrubber", "scrubber"), ("--on-failure", "refuse")),
    PolicyArgs("tcp and dst port 85", ("scrubber", "scrubber"), ("--on-failure", "direct")),
    PolicyArgs("tcp and dst port 86", ("firewall", "counter")),
    PolicyArgs("tcp and dst port 87", ("firewall", "nat", "counter")),
    PolicyArgs("tcp and dst port 88", ("counter",)),
]


@pytest.fixture(scope="session")
def network(caged: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Network]:
    """The demo's network, and one more middlebox, whose link is down."""
    hosts = [
        box("client", 1),
        box("firewall", 2, "firewall"),
        box("nat", 3, "nat"),
        box("counter", 4, "counter"),
        box("server", 5),
        box("spare", 7, "scrubber"),
    ]
    devices = tuple(DeviceSpec(f"nic{host.subnet}", host.subnet) for host in hosts)
    spec = TopologySpec((*hosts, HostSpec("bystander", 6)), devices)
    with running(spec, tmp_path_factory.mktemp("demo"), POLICIES, web=WEB_PORTS) as network:
        spare = network.host("spare")
        spare.ip.link("set", index=spare.link_index("eth0"), state="down")
        yield network


WEB_PORTS = (80, 81, 82, 83, 84, 85, 8080)
