"""What tests of the rebuild and of its swap share."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import count
from random import Random
from typing import Any

import pytest

from libs.service_kit.kafka import Cluster
from libs.storage.database import Pool, open_database
from services.projection.rebuild import rebuilding as steps
from services.projection.rebuild.rebuilding import check, rebuild
from services.projection.store import MIGRATIONS, PARTITIONED, SCHEMA
from tests.services.projection.stories import Told, tell

numbers = count(1)
"""Of messages."""


def stories(messages: int) -> list[list[Told]]:
    random = Random(messages)
    return [tell(random, next(numbers)) for _ in range(messages)]


@dataclass
class Outbox:
    """One whose projection is not running: the tail is empty."""

    dsn: str
    pool: Pool
    kafka: str
    said: list[str] = field(default_factory=list)

    async def rebuild(self) -> None:
        await rebuild(self.dsn, Cluster(self.kafka), self.said.append)

    async def check(self) -> list[str]:
        """What differs, with the verdict at the end."""
        said: list[str] = []
        number = await check(self.dsn, said.append)
        *rows, verdict = [line for line in said if "compared" not in line]
        assert len(rows) == number
        return [*sorted(rows), verdict]

    def has_said(self, *words: str) -> Callable[[], Awaitable[bool]]:
        """Whether the rebuild has said one of these."""

        async def said() -> bool:
            return any(word in line for line in self.said for word in words)

        return said


@asynccontextmanager
async def open_outbox(dsn: str, kafka: str) -> AsyncGenerator[Outbox]:
    pool = await open_database(dsn, SCHEMA, MIGRATIONS, 3, PARTITIONED)
    try:
        yield Outbox(dsn, pool, kafka)
    finally:
        await pool.close()


def before(patch: pytest.MonkeyPatch, step: str, work: Callable[[], Awaitable[None]]) -> None:
    """Let something happen each time just before a step of the rebuild."""
    take = getattr(steps, step)

    async def taken(*arguments: Any) -> Any:
        await work()
        return await take(*arguments)

    patch.setattr(steps, step, taken)
