"""Work that comes again and again beside the rest of a service."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import structlog

from libs.service_kit.faults import fault
from libs.service_kit.transient import is_transient

log = structlog.get_logger()


async def repeat(what: str, seconds: float, work: Callable[[], Awaitable[object]]) -> None:
    """Do it now and then every so many seconds, for ever; a failure is logged (a neighbour's absence as a
    warning), and it is done again at the next turn."""
    while True:
        try:
            await work()
        except Exception as error:
            say = log.warning if is_transient(error) else log.error
            say(f"{what} failed", fault=fault(error))
        await asyncio.sleep(seconds)
