"""What a client has not taken yet, with real sockets: most of it waits in the kernel."""

import asyncio
import socket
from typing import Any

from services.api_gateway.http.unread import unread_bytes
from tests.waiting import until


async def test_what_a_client_reads_is_seen_also_where_the_kernel_holds_most_of_what_waits() -> None:
    loop = asyncio.get_running_loop()
    connected: asyncio.Future[asyncio.Transport] = loop.create_future()

    class Writing(asyncio.Protocol):
        def connection_made(self, transport: Any) -> None:
            connected.set_result(transport)

    server = await loop.create_server(Writing, "127.0.0.1", 0)
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 32 * 1024)
        client.connect(server.sockets[0].getsockname())
        transport = await connected
        transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 2 * 1024 * 1024)
        transport.write(bytes(4 * 1024 * 1024))
        own, waiting = transport.get_write_buffer_size(), unread_bytes(transport)
        assert 0 < own < waiting
        client.recv(128 * 1024, socket.MSG_WAITALL)
        await until(lambda: unread_bytes(transport) <= waiting - 64 * 1024)
        assert transport.get_write_buffer_size() == own
        transport.abort()
    assert unread_bytes(transport) >= 0, "also of what is closed"
    server.close()
