"""One life of a dispatcher's sending part, from its lease to its end. A process that loses its lease starts over as a new instance."""

from __future__ import annotations

import asyncio
import math
from collections import defaultdict
from collections.abc import Callable, Collection, Sequence
from functools import partial

import structlog

from libs.bus.errors import TooManyDeadLetters
from libs.bus.poison import tell_history
from libs.bus.port import Publisher
from libs.bus.record import Record
from libs.contracts.events import Priority
from libs.service_kit.backoff import until_done
from libs.service_kit.config_file import Gateway
from libs.service_kit.crash_points import crash_point
from libs.service_kit.metrics import BOUND, STANDBY
from libs.service_kit.transient import is_transient
from libs.service_kit.waiting import set_within
from libs.storage.database import Pool
from services.dispatcher.board import Board
from services.dispatcher.drivers.port import Callbacks, Driver, Report, Result
from services.dispatcher.intake import Intake
from services.dispatcher.lease import BEATS, Lease, LeaseOver
from services.dispatcher.ledger import Ledger
from services.dispatcher.poison import end_leg
from services.dispatcher.publications import SOURCE
from services.dispatcher.reports import publish_reports
from services.dispatcher.sender import Sender
from services.dispatcher.settings import DispatcherSettings
from services.dispatcher.settler import Settler

log = structlog.get_logger()

ORPHANS_SECONDS = 5.0
"""How often late events of dead peers are looked for."""
LAST_ANSWERS_SECONDS = 3.0
"""How long, at the end, the outcomes that the closing of the bind brings may take to be stored, before the partitions are given back."""
LAST_REPORTS_SECONDS = 1.0
"""How long, at the end, reports that are being published may take. What gets no answer is brought again, and then is another report."""
BIND_SECONDS = 30.0
"""How long a bind is waited for. Then this instance gives way to a peer that has one, and can send what here would only wait. If none has
one it takes its partitions all the same, so that messages end whose validity does."""
SLOT_SECONDS = 300.0
"""How long a bind slot is kept without a bind while a peer stands by for it, which may be able to bind where this instance can't."""
POLL_SECONDS = 0.02

MakeDriver = Callable[[Gateway, Callbacks], Driver]


