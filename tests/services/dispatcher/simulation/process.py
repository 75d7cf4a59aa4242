"""A dispatcher's process in a simulation: the real parts of an instance, which go on only when they are told to.

They stop wherever they wait for PostgreSQL or Kafka. There a process may be killed, held up for as long as one likes, or lose the answer.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from itertools import count
from types import SimpleNamespace
from typing import Any, Protocol, cast
from uuid import UUID

from libs.bus.port import Outgoing
from libs.contracts.events import Priority, ReceiptState
from libs.service_kit.config_file import SmppGateway
from libs.storage.database import Pool
from services.dispatcher.drivers.port import Callbacks, Result, Submission, Verdict
from services.dispatcher.instance import Instance
from services.dispatcher.ledger import Claim, ClaimVerdict
from services.dispatcher.sender import Sent
from services.dispatcher.settings import DispatcherSettings
from tests.services.dispatcher.simulation.topic import Intake, Topic
from tests.services.dispatcher.simulation.work import Wire, Work, freely

LEASE_SECONDS = 5.0
WINDOW = 10
AT_FAULT = 2
"""After so many messages in a row that it refuses for now, or leaves unanswered, the gateway is held to be at fault."""


@dataclass(eq=False)
class Submit:
    """What was written to the carrier: `fate` is what it made of it, once it has."""

    process: Process
    submission: Submission
    at: float
    """By the world's clock (seconds)."""
    fate: Verdict | None = None
    provider_id: str | None = None
    given_up: bool = False
    """The process waits no longer for the answer."""
    answered: bool = False
    """The answer came, or never will."""
    checked: bool = False
    reported: list[ReceiptState] = field(default_factory=list)
    """What receipts have said of it."""

    @property
    def sent(self) -> Sent:
        return cast(Sent, self.submission.token)

    @property
    def place(self) -> tuple[UUID, int, int, int, int]:
        """Of its attempt: message, cycle, leg, part, try."""
        return (*self.sent.leg.key, self.sent.attempt.part, self.sent.attempt.try_number)

    def receipt_id(self, number: int) -> str:
        """Of its first, its second receipt (0, 1): that of the event."""
        return f"{self.provider_id}.{number}"


class Outside(Protocol):
    """What a process finds around itself."""

    pool: Pool
    gateway: SmppGateway
    now: float
    running: Work
    submits: list[Submit]
    topics: list[Topic]

    @property
    def wall(self) -> datetime: ...

    def told(self, outgoing: Outgoing) -> None: ...


@dataclass(eq=False)
class Process:
    """One start of a dispatcher's process."""

    world: Outside
    name: str
    frozen: bool = False
    closed: bool = False
    works: dict[str, Work] = field(default_factory=lambda: {name: Work() for name in ("lease", "sender", "settler")})

    def __post_init__(self) -> None:
        world = self.world
        self.intakes = [Intake(self, topic) for topic in world.topics]
        self._failing: set[UUID] = set()
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
        parts._intakes = {intake.topic.name: intake for intake in self.intakes}
        self.sender._ledger = self

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

    # What the sender has for the ledger.

    async def claim(self, claim: Claim, age_seconds: float) -> list[ClaimVerdict]:
        if not claim.repeated:
            self._asks_in_order(claim)
        return await self.instance._ledger.claim(claim, age_seconds)

    def _asks_in_order(self, claim: Claim) -> None:
        asked = [a.leg.event.data.message for a in claim.asks]
        valid = [message for message in asked if message.valid_until > self.world.wall]  # the others only end
        if any(message.priority is Priority.NORMAL for message in valid):
            assert not self.board.urgent, "high priority goes first"
        if valid and self.sender._throttle.active:
            assert not self.sender._throttle.wait(self.time()), "nothing is asked for during a pause"
            assert len(valid) == 1 and self.free == WINDOW, "who was refused asks with one part at a time"

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
        refused = [self._is_refusal(result) for result in results]
        self.instance._on_answers(results)
        assert not any(refused) or self.sender._throttle.wait(self.time()), "who is refused pauses"

    def _is_refusal(self, result: Result) -> bool:
        """Whether it says that the gateway takes nothing now."""
        if result.verdict in (Verdict.ACCEPTED, Verdict.FAILED):
            self._failing.clear()
        elif result.verdict in (Verdict.TEMPORARY, Verdict.NO_ANSWER):
            self._failing.add(cast(Sent, result.token).leg.key.message_id)
        return result.verdict is Verdict.THROTTLED or (
            result.verdict in (Verdict.TEMPORARY, Verdict.NO_ANSWER) and len(self._failing) >= AT_FAULT
        )

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
        self.world.submits += [Submit(self, each, self.time()) for each in submissions]
