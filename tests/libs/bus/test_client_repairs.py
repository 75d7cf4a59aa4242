"""What aiokafka's clients survive with our repairs."""

import asyncio
import gc
from typing import Any

import pytest
import uvloop
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.client import AIOKafkaClient, ConnectionGroup
from aiokafka.conn import AIOKafkaConnection
from aiokafka.errors import KafkaConnectionError
from aiokafka.protocol.group import JoinGroupRequest
from aiokafka.protocol.metadata import MetadataRequest
from aiokafka.structs import BrokerMetadata, TopicPartition

from deploy.local.ports import HOST, free_port
from libs.bus import client_repairs
from libs.bus.codec import encode
from tests.waiting import until

assert encode  # any part of the bus brings the repair with it


async def _connected(server: asyncio.Server, **options: Any) -> Any:
    """A connection that was opened while the broker still answered."""
    address = server.sockets[0].getsockname()
    connection: Any = AIOKafkaConnection(*address, **options)
    connection._reader, connection._writer = await asyncio.open_connection(*address)
    connection._read_task = asyncio.create_task(asyncio.sleep(0))
    connection._versions = {request.API_KEY: (0, 0) for request in (MetadataRequest, JoinGroupRequest)}
    return connection


async def _write_to_a_closed_connection() -> None:
    server = await asyncio.start_server(lambda reader, writer: None, HOST, 0)
    connection = await _connected(server)
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


async def test_the_brokers_that_were_named_at_first_are_asked_again_where_none_that_is_known_answers(
    kafka: str,
) -> None:
    producer = AIOKafkaProducer(bootstrap_servers=f"{HOST}:{free_port()},{kafka}")
    await producer.start()
    client: Any = vars(producer)["client"]
    known = client.cluster.brokers()
    client.cluster._brokers = {99: BrokerMetadata(99, HOST, free_port(), None)}  # as if that had been alone for a while
    async with asyncio.timeout(20):
        assert await client.force_metadata_update()
    assert client.cluster.brokers() == known
    await producer.stop()


async def test_a_client_keeps_one_connection_while_the_cluster_names_no_broker(
    kafka: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    send: Any = AIOKafkaConnection.send
    asked: list[AIOKafkaConnection] = []

    async def without_brokers(connection: AIOKafkaConnection, request: object) -> object:
        answer = await send(connection, request)
        if isinstance(request, MetadataRequest):
            asked.append(connection)
            answer.brokers = []
        return answer

    client: Any = AIOKafkaClient(bootstrap_servers=kafka)
    async with asyncio.timeout(20):
        with monkeypatch.context() as starting:
            starting.setattr(AIOKafkaConnection, "send", without_brokers)
            await client.bootstrap()
            assert not await client.force_metadata_update()
            first, *_, last = asked
            assert (first.connected(), last.connected()) == (False, True)
        assert await client.force_metadata_update()
    await client.close()


async def test_who_gives_up_waiting_for_brokers_leaves_no_connection_open(
    kafka: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    send: Any = AIOKafkaConnection.send
    asked: list[AIOKafkaConnection] = []

    def without_answer(connection: Any, request: object) -> Any:
        answer = send(connection, request)
        if isinstance(request, MetadataRequest):
            asked.append(connection)
            connection._read_task.cancel()
        return answer

    monkeypatch.setattr(AIOKafkaConnection, "send", without_answer)
    client: Any = AIOKafkaClient(bootstrap_servers=kafka)
    starting = asyncio.create_task(client.bootstrap())
    await until(lambda: bool(asked))
    assert asked[0].connected()
    starting.cancel()
    await asyncio.wait([starting])
    assert not asked[0].connected()
    await client.close()


async def test_who_takes_a_connection_and_says_nothing_is_not_waited_for_as_for_an_answer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(client_repairs, "CONNECT_SECONDS", 0.1)
    taken: list[asyncio.StreamWriter] = []
    server = await asyncio.start_server(lambda _, writer: taken.append(writer), HOST, 0)
    connection = AIOKafkaConnection(*server.sockets[0].getsockname(), request_timeout_ms=40_000)
    async with asyncio.timeout(20):
        with pytest.raises(TimeoutError):
            await connection.connect()
    assert taken and not connection.connected()
    taken[0].close()
    server.close()


async def test_a_silent_broker_is_given_up_and_metadata_asked_for_anew_while_a_join_goes_on_waiting(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(client_repairs, "LOOK_SECONDS", 0.02)
    monkeypatch.setattr(client_repairs, "ANSWER_SECONDS", 0.1)
    taken: list[asyncio.StreamWriter] = []
    server = await asyncio.start_server(lambda _, writer: taken.append(writer), HOST, 0)
    client: Any = AIOKafkaClient(request_timeout_ms=50_000)
    for group in ConnectionGroup:
        client._conns[1, group] = await _connected(
            server, request_timeout_ms=50_000, on_close=client._on_connection_closed
        )
    join = JoinGroupRequest("group", 6_000, 40_000, "", "", "consumer", [("range", b"")])
    joining = asyncio.create_task(client.send(1, join, group=ConnectionGroup.COORDINATION))
    await asyncio.sleep(0)  # it is sent before
    connection = client._conns[1, ConnectionGroup.DEFAULT]
    async with asyncio.timeout(20):
        with pytest.raises(KafkaConnectionError):
            await client.send(1, MetadataRequest([]))
    assert not connection.connected()
    assert client._md_update_waiter.done(), "it asks who leads now"
    assert not joining.done()
    joining.cancel()
    client._conns[1, ConnectionGroup.COORDINATION].close()
    for writer in taken:
        writer.close()
    server.close()


async def test_an_answer_that_comes_in_slowly_is_waited_for() -> None:
    server = await asyncio.start_server(lambda reader, writer: None, HOST, 0)
    connection = await _connected(server)
    answer = asyncio.ensure_future(connection.send(MetadataRequest([])))
    nearly = client_repairs.ANSWER_SECONDS - client_repairs.LOOK_SECONDS
    for _ in range(3):
        before = client_repairs._progress(connection)
        connection._reader.feed_data(b"\0")
        client_repairs._look(connection, before, nearly)
        assert connection.connected()
    client_repairs._look(connection, client_repairs._progress(connection), 0.0)
    assert connection.connected()
    client_repairs._look(connection, client_repairs._progress(connection), nearly)
    assert not connection.connected()
    with pytest.raises(KafkaConnectionError):
        await answer
    server.close()


async def test_what_becomes_of_a_commit_that_was_called_off_is_no_unhandled_error(
    kafka: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    unhandled: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: unhandled.append(context))
    consumer = AIOKafkaConsumer(bootstrap_servers=kafka, group_id="called-off", enable_auto_commit=False)
    await consumer.start()
    partition = TopicPartition("called-off", 0)
    consumer.assign([partition])
    sent: asyncio.Queue[asyncio.Task[Any] | None] = asyncio.Queue()
    answer = asyncio.Event()

    async def send(_: object) -> None:
        sent.put_nowait(asyncio.current_task())
        await answer.wait()
        raise KafkaConnectionError

    monkeypatch.setattr(vars(consumer)["_coordinator"], "_send_req", send)
    committing = asyncio.create_task(consumer.commit({partition: 1}))
    asking = await sent.get()
    assert asking is not None
    committing.cancel()
    await asyncio.wait([committing])
    answer.set()
    await asyncio.wait([asking])
    del asking
    gc.collect()
    assert unhandled == []
    asyncio.get_running_loop().set_exception_handler(None)
    await consumer.stop()