class Instance:
    """Takes a lease, a bind slot, the bind, then its share of the topics. At the end it closes the bind, stores its last answers, and gives
    back the topics, the slot and the lease."""

    def __init__(
        self,
        settings: DispatcherSettings,
        gateway: Gateway,
        pool: Pool,
        publisher: Publisher,
        make_driver: MakeDriver,
    ) -> None:
        self._settings = settings
        self._gateway = gateway
        self._publisher = publisher
        self._lease = Lease(pool, gateway.id, settings.dispatcher_lease_seconds)
        self._board = Board()
        rate = gateway.segments_per_second
        interval_us = math.ceil(1_000_000 / rate) if rate else 0  # rounded down, it would exceed the rate
        self._ledger = ledger = Ledger(pool, gateway.id, self._lease.instance, interval_us)
        self._driver = make_driver(
            gateway, Callbacks(on_results=self._on_answers, on_reports=self._on_reports, on_change=self._on_change)
        )
        self._settler = Settler(gateway, ledger, self._board, publisher, self._done, lambda: self._sender.wake())
        self._sender = Sender(
            gateway, self._lease, ledger, self._board, self._driver, self._on_results, self._settler.look
        )
        self._intakes: dict[str, Intake] = {}
        """By topic."""
        self._registered = False
        self._standby = True
        self._unbound_since: float | None = None
        self._stopped_for: str | None = None
        self._ending = False
        self._rebalances = 0
        self._stop = asyncio.Event()

    @property
    def standing_by(self) -> bool:
        """Whether it waits for a bind slot: as many replicas as the provider allows binds are sending."""
        return self._standby

    @property
    def missing(self) -> str | None:
        """What keeps it from sending, for readiness. Nothing does while it stands by: that is as it should be."""
        if not self._registered:
            return "no lease yet"
        return self._stopped_for or (None if self._standby else self._driver.missing)

    def stop(self) -> None:
        """End in order; `run` returns when everything is given back."""
        self._stop.set()

    async def run(self) -> None:
        """Live until stopped, until the lease is over, or until a peer is better placed. Raises any other error that ends it."""
        await self._lease.register()
        self._registered = True
        log.info("instance registered", instance=str(self._lease.instance), gateway=self._gateway.id)
        beats = asyncio.create_task(self._lease.keep())
        settling = asyncio.create_task(self._settler.run())
        try:
            if await self._until_slot(beats):
                await self._send(beats, settling)
        except TooManyDeadLetters as error:
            self._stopped_for = f"stopped: too many dead letters: {error}"
            raise
        finally:
            await _end([settling, beats])
            await self._release()
        if self._gives_way:  # and stays away until the peer has found the slot free
            log.warning("no bind: a peer takes over", gateway=self._gateway.id, reason=self._driver.missing)
            await set_within(self._stop, self._settings.dispatcher_lease_seconds / 2)

    async def _until_slot(self, beats: asyncio.Task[None]) -> bool:
        """Stand by until a bind slot is taken; False if the instance ends before."""
        STANDBY.labels(self._gateway.id).set(1)
        try:
            while not self._stop.is_set() and not beats.done():
                try:
                    slot = await self._lease.take_slot(self._gateway.replicas_allowed)
                except Exception as error:
                    if not is_transient(error):
                        raise
                    slot = None
                if slot is not None:
                    log.info("bind slot taken", slot=slot, gateway=self._gateway.id)
                    self._standby = False
                    return True
                await set_within(self._stop, self._settings.dispatcher_lease_seconds / BEATS)
            return False
        finally:
            STANDBY.labels(self._gateway.id).set(0)

    async def _send(self, beats: asyncio.Task[None], settling: asyncio.Task[None]) -> None:
        """Bind, join the consumer groups and work until something ends; then give the bind and the partitions back."""
        self._unbound_since = asyncio.get_running_loop().time()
        self._driver.start()
        intakes: list[asyncio.Task[None]] = []
        beside: list[asyncio.Task[object]] = [asyncio.create_task(self._stop.wait())]
        try:
            await self._until_bound(beats)
            if self._gives_way:
                return
            for priority in (Priority.HIGH, Priority.NORMAL):
                intake = self._intake(priority)
                self._intakes[intake.topic] = intake
                intakes.append(asyncio.create_task(intake.run()))
            for work in (self._sender.run(), self._publish_orphans(), self._until_way_is_given()):
                beside.append(asyncio.create_task(work))
            ended, _ = await asyncio.wait([beats, settling, *intakes, *beside], return_when=asyncio.FIRST_COMPLETED)
        finally:
            await self._give_back(intakes, beside, settling)
        for task in ended:
            error = task.exception()
            if isinstance(error, LeaseOver):
                log.warning("lease is over", instance=str(self._lease.instance), gateway=self._gateway.id)
            elif error is not None:
                raise error

    async def _until_bound(self, beats: asyncio.Task[None]) -> None:
        """Wait for the bind, for `BIND_SECONDS` and a beat at most: by then it is known here for how long a peer has been bound."""
        longest = BIND_SECONDS + self._settings.dispatcher_lease_seconds / BEATS
        while self._driver.missing and not self._gives_way and self._unbound_seconds <= longest:
            if beats.done() or await set_within(self._stop, POLL_SECONDS):
                return

    def _intake(self, priority: Priority) -> Intake:
        return Intake(
            self._settings,
            priority,
            self._board,
            self._publisher,
            self._sender.wake,
            self._drain_for_rebalance,
            partial(
                tell_history, source=SOURCE, publisher=self._publisher, end_leg=partial(end_leg, ledger=self._ledger)
            ),
        )

    async def _give_back(
        self,
        intakes: Collection[asyncio.Task[None]],
        beside: Collection[asyncio.Task[object]],
        settling: asyncio.Task[None],
    ) -> None:
        """Drain, unbind, commit and leave the consumer groups; then store what is answered. The lease is kept until then."""
        self._ending = True
        self._sender.pause()
        if self._lease.valid and not settling.done():
            await self._until_drained(self._settings.dispatcher_drain_seconds)
        self._sender.withdraw()
        await self._driver.stop(LAST_REPORTS_SECONDS if self._lease.valid else 0)
        if not settling.done():
            await self._until_drained(LAST_ANSWERS_SECONDS)
        await _end(intakes)  # they commit and leave their groups
        await _end(beside)
        await self._until_stored(settling)

    @property
    def _unbound_seconds(self) -> float:
        """For how long there has been no bind."""
        return 0.0 if self._unbound_since is None else asyncio.get_running_loop().time() - self._unbound_since

    @property
    def _gives_way(self) -> bool:
        """Whether a peer is better placed: it has a bind, and has had it for long, or waits for the slot that is of no use here."""
        unbound, lease = self._unbound_seconds, self._lease
        return (min(unbound, lease.peer_bound_seconds) > BIND_SECONDS) or (
            unbound > SLOT_SECONDS and lease.peer_stands_by
        )

    async def _until_way_is_given(self) -> None:
        while not (self._gives_way or await set_within(self._stop, 1)):
            pass

    async def _drain_for_rebalance(self) -> None:
        """Stop claiming and wait for what is in flight; what takes longer is left to the new owner.

        An answer that comes later is still stored here; the new owner reads it from the ledger.
        """
        self._sender.pause()
        self._rebalances += 1
        try:
            await self._until_drained(self._settings.dispatcher_drain_seconds)
        finally:
            self._rebalances -= 1
            if not self._rebalances and not self._ending:
                self._sender.resume()

    async def _until_drained(self, seconds: float) -> None:
        deadline = asyncio.get_running_loop().time() + seconds
        while self._sender.in_flight or not self._settler.idle:
            if asyncio.get_running_loop().time() >= deadline:
                log.warning("not drained in time", in_flight=self._sender.in_flight, gateway=self._gateway.id)
                return
            await asyncio.sleep(POLL_SECONDS)

    async def _until_stored(self, settling: asyncio.Task[None]) -> None:
        """Wait until all that the carrier has answered is stored, however long Postgres is away: once the lease is given back, peers call
        in doubt what has no outcome.

        It holds nobody up, since the partitions are the peers' by now. Only a stop ends it early.
        """
        while not (self._settler.idle or settling.done() or await set_within(self._stop, POLL_SECONDS)):
            pass

    async def _publish_orphans(self) -> None:
        while True:
            await until_done(self._settler.publish_orphans, what="publish late events of dead peers")
            await asyncio.sleep(ORPHANS_SECONDS)

    async def _release(self) -> None:
        """Let peers take over at once. If Postgres is away they find out later, when the beat stands still."""
        try:
            async with asyncio.timeout(2):
                await self._lease.release()
        except Exception as error:
            log.warning("lease not released", reason=type(error).__name__)

    def _on_answers(self, results: Sequence[Result]) -> None:
        crash_point("dispatcher.write-response")
        self._on_results(results)

    def _on_results(self, results: Sequence[Result]) -> None:
        self._sender.judge(results)
        self._settler.take(results)

    async def _on_reports(self, reports: Sequence[Report]) -> None:
        await publish_reports(self._publisher, self._settings.inbound_key.get_secret_value().encode(), reports)

    def _on_change(self) -> None:
        self._lease.bound = bound = self._driver.missing is None
        if bound:
            self._unbound_since = None
        elif self._unbound_since is None:
            self._unbound_since = asyncio.get_running_loop().time()
        BOUND.labels(self._gateway.id).set(int(bound))
        self._sender.wake()

    def _done(self, records: Sequence[Record]) -> None:
        by_topic: defaultdict[str, list[Record]] = defaultdict(list)
        for record in records:
            by_topic[record.topic].append(record)
        for topic, finished in by_topic.items():
            self._intakes[topic].finished(finished)


async def _end(tasks: Collection[asyncio.Task[object]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def live(make: Callable[[], Instance], stopped: asyncio.Event) -> None:
    """One instance after the other until stopped; a lapsed lease is never renewed.

    After a run of dead letters there is no other: it would go on emptying the topic into them. The process stays, not ready, until it is
    started again by whoever has mended the cause.
    """
    while not stopped.is_set():
        instance = make()
        stopping = asyncio.create_task(stopped.wait())
        running = asyncio.create_task(instance.run())
        await asyncio.wait([stopping, running], return_when=asyncio.FIRST_COMPLETED)
        instance.stop()
        stopping.cancel()
        try:
            await running
        except TooManyDeadLetters as error:
            log.error("sending stopped", why=str(error))
            await stopped.wait()
        except Exception as error:
            if not isinstance(error, LeaseOver) and not is_transient(error):
                raise
            log.warning("instance ended", reason=type(error).__name__)
            await asyncio.sleep(1)
