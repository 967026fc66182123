"""A connection that carries bytes in both directions all the time, and what to ask of it."""

from __future__ import annotations

import hashlib
import os
import threading
import time
from typing import Any

from chained import Conversation, Network

from dysco.topo.waiting import DeadlineError, wait_until

CLIENT, SERVER = 0, 1

_PIECE = 20_000
_PAUSE = 0.002
"""Between pieces: about 10 MB/s, which leaves a test's machine time for the rest."""
_SECONDS = 60.0
"""A side that isn't read holds the other up until it is."""
_STILL = 25
"""So many looks in a row, 20 ms apart, at a sender that gets nothing off: all buffers are full."""


class Stream:
    """Bytes in both directions of a connection, until it is told to stop; then compared."""

    def __init__(self, network: Network, port: int, version: int = 4) -> None:
        self.network = network
        self.talk = Conversation(network, port, version)
        assert self.talk.server is not None
        self.port = self.talk.local_port
        self.ends = (self.talk.client, self.talk.server)
        for end in self.ends:
            end.settimeout(_SECONDS)
        self.sent = [hashlib.sha256(), hashlib.sha256()]
        self.got = [hashlib.sha256(), hashlib.sha256()]
        self.offered = [0, 0]
        self.amount = [0, 0]
        self.problems: list[Exception] = []
        self.asked = 0.0
        """When its last reconfiguration was asked for."""
        self._stop = threading.Event()
        self._read = (threading.Event(), threading.Event())
        self._threads = [
            threading.Thread(target=work, args=(me,), daemon=True)
            for me in (CLIENT, SERVER)
            for work in (self._send, self._receive)
        ]
        for me in (CLIENT, SERVER):
            self._read[me].set()
        for thread in self._threads:
            thread.start()
        self.wait_more()
        with network.controller.api() as client:
            match = f"tcp and src port {self.port}"
            (session,) = client.get("v1", "sessions", match=match)["sessions"]
        self.id = str(session["id"])

    def _send(self, me: int) -> None:
        try:
            while not self._stop.is_set():
                piece = memoryview(os.urandom(_PIECE))
                while piece:
                    done = self.ends[me].send(piece)
                    self.sent[me].update(piece[:done])
                    self.offered[me] += done
                    piece = piece[done:]
                time.sleep(_PAUSE)
            self.ends[me].shutdown(1)
        except OSError as error:
            self.problems.append(error)

    def _receive(self, me: int) -> None:
        try:
            while self._read[me].wait(_SECONDS) and (piece := self.ends[me].recv(1 << 16)):
                self.got[me].update(piece)
                self.amount[me] += len(piece)
        except OSError as error:
            self.problems.append(error)

    def hold(self, me: int) -> None:
        """One end reads no more; returns when the other can send nothing more."""
        self._read[me].clear()
        looks = [0, -1]

        def full() -> bool:
            offered = self.offered[1 - me]
            looks[:] = [looks[0] + 1 if offered == looks[1] else 0, offered]
            return looks[0] >= _STILL or bool(self.problems)

        wait_until(full, "all buffers to be full", 30.0)
        assert not self.problems, self.network.log()

    def let_go(self, me: int) -> None:
        """That end reads again."""
        self._read[me].set()

    def wait_more(self, size: int = 200_000, ends: tuple[int, ...] = (CLIENT, SERVER)) -> None:
        """Until so many bytes more came to these ends."""
        goal = [self.amount[me] + size for me in ends]

        def there() -> bool:
            have = [self.amount[me] for me in ends]
            return bool(self.problems) or all(h >= g for h, g in zip(have, goal, strict=True))

        wait_until(there, "more bytes", 15.0)
        assert not self.problems, (self.problems, self.network.log())

    def ask(self, **wish: Any) -> None:
        """Begin to change its chain."""
        with self.network.controller.api() as client:
            (answer,) = client.post("v1", "reconfigurations", body={"sessions": [self.id], **wish})
        assert answer["accepted"], answer
        self.asked = float(answer["at"])

    def change(self, *words: str) -> dict[str, Any]:
        """Change its chain with `dysco-ctl reconfigure`, to the end; the summary."""
        answer = self.network.controller.ctl("reconfigure", self.id, *words, check=False)
        assert answer["reconfigurations"], (answer, self.network.log())
        (done,) = answer["reconfigurations"]
        assert done["state"] == "finished", (done, self.network.log())
        self.wait_more()
        return dict(done)

    def state(self) -> str:
        """Of the reconfiguration that was asked for last; "" before it began."""
        with self.network.controller.api() as client:
            known = client.get("v1", "reconfigurations", session=self.id)
        if not known or known[-1]["started"] < self.asked:
            return ""
        return str(known[-1]["state"])

    def wait_state(self, state: str, seconds: float = 15.0) -> None:
        """Until its last reconfiguration is there."""
        try:
            wait_until(lambda: self.state() == state, f"it to be {state}", seconds, every=0.05)
        except DeadlineError as error:
            raise AssertionError((error, self.state(), self.network.log())) from error

    def chain(self) -> list[str]:
        """Names of the hosts that it crosses."""
        with self.network.controller.api() as client:
            return list(client.get("v1", "sessions", self.id)["hosts"])

    def stop(self) -> None:
        """Both ends send no more; what is under way may still come."""
        self._stop.set()

    def finish(self, *, wait: bool = True) -> None:
        """End it; every byte must have come, and nothing may be left, which `wait` waits for."""
        self.stop()
        for thread in self._threads:
            thread.join(20.0)
            assert not thread.is_alive(), ("it hangs", self.amount, self.offered)
        assert not self.problems, (self.problems, self.network.log())
        for me in (CLIENT, SERVER):
            assert self.amount[me] == self.offered[1 - me]
            assert self.sent[1 - me].digest() == self.got[me].digest()
        self.talk.close()
        if wait:
            self.network.wait_empty()
