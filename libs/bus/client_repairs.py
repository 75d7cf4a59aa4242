"""What aiokafka's clients do not survive by themselves, for all of this process.

The task that keeps a client's metadata up to date ends, unnoticed, by an error that it does not expect; whoever then waits for metadata
waits for ever: a consumer's commits and its return to the group, a producer that must find a partition's new leader. Here such an error is
an update that failed, which is tried again.

A client asks the brokers that it has last heard of, and no other. Those may be one, if that was alone when it heard of it; if it is gone
then, the others are never found. Here the brokers that the client was given at first are asked again.

Members of a group give every request most of a minute, since a join waits until all others have come. A broker whose host is gone without a
word would hold up for as long what others could answer. So here to connect takes a few seconds, and a connection on which answers are due
and nothing comes in is given up soon, unless a join waits there: then the client asks who leads now. What comes in slowly goes on coming.

Whom a broker does not let in hears that it can't be reached. Why is told here: a certificate or a login that is not taken.

A commit that nobody waits for any more goes on by itself, and its failure would be logged as nobody's, without a name. It is told when the
commit is called off, and what comes after is of no interest.

One unexpected error is known: under uvloop, to write to a connection that the broker has just closed is a RuntimeError, where an OSError is
expected (https://github.com/aio-libs/aiokafka/issues/1038). Here it becomes what aiokafka makes of an OSError.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from functools import wraps
from ssl import SSLError
from typing import Any
from weakref import WeakSet

import structlog
from aiokafka.client import AIOKafkaClient
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
def _send_or_lose(self: AIOKafkaConnection, request: object, expect_response: bool = True) -> Awaitable[object]:
    try:
        answer = _send(self, request, expect_response)
    except KafkaError:
        raise
    except RuntimeError as error:
        self.close(reason=CloseReason.CONNECTION_BROKEN)
        raise KafkaConnectionError(f"the connection is closed: {error}") from error
    if expect_response and self not in _watched:
        _watch(self)
    return answer


def _watch(connection: Any, silent_seconds: float = 0.0) -> None:
    """Answers are due: look again whether something has come."""
    _watched.add(connection)
    asyncio.get_running_loop().call_later(LOOK_SECONDS, _look, connection, _come(connection), silent_seconds)


def _look(connection: Any, before: tuple[int, int], silent_seconds: float) -> None:
    _watched.discard(connection)
    if not connection._requests:
        return
    silent_seconds += LOOK_SECONDS
    _, oldest, _ = connection._requests[0]  # a broker answers in order
    if oldest.API_KEY in _JOINING or _come(connection) != before:
        _watch(connection)
    elif silent_seconds < ANSWER_SECONDS:
        _watch(connection, silent_seconds)
    else:
        connection.close(reason=CloseReason.CONNECTION_TIMEOUT)


def _come(connection: Any) -> tuple[int, int]:
    """What changes while an answer comes in: how many have, and the octets of the next."""
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
        await self.bootstrap()
        return await _update(self, metadata, topics)
    except KafkaConnectionError:  # nobody is there, which is logged
        metadata.failed_update(None)
        return False
    except Exception as error:
        log.error("kafka.metadata_failed", fault=fault(error))
        metadata.failed_update(None)
        return False


def repair_clients() -> None:
    """Done again, it changes nothing."""
    _connection.connect = _connect_soon
    _connection.close = _close_and_say_why
    AIOKafkaConnection.send = _send_or_lose
    _coordinator._do_commit_offsets = _commit_in_a_task
    _client._metadata_update = _update_or_fail
