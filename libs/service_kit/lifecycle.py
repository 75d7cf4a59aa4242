"""How a service lives: start in order and wait for neighbours, stop in reverse within a budget, end hard after it."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import threading
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from contextvars import copy_context
from typing import Any, Protocol, TypeVar

import asyncpg
import structlog
import uvloop
from aiohttp import web

from libs.service_kit.backoff import delays
from libs.service_kit.faults import fault
from libs.service_kit.logging import configure_logging
from libs.service_kit.ops_server import Check, Health, start_ops_server
from libs.service_kit.settings import ServiceSettings
from libs.service_kit.transient import is_transient
from libs.service_kit.waiting import set_within

T = TypeVar("T")
log = structlog.get_logger()

WATCH_SECONDS = 5.0
ANSWER_SECONDS = 10.0
"""A busy neighbour may take seconds to answer, behind what it is asked in earnest."""
YOUNG_OBJECTS = 200_000
"""How many objects may be made before the garbage collector looks at them: more than a batch in hand holds, or it looks in vain."""


class Stopping(Exception):
    """SIGTERM came while the service was still starting."""


class Consumer(Protocol):
    """What reads a topic, as `libs.bus.consumer.BatchConsumer` does."""

    @property
    def ready(self) -> bool: ...

    @property
    def state(self) -> str: ...

    async def start(self) -> None: ...

    async def stop(self, budget_seconds: float) -> None: ...


class Lifecycle:
    """The parts of a running service. Parts start in the order of the calls and stop in reverse."""

    def __init__(self, settings: ServiceSettings) -> None:
        self.health = Health()
        self._settings = settings
        self._stops: list[tuple[str, Callable[[], Awaitable[object]]]] = []
        self._stop = asyncio.Event()
        self._stop_until: float | None = None
        self.failed = False
        """Something that should have gone on for ever ended: the process ends with status 1, to be started again."""

    async def part(
        self, name: str, start: Callable[[], Awaitable[T]], stop: Callable[[T], Awaitable[object]] | None = None
    ) -> T:
        """Start a part, again and again until its neighbour is there; readiness says what is waited for.

        Raises `Stopping` if the service is asked to stop meanwhile.
        """
        value = await self._started(name, start)
        if stop is not None:
            self._stops.append((name, lambda: stop(value)))
        return value

    async def consumer(self, name: str, consumer: Consumer) -> None:
        """A part that reads: the service is ready only while it works, and its drain takes no more than what is left of the budget."""
        self.ready_when(name, lambda: None if consumer.ready else consumer.state)
        await self.part(name, consumer.start, lambda _: consumer.stop(self.left_seconds))

    @property
    def left_seconds(self) -> float:
        """What is left of the drain budget: all of it until the stop begins."""
        if self._stop_until is None:
            return self._settings.drain_budget_seconds
        return max(0.0, self._stop_until - time.monotonic())

    def on_stop(self, name: str, stop: Callable[[], Awaitable[object]]) -> None:
        """Something to do at the stop, before what was started earlier stops."""
        self._stops.append((name, stop))

    def background(self, name: str, work: Coroutine[object, object, None]) -> asyncio.Task[None]:
        """Something that goes on beside, until the stop. If it ends by an error, so does the service."""

        def ended(task: asyncio.Task[None]) -> None:
            if not task.cancelled() and (error := task.exception()) is not None:
                log.error("background work failed", part=name, exc_info=error)
                self.failed = True
                self.request_stop()

        async def stop(task: asyncio.Task[None]) -> None:
            task.cancel()
            await asyncio.wait([task])

        task = asyncio.create_task(work)
        task.add_done_callback(ended)
        self._stops.append((name, lambda: stop(task)))
        return task

    def watch(self, name: str, ask: Callable[[], Awaitable[object]]) -> None:
        """Ask a neighbour every few seconds for a sign of life, also while there is nothing to do: without one the service is not ready.
        That it went, and that it came back, is logged once."""
        missing: str | None = None

        def seen(words: str | None) -> None:
            nonlocal missing
            if missing is None and words is not None:
                log.warning("neighbour away", part=name, reason=words)
            elif missing is not None and words is None:
                log.info("neighbour back", part=name)
            missing = words

        async def look() -> None:
            while True:
                await asyncio.sleep(WATCH_SECONDS)
                asking = asyncio.ensure_future(ask())
                # What it raises after it was called off is looked at too, or asyncio would log it as never retrieved.
                asking.add_done_callback(lambda asked: asked.cancelled() or asked.exception())
                try:
                    await asyncio.wait([asking], timeout=ANSWER_SECONDS)
                    if not asking.done():  # and what is called off may take far longer
                        seen("does not answer: TimeoutError")
                        asking.cancel()
                        await asyncio.wait([asking])
                    elif error := asking.exception():
                        seen(f"does not answer: {type(error).__name__}")
                    else:
                        seen(None)
                finally:
                    asking.cancel()

        self.ready_when(name, lambda: missing)
        self.background(f"watching {name}", look())

    def ready_when(self, name: str, check: Check) -> None:
        self.health.add(name, check)

    async def serve_ops(self, routes: Iterable[web.RouteDef] = ()) -> None:
        """Start the health, metrics and internal HTTP server: first of all parts, so that waiting can be seen."""
        s = self._settings
        await self.part(
            "ops server",
            lambda: start_ops_server(s.ops_host, s.ops_port, s.internal_token.get_secret_value(), self.health, routes),
            lambda runner: runner.cleanup(),
        )

    def request_stop(self) -> None:
        self._stop.set()

    async def wait_for_stop(self) -> None:
        """Everything is started: be ready until SIGTERM, SIGINT or `request_stop`."""
        self.health.starting = None
        gc.collect()
        gc.freeze()
        gc.set_threshold(YOUNG_OBJECTS, 20, 100)
        log.info("started")
        await self._stop.wait()

    async def stop_all(self) -> None:
        """Stop every part in reverse; one that fails does not keep the others from stopping."""
        self.health.starting = "stopping"
        self._stop_until = time.monotonic() + self._settings.drain_budget_seconds
        for name, stop in reversed(self._stops):
            try:
                await stop()
            except Exception as error:
                log.error("part did not stop cleanly", part=name, fault=fault(error))
        self._stops.clear()

    async def _started(self, name: str, start: Callable[[], Awaitable[T]]) -> T:
        self.health.starting = f"starting {name}"
        for delay in delays():
            try:
                return await self._unless_stopped(start())
            except Exception as error:
                if not _is_away(error):
                    raise
                words = f"waiting for {name}: {type(error).__name__}"
                if isinstance(error, OSError):
                    words += f": {error}"
            self.health.starting = words
            log.warning("part not there yet", part=name, reason=words, retry_seconds=round(delay, 2))
            if await set_within(self._stop, delay):
                raise Stopping
        raise AssertionError("delays() has no end")

    async def _unless_stopped(self, start: Awaitable[T]) -> T:
        """The result of a start, which may wait for a neighbour without end. Raises `Stopping` if the stop comes first."""
        starting = asyncio.ensure_future(start)
        stopping = asyncio.ensure_future(self._stop.wait())
        try:
            await asyncio.wait([starting, stopping], return_when=asyncio.FIRST_COMPLETED)
            if starting.done():
                return starting.result()
            starting.cancel()
            await asyncio.wait([starting])
            raise Stopping
        finally:
            stopping.cancel()


def run_service(name: str, settings: ServiceSettings, start: Callable[[Lifecycle], Awaitable[None]]) -> None:
    """Run a service until it is told to stop. `start` starts its parts; it may wait for neighbours, never fail for them."""
    configure_logging(name, settings.log_level)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_live(settings, start))


async def _live(settings: ServiceSettings, start: Callable[[Lifecycle], Awaitable[None]]) -> None:
    life = Lifecycle(settings)
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(_log_unhandled)
    for sig in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(sig, life.request_stop)
    try:
        await start(life)
        await life.wait_for_stop()
    except Stopping:
        pass
    except Exception:
        log.exception("start failed")
        raise SystemExit(1) from None
    finally:
        log.info("stopping", budget_seconds=settings.drain_budget_seconds)
        _end_hard_after(settings.drain_budget_seconds + 5)
        await life.stop_all()
        log.info("stopped")
    if life.failed:
        raise SystemExit(1)


def _end_hard_after(seconds: float) -> None:
    """Parts keep their own budgets; 5 s on top are for closing connections. A thread, since the loop may be what hangs."""

    def end() -> None:
        log.error("stop took too long, ending hard", seconds=seconds)
        os._exit(70)

    watchdog = threading.Timer(seconds, copy_context().run, (end,))  # a thread has none of what is bound to the log
    watchdog.daemon = True
    watchdog.start()


_REFUSED = ("22", "23", "42")
"""SQLSTATE classes: Postgres refuses data, a constraint's breach, or a name or syntax."""


def _is_away(error: Exception) -> bool:
    """Whether a start should wait. While it runs, a service also waits where what it was given at its start is refused (a right was
    revoked); at the start that is a mistake, as is a ValueError: a setting that asyncpg does not know."""
    if isinstance(error, OSError):  # a certificate that is refused is a ValueError too
        return True
    if isinstance(error, ValueError) or str(getattr(error, "sqlstate", "")).startswith(_REFUSED):
        return False
    return is_transient(error)


def _log_unhandled(_: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """What a task or a callback raised and nobody awaits. asyncio's own words would show the task, and in it the error's text."""
    if (error := context.get("exception")) is not None:
        # A COPY that asyncpg can't begin, since the server has just ended the session, raises; asyncpg then fails a future of its own as
        # well, with an error that was never raised, and forgets it.
        forgotten = isinstance(error, asyncpg.ConnectionDoesNotExistError) and error.__traceback__ is None
        say = log.warning if forgotten else log.error
        say("unhandled error", exc_info=error)
    else:
        log.error("unhandled error", words=context["message"])
