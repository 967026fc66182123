"""What orders are carried out with, made once for an agent; in the order of who stands on whom."""

from __future__ import annotations

from dysco.agent.core import Core
from dysco.agent.reconfigure.given_up import GivenUp
from dysco.agent.reconfigure.holds import Holds
from dysco.agent.reconfigure.left import Patience
from dysco.agent.reconfigure.legs import Legs
from dysco.agent.reconfigure.mail import Mail
from dysco.agent.reconfigure.moves import Moves
from dysco.agent.reconfigure.new_path import NewPath
from dysco.agent.reconfigure.pace import Pace
from dysco.agent.reconfigure.places import Places
from dysco.agent.reconfigure.registry import Registry
from dysco.agent.reconfigure.state_calls import StateCalls
from dysco.agent.reconfigure.to_host import ToHost
from dysco.agent.reconfigure.turns import Turns


class Means:
    """The parts below the orders; each says what it is for."""

    def __init__(self, core: Core, patience: Patience) -> None:
        self.patience = patience
        self.pace = Pace()
        self.registry = Registry(core, patience)
        self.places = Places(core)
        self.legs = Legs(core, self.places)
        self.mail = Mail(core)
        self.to_host = ToHost(core, self.legs)
        self.new_path = NewPath(core, self.places)
        self.given_up = GivenUp(core, self.mail, patience)
        self.turns = Turns(core, self.registry, self.legs, patience, self.pace)
        self.holds = Holds(core, self.legs, patience)
        self.calls = StateCalls(core, patience)
        self.moves = Moves(
            core,
            patience,
            registry=self.registry,
            places=self.places,
            mail=self.mail,
            new_path=self.new_path,
            given_up=self.given_up,
            calls=self.calls,
        )
