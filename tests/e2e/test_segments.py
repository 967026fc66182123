"""Single segments in established sessions: damaged ones, and what a sender never meant."""

from __future__ import annotations

import pytest
from chained import Conversation, Network, raw_socket

from dysco.agent.packet import ChecksumError, Segment, parse
from dysco.topo.capture import Capture, Tap
from dysco.topo.waiting import wait_until

PORT = 88
"""Through the counter, which doesn't look at TCP's checksum."""
MARK = b"damaged on its way"


def next_segment(frame: bytes) -> Segment:
    """What the client would send next, after this frame of its."""
    last = parse(frame, verify=False)
    following = last.copy()
    following.seq = (last.seq + len(last.payload)) & 0xFFFFFFFF
    following.payload = MARK
    return following


def checksum_errors(network: Network) -> int:
    """Segments that the server's kernel dropped for their checksum."""
    table = network.host("server").run(["cat", "/proc/net/snmp"])
    names, values = (line.split() for line in table.splitlines() if line.startswith("Tcp:"))
    return int(dict(zip(names, values, strict=True))["InCsumErrors"])


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("flip", [0, 1])
def test_a_damaged_segment_stays_damaged(network: Network, version: int, flip: int) -> None:
    """Checksums are updated, never made: what was damaged before is dropped by the server.

    With `flip` 0 nothing is damaged, which shows that the segment would have been taken.
    """
    talk = Conversation(network, PORT, version)
    assert talk.server is not None
    # One way only: an ACK of the client's would carry a later timestamp than this segment.
    client = Tap("client", network.host("client"), "eth0")
    with Capture([client]) as capture:
        talk.client.sendall(bytes(100))
        assert talk.server.recv(100) == bytes(100)
    sent = next(
        f.data
        for f in capture.frames
        if f.outgoing and len(parse(f.data, verify=False).payload) == 100
    )
    frame = bytearray(next_segment(sent).build())
    frame[-1] ^= flip
    before = checksum_errors(network)
    server = Tap("server", network.host("server"), "eth0")
    with Capture([server]) as capture, raw_socket(network.host("client")) as raw:
        raw.send(bytes(frame))
        wait_until(lambda: capture.count(lambda f: MARK[:-1] in f.data) > 0, "it to arrive")
    (arrived,) = [f.data for f in capture.frames if MARK[:-1] in f.data and not f.outgoing]
    if flip:
        with pytest.raises(ChecksumError):
            parse(arrived)
        wait_until(lambda: checksum_errors(network) == before + 1, "the server to drop it")
    else:
        assert parse(arrived).payload == MARK
        assert talk.server.recv(100) == MARK
    talk.reset(by_server=True)  # what the client would send is out of step with the server now
