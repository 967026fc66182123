"""Who may speak: the key of a trust group, and headers that come a second time.

Freshness needs no clock. A sender numbers its headers; its epoch, which grows from start to start,
makes the numbers of a new start higher than all before. A receiver keeps, for each sender, the
highest number and a window of those seen below it, as IPsec does (RFC 4303, 3.4.3). What is
assumed: a sender's epoch never goes back (milliseconds since 1970 when it started will do). A
receiver that restarts learns the numbers from the sessions that it recovers; headers of sessions
that were over by then could be replayed to it until the sender's next one, and would at worst open
a session that nobody answers.
"""

from __future__ import annotations

from collections import OrderedDict
from hashlib import sha256
from typing import NamedTuple

from cryptography.hazmat.primitives import constant_time
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.hmac import HMAC
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from dysco.agent.model import Address

TAG_SIZE = 16
"""Bytes of the authentication at a header's end: HMAC-SHA256, cut (RFC 2104, 5)."""

MIN_KEY = 16


class Nonce(NamedTuple):
    """The number of a header; higher than all that its sender used before."""

    epoch: int
    number: int


class TrustGroup:
    """Hosts that trust each other: they share a name and a secret."""

    __slots__ = ("_mac", "id", "name")

    def __init__(self, name: str, key: bytes) -> None:
        """Raises ValueError if the key is too short to be one."""
        if len(key) < MIN_KEY:
            raise ValueError(
                f"the key of trust group {name!r} has {len(key)} bytes, needs {MIN_KEY} or more"
            )
        self.name = name
        self.id = sha256(b"dysco trust group " + name.encode()).digest()[:4]
        """Four bytes on the wire that tell groups apart; no secret."""
        derived = HKDF(SHA256(), 32, None, b"dysco set-up header 1 " + name.encode()).derive(key)
        self._mac = HMAC(derived, SHA256())

    def sign(self, header: bytes, isn: int, data: bytes) -> bytes:
        """Authenticates a header, with the sequence number of its SYN and the data behind it."""
        mac = self._mac.copy()
        mac.update(header + isn.to_bytes(4, "big") + data)
        return mac.finalize()[:TAG_SIZE]

    def verify(self, header: bytes, isn: int, data: bytes, tag: bytes) -> bool:
        """True if a member of this group signed it."""
        return constant_time.bytes_eq(self.sign(header, isn, data), tag)


class _Window:
    """Numbers seen of one sender: bit n of `seen` is number `highest` - n."""

    __slots__ = ("epoch", "highest", "seen")

    def __init__(self, nonce: Nonce) -> None:
        self.epoch, self.highest = nonce
        self.seen = 1


class ReplayGuard:
    """Lets each header pass once. Bounded: the sender that was silent longest is forgotten."""

    def __init__(self, window: int, max_senders: int) -> None:
        self._size = window
        self._mask = (1 << window) - 1
        self._max_senders = max_senders
        self._senders: OrderedDict[Address | int, _Window] = OrderedDict()

    def admit(self, sender: Address | int, nonce: Nonce) -> bool:
        """True the first time, False for a replay or what is too old to tell."""
        window = self._senders.get(sender)
        if window is None:
            self._forget_oldest()
            self._senders[sender] = _Window(nonce)
            return True
        self._senders.move_to_end(sender)
        if nonce.epoch != window.epoch:
            if nonce.epoch < window.epoch:
                return False
            self._senders[sender] = _Window(nonce)
            return True
        ahead = nonce.number - window.highest
        if ahead > 0:
            window.seen = (window.seen << ahead & self._mask | 1) if ahead < self._size else 1
            window.highest = nonce.number
            return True
        bit = 1 << -ahead if -ahead < self._size else 0
        if not bit or window.seen & bit:
            return False
        window.seen |= bit
        return True

    def learn(self, sender: Address, nonce: Nonce) -> None:
        """This number, found in a recovered session, and all below it are used up."""
        window = self._senders.get(sender)
        if window is None or Nonce(window.epoch, window.highest) < nonce:
            if window is None:
                self._forget_oldest()
            window = self._senders[sender] = _Window(nonce)
        window.seen = self._mask

    def _forget_oldest(self) -> None:
        while len(self._senders) >= self._max_senders:
            self._senders.popitem(last=False)
