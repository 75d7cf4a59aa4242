"""Repairs to aiokafka's clients, for the whole process: what they do not survive, or do not name, by themselves.

The task that keeps a client's metadata up to date ends, without a word, by an error that it does not expect. Whoever waits for metadata
then waits for ever: a consumer's commits and its return to the group, a producer that must find a partition's new leader. Here such an
error is an update that failed, and is tried again.

A client asks only the brokers that it last heard of. That may be one, if the others were away just then; when that one goes, the client
never finds the others. Here it then asks the brokers that it was configured with.

Who gives up waiting for a client that asks for brokers leaves it with a connection of which nobody else knows. Here it is closed.

A group's members give every request most of a minute, since a join is answered only when all others have joined. A broker whose host is
gone without a word would hold up for as long what other brokers could answer. So here connecting takes a few seconds at most, and a
connection is closed on which answers are due and nothing comes in for a while, unless a join waits there: the client then asks who leads
now. An answer that comes in slowly keeps its connection.

aiokafka reports a refused certificate or login as "unreachable"; the reason is logged here.

A commit goes on by itself when its caller gives it up, and asyncio would log its failure as an exception that nobody retrieved. The caller
has said that it gave up, so what becomes of the commit is of no interest.

Under uvloop, to write to a connection that the broker has just closed is a RuntimeError, where aiokafka expects an OSError
(https://github.com/aio-libs/aiokafka/issues/1038). Here it becomes what aiokafka makes of an OSError.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from functools import wraps
from ssl import SSLError
from typing import Any
from weakref import WeakSet

import structlog
from aiokafka.client import AIOKafkaClient, ConnectionGroup
from aiokafka.conn import AIOKafkaConnection, CloseReason
from aiokafka.consumer.group_coordinator import GroupCoordinator
from aiokafka.errors import KafkaConnectionError, KafkaError
from aiokafka.protocol.group import JoinGroupRequest, SyncGroupRequest

from libs.service_kit.faults import fault

log = structlog.get_logger()

CONNECT_SECONDS = 5.0
ANSWER_SECONDS = 10.0
"""As long as the producer's and the admin's requests may take at most; by then Kafka has chosen other leaders."""
LOOK_SECONDS = 2.5
"""How often a connection on which answers are due is looked at."""
_BOOTSTRAP = ("bootstrap", ConnectionGroup.DEFAULT)
"""Under what a client keeps its first connection while it knows no broker: one that has just started names none, not even itself."""
_JOINING = (JoinGroupRequest.API_KEY, SyncGroupRequest.API_KEY)
_watched = WeakSet[AIOKafkaConnection]()

_client: Any = AIOKafkaClient
_connection: Any = AIOKafkaConnection
_coordinator: Any = GroupCoordinator
_connect = _connection.connect
_close = _connection.close
_send = AIOKafkaConnection.send
_commit = _coordinator._do_commit_offsets
_update = _client._metadata_update


@wraps(_connect)
async def _connect_soon(self: AIOKafkaConnection) -> object:
    try:
        async with asyncio.timeout(CONNECT_SECONDS):
            return await _connect(self)
    except SSLError as error:
        _say_why(self, error)
        raise


@wraps(_close)
def _close_and_say_why(
    self: AIOKafkaConnection, reason: CloseReason | None = None, exc: Exception | None = None
) -> object:
    if reason is CloseReason.AUTH_FAILURE or isinstance(exc, SSLError):
        _say_why(self, exc)
    return _close(self, reason, exc)


def _say_why(connection: Any, error: Exception | None) -> None:
    log.warning("kafka.not_let_in", broker=f"{connection.host}:{connection.port}", why=str(error))


@wraps(_send)
def _send_or_lose(self: Any, request: object, expect_response: bool = True) -> Awaitable[object]:
    try:
        answer = _send(self, request, expect_response)
    except KafkaError:
        raise
    except RuntimeError as error:
        self.close(reason=CloseReason.CONNECTION_BROKEN)
        raise KafkaConnectionError(f"the connection is closed: {error}") from error
    if expect_response and self not in _watched:
        _watch(self)
    if self._on_close_cb is None:  # a client that asks for brokers
        return _or_close(self, answer)
    return answer


async def _or_close(connection: Any, answer: Awaitable[object]) -> object:
    try:
        return await answer
    except asyncio.CancelledError:
        connection.close()
        raise


def _watch(connection: Any, silent_seconds: float = 0.0) -> None:
    """Answers are due: look again, in a while, whether something has come in."""
    _watched.add(connection)
    asyncio.get_running_loop().call_later(LOOK_SECONDS, _look, connection, _progress(connection), silent_seconds)


def _look(connection: Any, before: tuple[int, int], silent_seconds: float) -> None:
    _watched.discard(connection)
    if not connection._requests:
        return
    silent_seconds += LOOK_SECONDS
    _, oldest, _ = connection._requests[0]  # a broker answers in order
    if oldest.API_KEY in _JOINING or _progress(connection) != before:
        _watch(connection)
    elif silent_seconds < ANSWER_SECONDS:
        _watch(connection, silent_seconds)
    else:
        connection.close(reason=CloseReason.CONNECTION_TIMEOUT)


def _progress(connection: Any) -> tuple[int, int]:
    """What changes while answers come in: how many have come, and how many octets of the next."""
    return connection._correlation_id - len(connection._requests), len(connection._reader._buffer)


@wraps(_commit)
def _commit_in_a_task(self: Any, assignment: object, offsets: object) -> asyncio.Task[None]:
    task: asyncio.Task[None] = asyncio.create_task(_commit(self, assignment, offsets))
    task.add_done_callback(lambda done: done.cancelled() or done.exception())
    return task


@wraps(_update)
async def _update_or_fail(self: Any, metadata: Any, topics: object) -> bool:
    try:
        if await _update(self, metadata, topics):
            return True
        if self._sync_task is None:  # it is being closed
            return False
        if (kept := self._conns.pop(_BOOTSTRAP, None)) is not None:
            kept.close()  # the next would take its place, and nobody would close it
        await self.bootstrap()
        return await _update(self, metadata, topics)
    except KafkaConnectionError:  # no broker can be reached, which aiokafka logs
        metadata.failed_update(None)
        return False
    except Exception as error:
        log.error("kafka.metadata_failed", fault=fault(error))
        metadata.failed_update(None)
        return False


def repair_clients() -> None:
    """Make the repairs above. A second call changes nothing."""
    _connection.connect = _connect_soon
    _connection.close = _close_and_say_why
    AIOKafkaConnection.send = _send_or_lose
    _coordinator._do_commit_offsets = _commit_in_a_task
    _client._metadata_update = _update_or_fail
