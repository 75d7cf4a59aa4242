"""What aiokafka's clients do not survive by themselves, for all of this process.

The task that keeps a client's metadata up to date ends, unnoticed, by an error that it does not expect; whoever then waits for metadata
waits for ever: a consumer's commits and its return to the group, a producer that must find a partition's new leader. Here such an error is
an update that failed, which is tried again.

A client asks the brokers that it has last heard of, and no other. Those may be one, if that was alone when it heard of it; if it is gone
then, the others are never found. Here the brokers that the client was given at first are asked again.

To connect may take as long as a request, which is most of a minute for members of a group. A broker whose host is gone without a word would
hold up for as long what others could answer, so here it takes a few seconds.

One unexpected error is known: under uvloop, to write to a connection that the broker has just closed is a RuntimeError, where an OSError is
expected (https://github.com/aio-libs/aiokafka/issues/1038). Here it becomes what aiokafka makes of an OSError.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from functools import wraps
from typing import Any

import structlog
from aiokafka.client import AIOKafkaClient
from aiokafka.conn import AIOKafkaConnection, CloseReason
from aiokafka.errors import KafkaConnectionError, KafkaError

from libs.service_kit.faults import fault

log = structlog.get_logger()

CONNECT_SECONDS = 5.0

_client: Any = AIOKafkaClient
_connection: Any = AIOKafkaConnection
_connect = _connection.connect
_send = AIOKafkaConnection.send
_update = _client._metadata_update


@wraps(_connect)
async def _connect_soon(self: AIOKafkaConnection) -> object:
    async with asyncio.timeout(CONNECT_SECONDS):
        return await _connect(self)


@wraps(_send)
def _send_or_lose(self: AIOKafkaConnection, request: object, expect_response: bool = True) -> Awaitable[object]:
    try:
        return _send(self, request, expect_response)
    except KafkaError:
        raise
    except RuntimeError as error:
        self.close(reason=CloseReason.CONNECTION_BROKEN)
        raise KafkaConnectionError(f"the connection is closed: {error}") from error


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
    AIOKafkaConnection.send = _send_or_lose
    _client._metadata_update = _update_or_fail
