"""What aiokafka makes of a connection that the broker closed a moment ago, under the services' event loop."""

import asyncio
from typing import Any

import pytest
import uvloop
from aiokafka.conn import AIOKafkaConnection
from aiokafka.errors import KafkaConnectionError
from aiokafka.protocol.metadata import MetadataRequest

from deploy.local.ports import HOST
from libs.bus.codec import encode

assert encode  # any part of the bus brings the repair with it


async def _write_to_a_closed_connection() -> None:
    server = await asyncio.start_server(lambda reader, writer: None, HOST, 0)
    port = server.sockets[0].getsockname()[1]
    connection: Any = AIOKafkaConnection(HOST, port)
    connection._reader, connection._writer = await asyncio.open_connection(HOST, port)
    connection._read_task = asyncio.create_task(asyncio.sleep(0))
    connection._versions = {MetadataRequest.API_KEY: (0, 0)}
    connection._writer.transport.abort()
    await asyncio.sleep(0)
    with pytest.raises(KafkaConnectionError):
        await connection.send(MetadataRequest([]))
    assert not connection.connected()
    server.close()


def test_a_write_to_a_closed_connection_is_an_error_that_aiokafka_expects() -> None:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_write_to_a_closed_connection())
