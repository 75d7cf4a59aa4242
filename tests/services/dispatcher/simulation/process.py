"""A dispatcher's process in a simulation: the real parts of an instance, which go on only when they are told to.

They stop wherever they wait for PostgreSQL or Kafka. There a process may be killed, held up for as long as one likes, or lose the answer.
"""

from __future__ import annotations

import asyncio
import heapq
import math
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import count
from operator import itemgetter
from types import SimpleNamespace
from typing import Any, Protocol, cast
from uuid import UUID

from aiokafka.structs import TopicPartition

from libs.bus.port import Outgoing
from libs.bus.record import Record
from libs.bus.watermarks import Watermarks
from libs.contracts import topics
from libs.service_kit.config_file import SmppGateway
from libs.storage.database import Pool
from services.dispatcher.drivers.port import Callbacks, Result, Submission, Verdict
from services.dispatcher.instance import Instance
from services.dispatcher.sender import Sent
from services.dispatcher.settings import DispatcherSettings

LEASE_SECONDS = 5.0
WINDOW = 10


def freely() -> bool:
    """Nothing stops it."""
    return True


class Work:
    """A coroutine of the product, from one stop to the next."""

    def __init__(self) -> None:
        self._task: asyncio.Task[Any] | None = None
        self._stopped = asyncio.Event()
        self._gate: asyncio.Future[None] | None = None

    @property
    def under_way(self) -> bool:
        return self._task is not None

    async def go_on(
        self,
        begin: Callable[[], Coroutine[Any, Any, Any]],
        passes: Callable[[], bool] = freely,
        error: Exception | None = None,
    ) -> None:
        """Go on until it is done, or stops where `passes` says no. `error` is what the first wait ends with. Raises what it raises."""
        while True:
            self._stopped.clear()
            if self._task is None:
                self._task = asyncio.create_task(begin())
                self._task.add_done_callback(lambda _: self._stopped.set())
            elif self._gate is not None:
                gate, self._gate = self._gate, None
                gate.set_exception(error) if error else gate.set_result(None)
                error = None
            await self._stopped.wait()
            if self._task.done():
                task, self._task = self._task, None
                task.result()
                return
            if not passes():
                return

    async def stop(self) -> None:
        """Where the coroutine waits for a neighbour."""
        self._gate = asyncio.get_running_loop().create_future()
        self._stopped.set()
        await self._gate

    async def end(self) -> None:
        """Its process is killed."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
            self._task = None


class Wire:
    """PostgreSQL as a process reaches it: each call stops before it is heard there and before its answer is heard here."""

    def __init__(self, pool: Pool, stop: Callable[[], Awaitable[None]]) -> None:
        self._pool = pool
        self._stop = stop

    async def _call(self, of: Callable[..., Awaitable[Any]], *args: Any) -> Any:
        await self._stop()
        answer = await of(*args)
        await self._stop()
        return answer

    async def fetch(self, *args: Any) -> Any:
        rows = await self._call(self._pool.fetch, *args)
        return sorted(
            rows, key=itemgetter(0)
        )  # else their order is PostgreSQL's choice, and what follows differs from run to run

    async def fetchval(self, *args: Any) -> Any:
        return await self._call(self._pool.fetchval, *args)

    async def execute(self, *args: Any) -> Any:
        return await self._call(self._pool.execute, *args)

    @asynccontextmanager
    async def acquire(self) -> AsyncIterator[Any]:
        await self._stop()
        async with self._pool.acquire() as connection:
            yield connection
        await self._stop()


@dataclass(eq=False)
class Submit:
    """What was written to the carrier: `fate` is what it made of it, once it has."""

    process: Process
    submission: Submission
    fate: Verdict | None = None
    provider_id: str | None = None
    given_up: bool = False
    """The process waits no longer for the answer."""
    answered: bool = False
    """The answer came, or never will."""
    checked: bool = False

    @property
    def sent(self) -> Sent:
        return cast(Sent, self.submission.token)

    @property
    def place(self) -> tuple[UUID, int, int, int, int]:
        """Of its attempt: message, cycle, leg, part, try."""
        return (*self.sent.leg.key, self.sent.attempt.part, self.sent.attempt.try_number)


class Outside(Protocol):
    """What a process finds around itself."""

    pool: Pool
    gateway: SmppGateway
    now: float
    running: Work
    submits: list[Submit]

    def told(self, outgoing: Outgoing) -> None: ...


@dataclass(eq=False)
class Process:
    """One start of a dispatcher's process."""

    world: Outside
    name: str
    believes: bool = False
    """It thinks that the partition is its own."""
    position: int = 0
    epoch: int = 0
    frozen: bool = False
    revoking: bool = False
    closed: bool = False
    works: dict[str, Work] = field(default_factory=lambda: {name: Work() for name in ("lease", "sender", "settler")})

    def __post_init__(self) -> None:
        world = self.world
        self.partition = TopicPartition(topics.dispatch(world.gateway.id).name, 0)
        self.marks = Watermarks()
        self._timers: list[tuple[float, int, Callable[[], None]]] = []
        self._order = count()
        self._sleeps_until = 0.0
        settings = DispatcherSettings.model_construct(
            dispatcher_gateway=world.gateway.id, dispatcher_lease_seconds=LEASE_SECONDS
        )
        parts: Any = Instance(settings, world.gateway, cast(Any, Wire(world.pool, self._stop)), self, self._driver)
        self.instance = parts
        self.lease, self.board, self.sender, self.settler = parts._lease, parts._board, parts._sender, parts._settler
        self.lease._clock = self.time
        self.sender._loop = self.settler._loop = self
        parts._intakes = {self.partition.topic: self}

    async def _stop(self) -> None:
        await self.world.running.stop()

    # What the sender, the settler and the lease have for a clock.

    def time(self) -> float:
        return self.world.now

    def call_at(self, when: float, callback: Callable[[], None]) -> SimpleNamespace:
        entry = (when, next(self._order), callback)
        heapq.heappush(self._timers, entry)
        return SimpleNamespace(cancel=lambda: self._timers.remove(entry) if entry in self._timers else None)

    @property
    def next_timer(self) -> float:
        return self._timers[0][0] if self._timers else math.inf

    def fire(self) -> None:
        """Call what is due."""
        while self._timers and self._timers[0][0] <= self.world.now:
            heapq.heappop(self._timers)[2]()

    # What the settler has for Kafka.

    async def publish_many(self, outgoing: Sequence[Outgoing]) -> None:
        for each in outgoing:
            await self._stop()
            self.world.told(each)
        await self._stop()

    def finished(self, records: list[Record]) -> None:
        self.marks.finished(self.partition, [r.offset for r in records if r.epoch == self.epoch])

    # What it does, as far as it is told to.

    async def work(self, what: str, passes: Callable[[], bool] = freely, error: Exception | None = None) -> None:
        work = self.world.running = self.works[what]
        await work.go_on({"sender": self._turn, "settler": self._settle}[what], passes, error)

    async def _turn(self) -> None:
        self.sender._wake.clear()
        self._sleeps_until = self.time() + await self.sender.turn()

    async def _settle(self) -> None:
        later, now = self.settler._later_looks, self.time()
        self.settler._later_looks = [entry for entry in later if entry[0] > now]
        self.settler.look([leg for moment, leg in later if moment <= now])
        await self.settler._round()

    async def do(self, what: Callable[[], Coroutine[Any, Any, Any]]) -> None:
        """Something else from its beginning to its end."""
        work = self.world.running = Work()
        await work.go_on(what)

    @property
    def may_send(self) -> bool:
        awake = self.sender._wake.is_set() or self._sleeps_until <= self.time()
        return self.works["sender"].under_way or (self.lease.valid and awake)

    @property
    def may_settle(self) -> bool:
        return (
            self.works["settler"].under_way
            or not self.settler.idle
            or any(moment <= self.time() for moment, _ in self.settler._later_looks)
        )

    def fetch(self, event: Any) -> None:
        record = Record(self.partition, self.position, None, None, (), event, self.epoch)
        self.marks.delivered(self.partition, [self.position])
        self.position += 1
        self.board.add(event, record)

    def assign(self, position: int) -> None:
        """The partition is its own from here on; what it had of it before is forgotten."""
        self.give_up_partition()
        self.believes, self.position = True, position
        self.sender.resume()

    def give_up_partition(self) -> None:
        self.believes, self.revoking = False, False
        self.board.withdraw(self.partition.topic)
        self.marks.reset([self.partition])
        self.epoch += 1

    def close(self) -> None:
        """It sends no more and its session ends, so that nothing more is answered."""
        self.closed = True
        self.sender.withdraw()
        self.end_session()

    def end_session(self) -> None:
        open_ones = [s for s in self.world.submits if s.process is self and not s.answered]
        unanswered = [s for s in open_ones if not s.given_up]
        for submit in open_ones:
            submit.answered = submit.given_up = True
        if unanswered:
            self.hear(*(Result(s.sent, Verdict.NO_ANSWER, code="smpp.closed") for s in unanswered))

    def hear(self, *results: Result) -> None:
        self.instance._on_answers(results)

    async def kill(self) -> None:
        for work in self.works.values():
            await work.end()
        for submit in self.world.submits:
            if submit.process is self:
                submit.answered = True

    # The connection to the carrier.

    def _driver(self, _: object, __: Callbacks) -> Any:
        return self

    missing = None

    @property
    def free(self) -> int:
        return WINDOW - sum(s.process is self and not s.given_up and not s.answered for s in self.world.submits)

    def submit(self, submissions: Sequence[Submission]) -> None:
        self.world.submits += [Submit(self, each) for each in submissions]
