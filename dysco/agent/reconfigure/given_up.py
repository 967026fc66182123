"""New paths that were given up: a RST may be lost, and a SYN may come late.

    left anchor --> give_up: CancelLock to each host of the new path, until AckCancel or MAX_TRIES
    other hosts --> note: the new path's SYN, if it still comes, finds nobody

Of what was noted, the oldest is forgotten first.
"""

from __future__ import annotations

from dysco.agent.core import Core
from dysco.agent.events import Action, SetTimer
from dysco.agent.reconfigure.control import Letter, host_number
from dysco.agent.reconfigure.here import Here
from dysco.agent.reconfigure.left import Patience
from dysco.agent.reconfigure.mail import Mail
from dysco.agent.reconfigure.messages import AckCancel, CancelLock, ReconfigurationId
from dysco.agent.reconfigure.timers import Timer

MAX_GIVEN_UP = 4096
MAX_TRIES = 20
"""How often the hosts of a new path are told that it was given up."""


class GivenUp:
    """Tells the hosts of a new path that it is not needed, and remembers what we were told."""

    def __init__(self, core: Core, mail: Mail, patience: Patience) -> None:
        self._core = core
        self._mail = mail
        self._patience = patience
        self._noted: dict[tuple[int, ReconfigurationId], None] = {}
        """New paths that were given up before they got here, by session; the oldest first."""

    def give_up(self, here: Here, about: ReconfigurationId) -> list[Action]:
        """The hosts of a new path are told."""
        peers = [self._core.peers.at(address) for address in here.through]
        here.abandoned = {host_number(peer.name): about for peer in peers if peer is not None}
        here.told = dict(here.abandoned)
        here.tries = 0
        return self.tell(here)

    def tell(self, here: Here) -> list[Action]:
        """Those who have not said that they know are told, once more."""
        if not here.abandoned or here.tries >= MAX_TRIES:
            here.abandoned.clear()
            return []
        here.tries += 1
        actions: list[Action] = []
        for number, about in here.abandoned.items():
            actions += self._mail.post(here, number, CancelLock(about, number))
        pause = min(self._patience.first * 2**here.tries, self._patience.longest)
        return [*actions, SetTimer(Timer.ABANDON.of(here.session.id), pause)]

    @staticmethod
    def is_answer(here: Here, letter: Letter) -> bool:
        """True if a host of the new path says that it knows; it is told no more.

        Also if it says so once more, or too late: the lock's end is another matter.
        """
        message = letter.message
        if not isinstance(message, AckCancel) or here.told.get(letter.sender) != message.id:
            return False
        here.abandoned.pop(letter.sender, None)
        return True

    def note(self, session: int, about: ReconfigurationId) -> None:
        """Its SYN may still be on the way."""
        self._noted[session, about] = None
        if len(self._noted) > MAX_GIVEN_UP:
            del self._noted[next(iter(self._noted))]

    def knows(self, session: int, about: ReconfigurationId) -> bool:
        """True if this host was told."""
        return (session, about) in self._noted
