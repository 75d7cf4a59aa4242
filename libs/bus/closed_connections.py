"""Under uvloop, to write to a connection that the broker has just closed is a RuntimeError. aiokafka expects an OSError there: the task
that keeps its metadata up to date ended by it, unnoticed, and whoever then waited for metadata waited for ever: a consumer's commits, and
its return to the group (https://github.com/aio-libs/aiokafka/issues/1038). Here it becomes what aiokafka makes of an OSError.
"""

from __future__ import annotations

from collections.abc import Awaitable
from functools import wraps

from aiokafka.conn import AIOKafkaConnection, CloseReason
from aiokafka.errors import KafkaConnectionError, KafkaError

_send = AIOKafkaConnection.send


@wraps(_send)
def _send_or_lose(self: AIOKafkaConnection, request: object, expect_response: bool = True) -> Awaitable[object]:
    try:
        return _send(self, request, expect_response)
    except KafkaError:
        raise
    except RuntimeError as error:
        self.close(reason=CloseReason.CONNECTION_BROKEN)
        raise KafkaConnectionError(f"the connection is closed: {error}") from error


def expect_closed_connections() -> None:
    """For all clients of this process; done again, it changes nothing."""
    AIOKafkaConnection.send = _send_or_lose
