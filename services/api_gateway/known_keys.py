"""The Idempotency-Keys that this process knows without asking Postgres: under way, or published and not yet marked so there."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import suppress
from http import HTTPStatus

import structlog

from libs.service_kit.crash_points import crash_point
from libs.service_kit.problems import ProblemError, bad_field
from services.api_gateway.idempotency import Ledger
from services.api_gateway.requests import Named, Repeatable

log = structlog.get_logger()

MARK_SECONDS = 0.05
RETRY_SECONDS = 1.0


def other_body() -> ProblemError:
    return bad_field("Idempotency-Key", "was used for another request body", HTTPStatus.UNPROCESSABLE_ENTITY)


def in_progress(retry_after: int) -> ProblemError:
    words = "Idempotency-Key: the first request with it is still in progress"
    return ProblemError(HTTPStatus.CONFLICT, words, retry_after=retry_after)


class KnownKeys:
    """Marks in Postgres, in batches, what was published; until then it answers repeats itself. Make it in a running loop."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._under_way: dict[str, bytes] = {}
        self._published: dict[str, tuple[bytes, Named]] = {}
        self._task = asyncio.create_task(self._mark_always())

    def enter(self, repeatable: Repeatable) -> Named | None:
        """The answer, if this process has published the event; else None, and the key is under way until `leave`.

        Raises the problems 409 (under way already) and 422 (another body).
        """
        body_hash, answer = self._published.get(repeatable.key) or (self._under_way.get(repeatable.key), None)
        if body_hash is None:
            self._under_way[repeatable.key] = repeatable.body_hash
            return None
        if body_hash != repeatable.body_hash:
            raise other_body()
        if answer is None:
            raise in_progress(1)
        return answer

    def leave(self, repeatable: Repeatable) -> None:
        self._under_way.pop(repeatable.key, None)

    def published(self, answers: Mapping[Repeatable, Named]) -> None:
        """Kafka has these events."""
        for repeatable, answer in answers.items():
            self._published[repeatable.key] = (repeatable.body_hash, answer)

    async def stop(self) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        with suppress(Exception):  # a retry of what stays unmarked publishes it once more, under the same id
            await self.mark()

    async def mark(self) -> None:
        """Mark everything published so far. Raises what the ledger raises; nothing is forgotten then."""
        keys = list(self._published)
        if keys:
            await self._ledger.mark(keys)
            crash_point("api_gateway.mark-answer")
            for key in keys:
                del self._published[key]

    async def _mark_always(self) -> None:
        while True:
            await asyncio.sleep(MARK_SECONDS)
            try:
                await self.mark()
            except Exception as error:
                log.warning("published keys not marked yet", keys=len(self._published), reason=type(error).__name__)
                await asyncio.sleep(RETRY_SECONDS)
