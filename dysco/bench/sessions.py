"""Sessions at a steady rate (tools/stream.c), and what of them came when."""

from __future__ import annotations

import itertools
import json
import statistics
from dataclasses import dataclass

from dysco.bench.chain import Chain
from dysco.bench.tools import Tools
from dysco.topo.process import ProcessError


@dataclass(slots=True)
class Record:
    """What sessions carried that are over."""

    start: float
    """Seconds since 1970."""
    bytes: list[int]
    """Received in each millisecond."""
    resent: list[tuple[float, int]]
    """Segments sent again so far, and since when it was that many."""

    def received(self, begin: float, end: float) -> list[int]:
        """Of each millisecond of a time, as far as the stream was there."""
        first, last = (int((at - self.start) * 1000) for at in (begin, end))
        return self.bytes[max(0, first) : max(0, last)]

    def rate(self, piece: float) -> float:
        """Bytes a millisecond while it was steady: that of most pieces, of `piece` seconds each.

        Raises ProcessError if it never was.
        """
        came, step = self._came(), int(piece * 1000)
        slopes = [
            statistics.linear_regression(range(step), came[at : at + step]).slope
            for at in range(0, len(came) - step, step)
        ]
        if not slopes or not (rate := statistics.median(slopes)):
            raise ProcessError(f"a stream of {sum(self.bytes)} bytes was never steady")
        return rate

    def missing_ms(self, begin: float, end: float, around: float) -> float:
        """What didn't come because of what happened between two moments, in ms of traffic.

        `around`: seconds before and after that are looked at. Raises ProcessError if the stream was
        too short.
        """
        came, rate = self._came(), self.rate(around)
        first, last = (int((at - self.start) * 1000) for at in (begin, end))
        before = range(max(0, first - int(around * 1000)), first)
        after = range(last, min(len(came), last + int(around * 1000)))
        if not before or not after:
            raise ProcessError("the stream began too late or ended too early")
        early, late = (statistics.fmean(at - came[at] / rate for at in t) for t in (before, after))
        return late - early

    def _came(self) -> list[int]:
        return list(itertools.accumulate(self.bytes))

    def resent_between(self, begin: float, end: float) -> int:
        """Segments that the sender sent again."""
        before, after = (
            max((count for when, count in self.resent if when <= at), default=0)
            for at in (begin, end)
        )
        return after - before


class Sessions:
    """Sessions that run until they are stopped."""

    def __init__(
        self, tools: Tools, chain: Chain, port: int, *, name: str, count: int, mbit_s: int
    ) -> None:
        """Open them; `mbit_s` of all together, 0: as much as they can. Raises ProcessError.

        `name` tells apart the processes of one topology.
        """
        argv = tools.argv("stream", "receive", port)
        self._receiver = chain.server.start(f"receive-{name}", argv)
        receiving = self._receiver.log
        self._receiver.wait_ready(lambda: "ready" in receiving.read_text(), "it listened")
        argv = tools.argv("stream", "send", chain.address, port, count, mbit_s)
        self._sender = chain.client.start(f"send-{name}", argv)
        sending = self._sender.log
        self._sender.wait_ready(
            lambda: "port" in sending.read_text(), "its sessions were open", 20.0 + count / 10
        )
        self.port = int(sending.read_text().split('"port": ')[1].split(",")[0])
        """The first one's, at the client."""

    def stop(self) -> Record:
        """End them. Raises ProcessError if one broke."""
        self._sender.terminate()
        for process in (self._sender, self._receiver):
            if process.wait_end(20.0):
                raise ProcessError(f"{process.name} failed\n{process.log_tail()}")
        sent = json.loads(self._sender.log.read_text())
        got = json.loads(self._receiver.log.read_text().removeprefix("ready\n"))
        resent = [(ns / 1e9, count) for ns, count in sent["resent"]]
        return Record(got["start_ns"] / 1e9, got["bytes"], resent)
