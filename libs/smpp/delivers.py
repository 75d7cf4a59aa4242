"""Hands the SMSC's messages and receipts to their handler and answers them once the handler has them safe."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

import structlog

from libs.smpp.pdus import DataSm, DataSmResp, DeliverSm, DeliverSmResp
from libs.smpp.status import CommandStatus

Deliver = DeliverSm | DataSm
"""What an SMSC brings: an inbound message or a delivery receipt."""

OnDeliver = Callable[[list[Deliver]], Awaitable[None]]
"""Takes a batch, in the order of its coming; returns when it is safe. Raising makes the SMSC send the batch again."""

_log: Final[structlog.typing.FilteringBoundLogger] = structlog.get_logger("smpp")


class Delivers:
    """A queue with one worker, beside the reading of the socket: a slow handler holds up no response.

    At most `limit` wait. What comes above is answered with a temporary error at once, and so comes again. At most `batch` are handed to
    the handler at once.
    """

    def __init__(
        self, handle: OnDeliver, write: Callable[[bytes], None], limit: int = 10_000, batch: int = 500
    ) -> None:
        self._handle = handle
        self._write = write
        self._limit = limit
        self._batch = batch
        self._waiting: deque[tuple[int, Deliver]] = deque()
        self._worker: asyncio.Task[None] | None = None
        self._accepting = True

    def put(self, sequence: int, pdu: Deliver) -> None:
        """Take one in. After `finish` or `stop` it is left unanswered: the SMSC sends it again after the next bind."""
        if not self._accepting:
            return
        if len(self._waiting) >= self._limit:
            self._write(_answers([(sequence, pdu)], CommandStatus.ESME_RX_T_APPN))
            return
        self._waiting.append((sequence, pdu))
        if self._worker is None:
            self._worker = asyncio.create_task(self._work())

    async def finish(self) -> None:
        """Take no more, and wait until what is here has been handled and answered."""
        self._accepting = False
        if self._worker is not None:
            await asyncio.wait([self._worker])

    def stop(self, *, cancel: bool) -> None:
        """Take no more and drop what waits, as it can't be answered any more. The batch that the handler has is cancelled too, or may
        be finished."""
        self._accepting = False
        self._waiting.clear()
        self._write = _to_nobody  # the session's own would hold it, with all its TLS, until garbage is collected
        if cancel and self._worker is not None:
            self._worker.cancel()

    async def _work(self) -> None:
        try:
            while self._waiting:
                batch = [self._waiting.popleft() for _ in range(min(self._batch, len(self._waiting)))]
                status = await self._handled([pdu for _, pdu in batch])
                self._write(_answers(batch, status))
        finally:
            self._worker = None

    async def _handled(self, pdus: list[Deliver]) -> CommandStatus:
        try:
            await self._handle(pdus)
        except Exception:
            _log.exception("deliver_handler_failed", count=len(pdus))
            return CommandStatus.ESME_RX_T_APPN
        return CommandStatus.ESME_ROK


def _to_nobody(_: bytes) -> None:
    """There is no connection any more."""


def _answers(batch: Sequence[tuple[int, Deliver]], status: CommandStatus) -> bytes:
    deliver, data = DeliverSmResp(status), DataSmResp(status)
    return b"".join([(deliver if type(pdu) is DeliverSm else data).encode(sequence) for sequence, pdu in batch])
