"""What aiokafka's clients do not survive by themselves, for all of this process.

The task that keeps a client's metadata up to date ends, unnoticed, by an error that it does not expect; whoever then waits for metadata
waits for ever: a consumer's commits and its return to the group, a producer that must find a partition's new leader. Here such an error is
an update that failed, which is tried again.

One such error is known: under uvloop, to write to a connection that the broker has just closed is a RuntimeError, where an OSError is
expected (https://github.com/aio-libs/aiokafka/issues/1038). Here it becomes what aiokafka makes of an OSError.
"""

from __future__ import annotations

from collections.abc import Awaitable
from functools import wraps
from typing import Any

import structlog
from aiokafka.client import AIOKafkaClient
from aiokafka.conn import AIOKafkaConnection, CloseReason
from aiokafka.errors import KafkaConnectionError, KafkaError

from libs.service_kit.faults import fault

log = structlog.get_logger()

_client: Any = AIOKafkaClient
_send = AIOKafkaConnection.send
_update = _client._metadata_update


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
async def _update_or_fail(self: AIOKafkaClient, metadata: Any, topics: object) -> bool:
    try:
        return await _update(self, metadata, topics)
    except Exception as error:
        log.error("kafka.metadata_failed", fault=fault(error))
        metadata.failed_update(None)
        return False


def repair_clients() -> None:
    """Done again, it changes nothing."""
    AIOKafkaConnection.send = _send_or_lose
    _client._metadata_update = _update_or_fail
