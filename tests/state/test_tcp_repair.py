"""Sockets that are taken out of the kernel and put back, while their peer's goes on."""

from __future__ import annotations

import os
import select
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace

import pytest

from dysco.state import tcp_repair
from dysco.state.request import StateError
from dysco.state.tcp_repair import Saved
from dysco.topo.namespace import Namespace
from dysco.topo.waiting import wait_until

LOOPBACK = {4: "127.0.0.1", 6: "::1"}
_SHUT = """
table inet shut {
  chain c {
    type filter hook input priority 0; policy accept;
    meta l4proto tcp drop
  }
}
"""


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Namespace]:
    namespace = Namespace("host", tmp_path_factory.mktemp("repair"))
    namespace.sysctl({"ipv4/tcp_wmem": "4096 262144 1000000"})
    yield namespace
    namespace.close()


@contextmanager
def shut(host: Namespace) -> Iterator[None]:
    """No segment comes to any socket."""
    host.run(["nft", "-f", "-"], stdin=_SHUT)
    try:
        yield
    finally:
        host.run(["nft", "delete", "table", "inet", "shut"])


@contextmanager
def pair(host: Namespace, version: int = 4) -> Iterator[tuple[socket.socket, socket.socket]]:
    """Two ends of one connection."""
    family = socket.AF_INET if version == 4 else socket.AF_INET6
    with host.entered():
        listener = socket.create_server((LOOPBACK[version], 0), family=family)
        client = socket.socket(family)
    with listener, client:
        client.settimeout(5.0)
        client.connect(listener.getsockname()[:2])
        server, _ = listener.accept()
        listener.close()
        server.settimeout(5.0)
        with server:
            yield client, server


def carry(sender: socket.socket, receiver: socket.socket, content: bytes, first: int = 0) -> bytes:
    """Send it all and receive as much, and `first` bytes that are under way already."""
    got = bytearray()
    want = first + len(content)
    for sock in (sender, receiver):
        sock.setblocking(False)
    while len(got) < want:
        readable, writable, _ = select.select([receiver], [sender] if content else [], [], 5.0)
        assert readable or writable, (len(got), len(content))
        if writable:
            content = content[sender.send(content) :]
        if readable:
            got += receiver.recv(1 << 20)
    for sock in (sender, receiver):
        sock.settimeout(5.0)
    return bytes(got)


def receive(sock: socket.socket, size: int) -> bytes:
    got = b""
    while len(got) < size:
        piece = sock.recv(size - len(got))
        assert piece
        got += piece
    return got


def moved(host: Namespace, sock: socket.socket, *, blob: bytes | None = None) -> socket.socket:
    """The same connection in a new socket, not thawed."""
    local, remote = sock.getsockname()[:2], sock.getpeername()[:2]
    if blob is None:
        tcp_repair.freeze(sock)
        blob = tcp_repair.save(sock).dump()
    sock.close()
    with host.entered():
        new = tcp_repair.restore(Saved.load(blob), local, remote)
    new.settimeout(5.0)
    return new


@pytest.mark.parametrize("version", [4, 6])
def test_a_connection_moves_again_and_again(host: Namespace, version: int) -> None:
    with pair(host, version) as (client, server), ExitStack() as sockets:
        now = server
        for size in (10_000, 500_000):
            now = sockets.enter_context(moved(host, now))
            tcp_repair.thaw(now)
            for sender, receiver in ((client, now), (now, client)):
                sent = os.urandom(size)
                assert carry(sender, receiver, sent) == sent


def test_all_three_queues_come_over(host: Namespace) -> None:
    """Bytes that were not read, not acknowledged, not sent: each comes once, in order."""
    with pair(host) as (client, server):
        to_server, to_client = os.urandom(20_000), os.urandom(3_000_000)
        client.sendall(to_server)
        wait_until(lambda: _readable(server) == len(to_server), "the bytes to be there")
        server.setblocking(False)
        with shut(host):
            done = 0
            with suppress(BlockingIOError):
                while done < len(to_client):
                    done += server.send(to_client[done : done + 4096])
            tcp_repair.freeze(server)
            saved = tcp_repair.save(server)
            assert saved.received == to_server
            assert saved.sent
            assert saved.unsent
            assert saved.sent + saved.unsent == to_client[:done]
            new = moved(host, server, blob=saved.dump())
        with new:
            tcp_repair.thaw(new)
            assert receive(new, len(to_server)) == to_server
            rest = saved.unsent + to_client[done:]
            assert carry(new, client, rest, len(to_client) - len(rest)) == to_client


