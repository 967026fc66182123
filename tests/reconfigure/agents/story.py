"""What happens in a world: its chain, the changes of it, the weather, what fails."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum

from dysco.agent.settings import Settings
from tests.reconfigure.simulation.network import Mishap, Weather
from tests.reconfigure.simulation.tcp import Options

CALM = Weather()
CLIENT_PORT, SERVER_PORT = 33000, 80
NAT_PORT = 40000
HEADER = b"PROXY TCP4\r\n"
"""What a box of kind header puts in front of what goes to the right."""


class Nat(Enum):
    """A NAT of the network around the client."""

    NONE = "none"
    MASQUERADE = "it answers for the client, where that asked first"
    TCP_ONLY = "it lets no UDP through, besides"


@dataclass(frozen=True)
class Change:
    """One reconfiguration: when, between which hosts, through which boxes."""

    at: float
    left: str
    right: str
    through: tuple[str, ...] = ()
    cancel_after: float | None = None
    with_state: bool = False
    moves_to: str | None = None
    """The session's end, which is `right`, goes to this host."""


@dataclass(frozen=True)
class Calls:
    """How the hosts' own state is handled."""

    delay: float = 0.002
    """Seconds until a call is answered."""
    fails: frozenset[str] = frozenset()
    """Host and verb, as "a export": always refused."""
    silent: frozenset[str] = frozenset()
    """Likewise: never answered."""
    size: int = 0
    """Bytes that a copy has more than it needs."""


@dataclass(frozen=True)
class Story:
    """What happens in a world."""

    boxes: dict[str, str]
    """Kinds of all boxes by name: pass, firewall, shift, nat, header, proxy, dead."""
    chain: tuple[str, ...]
    changes: tuple[Change, ...]
    sizes: tuple[int, int] = (4000, 4000)
    data: Weather = CALM
    control: Weather = CALM
    punt_loss: float = 0.0
    options: tuple[Options, Options] = (Options(), Options())
    pause: float = 0.004
    linger: float = 0.1
    crashes: tuple[tuple[str, int, float], ...] = ()
    """Host, after how many actions from the first change on, for how long."""
    together: bool = False
    """All agents die with the first one that does, as those of one daemon."""
    reset_at: float | None = None
    declared: bool = True
    """Whether the agents are told that boxes of kind proxy end connections."""
    proxy: Options = field(default_factory=Options)
    """Of boxes of kind proxy."""
    fixed_at: float | None = None
    """When boxes of kind header say that they add nothing more."""
    nat: Nat = Nat.NONE
    calls: Calls = Calls()
    ends: tuple[str, ...] = ()
    """Hosts that the server may go to."""
    limit: float = 60.0
    settings: Settings = field(default_factory=Settings)
    """Of all agents."""
    mishaps: tuple[Mishap, ...] | None = None
    """All that goes wrong on the network and with packet-ins; None: as chance has it."""
