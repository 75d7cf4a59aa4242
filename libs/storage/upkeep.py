"""What a service does for its tables now and then, beside its work."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import structlog

log = structlog.get_logger()

EVERY_SECONDS = 3600.0


async def keep_up(what: str, work: Callable[[], Awaitable[object]], every_seconds: float = EVERY_SECONDS) -> None:
    """Do it now and then again and again, for ever; a failure is logged and tried again."""
    while True:
        try:
            await work()
        except Exception as error:
            log.error("upkeep failed", what=what, reason=type(error).__name__)
        await asyncio.sleep(every_seconds)
