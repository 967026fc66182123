"""What a relaying box leaves behind when one side of it breaks."""

from __future__ import annotations

import asyncio
import socket
import struct

import pytest

from dysco.topo.header_proxy import relay

SECONDS = 10.0


def pair() -> tuple[socket.socket, socket.socket]:
    """Two ends of one TCP connection."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        far = socket.create_connection(listener.getsockname())
        near, _ = listener.accept()
    near.setblocking(False)
    return near, far


async def test_one_side_is_reset_and_the_next_relay_carries_both_ways() -> None:
    """Its sockets have the numbers of those that were watched when the reset came."""
    (client, client_far), (server, server_far) = pair(), pair()
    relaying = asyncio.create_task(relay(client, server))
    loop = asyncio.get_running_loop()
    await asyncio.sleep(0)
    server_far.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    server_far.close()
    with pytest.raises(ExceptionGroup):
        await asyncio.wait_for(relaying, SECONDS)
    assert asyncio.all_tasks() == {asyncio.current_task()}, "nothing of it runs on"
    numbers = {client.fileno(), server.fileno()}
    client.close()
    server.close()
    client_far.close()

    (client, client_far), (server, server_far) = pair(), pair()
    assert {client.fileno(), server.fileno()} & numbers, "this test needs them again"
    relaying = asyncio.create_task(relay(client, server))
    await asyncio.sleep(0)
    for source, sink in ((client_far, server_far), (server_far, client_far)):
        source.sendall(b"some")
        sink.setblocking(False)
        assert await asyncio.wait_for(loop.sock_recv(sink, 9), SECONDS) == b"some"
    client_far.close()
    server_far.close()
    await asyncio.wait_for(relaying, SECONDS)
    client.close()
    server.close()
