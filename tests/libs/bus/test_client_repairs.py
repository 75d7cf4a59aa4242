"""What aiokafka's clients survive with our repairs."""

import asyncio
from typing import Any

import pytest
import uvloop
from aiokafka import AIOKafkaProducer
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


async def test_metadata_is_asked_for_again_after_an_error_that_aiokafka_does_not_expect(
    kafka: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    producer = AIOKafkaProducer(bootstrap_servers=kafka)
    await producer.start()
    client: Any = vars(producer)["client"]

    async def break_down(*_: object) -> None:
        raise RuntimeError

    async with asyncio.timeout(20):
        with monkeypatch.context() as broken:
            broken.setattr(client, "_get_conn", break_down)
            assert not await client.force_metadata_update()
        assert await client.force_metadata_update()
    await producer.stop()