def _readable(sock: socket.socket) -> int:
    return len(sock.recv(1 << 20, socket.MSG_PEEK))


def test_options_windows_and_clock_come_over(host: Namespace) -> None:
    with pair(host) as (client, server):
        client.sendall(b"hello")
        assert receive(server, 5) == b"hello"
        tcp_repair.freeze(server)
        before = tcp_repair.save(server)
        assert before.sack
        assert before.scales is not None
        assert before.timestamp is not None
        new = moved(host, server, blob=before.dump())
        with new:
            after = tcp_repair.save(new)
            assert after.timestamp is not None
            assert 0 <= after.timestamp - before.timestamp < 5_000
            assert replace(after, timestamp=before.timestamp) == before


def test_a_socket_that_stays_goes_on(host: Namespace) -> None:
    """The move is off: it was frozen and saved in vain."""
    with pair(host) as (client, server):
        tcp_repair.freeze(server)
        tcp_repair.save(server)
        tcp_repair.thaw(server)
        for sender, receiver in ((client, server), (server, client)):
            sender.sendall(b"still there")
            assert receive(receiver, 11) == b"still there"


def test_closing_a_frozen_socket_says_nothing(host: Namespace) -> None:
    with pair(host) as (client, server):
        tcp_repair.freeze(server)
        server.close()
        client.settimeout(0.3)
        with pytest.raises(TimeoutError):
            client.recv(1)


def test_what_can_t_be_moved_says_why(host: Namespace) -> None:
    with pair(host) as (client, server):
        client.shutdown(socket.SHUT_WR)
        assert server.recv(1) == b""
        tcp_repair.freeze(server)
        with pytest.raises(StateError, match="its peer has sent its FIN"):
            tcp_repair.save(server)
        tcp_repair.thaw(server)
        tcp_repair.freeze(client)
        with pytest.raises(StateError, match="it has sent its FIN"):
            tcp_repair.save(client)
    with pair(host) as (_, server):
        tcp_repair.freeze(server)
        saved = tcp_repair.save(server)
        with host.entered(), pytest.raises(StateError, match="Cannot assign requested address"):
            tcp_repair.restore(saved, ("10.9.9.9", 80), ("127.0.0.1", 81))


GOOD = Saved(1, 2, 1460, (7, 7), True, 5, (1, 2, 3, 4, 5), b"abc", b"de", b"f")


def test_a_saved_socket_comes_over_as_it_was() -> None:
    assert Saved.load(GOOD.dump()) == GOOD
    bare = replace(GOOD, scales=None, timestamp=None, received=b"")
    assert Saved.load(bare.dump()) == bare


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"dysco-tcp 1", b"dysco-tcp 9"),
        (b"abc", b"ab"),
        (b'"send_seq": 1', b'"send_seq": -1'),
        (b'"send_seq": 1', b'"send_seq": 4294967296'),
        (b'"send_seq": 1', b'"send_seq": "1"'),
        (b'"mss": 1460, ', b""),
        (b"[1, 2, 3, 4, 5]", b"[1, 2, 3, 4]"),
        (b"[3, 2, 1]", b"[3, -2, 5]"),
        (b"{", b"["),
    ],
)
def test_what_is_no_saved_socket_is_refused(old: bytes, new: bytes) -> None:
    blob = GOOD.dump()
    assert old in blob
    with pytest.raises(StateError, match="no saved TCP socket"):
        Saved.load(blob.replace(old, new, 1))


def test_a_saved_socket_that_is_cut_off_is_refused() -> None:
    """Also where only the end of its first line is missing, all queues being empty."""
    for saved in (GOOD, replace(GOOD, received=b"", sent=b"", unsent=b"")):
        with pytest.raises(StateError, match="no saved TCP socket"):
            Saved.load(saved.dump()[:-1])
