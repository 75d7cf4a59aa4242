"""A simulated gateway: dispatcher processes, their topics, a carrier, the receipts service, and a resolver of what comes back.

A history is a list of steps, each chosen among all that may happen next. In the end everything is let run to rest.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import count
from types import SimpleNamespace
from typing import Any
from uuid import UUID

from libs.bus.codec import decoder_for
from libs.bus.port import Outgoing
from libs.contracts import topics
from libs.contracts.endings import whole_ending
from libs.contracts.events import (
    CommandKind,
    Encoding,
    Event,
    GatewayReceipt,
    Leg,
    Message,
    MessageEvent,
    PersonKind,
    Priority,
    Reason,
    ReceiptState,
    Recipient,
    SmsCommand,
    SmsDeferred,
    SmsDispatch,
    SmsReturned,
    SmsStatus,
    event_id,
)
from libs.contracts.fold import AnyMessageEvent, apply, new_fold, view
from libs.contracts.message_view import MessageView
from libs.contracts.statuses import RANK, Status
from libs.service_kit.config_file import SmppGateway
from libs.storage.database import Pool
from services.dispatcher import marks
from services.dispatcher.attempts import LegKey
from services.dispatcher.drivers.port import Result, Verdict
from tests.services.dispatcher.builders import GATEWAY
from tests.services.dispatcher.simulation.process import Process, Submit
from tests.services.dispatcher.simulation.receipts import Receipts
from tests.services.dispatcher.simulation.topic import Topic
from tests.services.dispatcher.simulation.work import Work

START = datetime(2026, 1, 5, tzinfo=UTC)
PERSON = Recipient(PersonKind.CLIENT, "1")
PHONE = "+254711000001"
FATES = (Verdict.ACCEPTED, Verdict.ACCEPTED, Verdict.TEMPORARY, Verdict.FAILED, Verdict.THROTTLED)
REPORTS = (ReceiptState.DELIVERED, ReceiptState.DELIVERED, ReceiptState.UNDELIVERABLE, ReceiptState.ENROUTE)
MOST_REPORTS = 2
"""Of one submit."""
DOUBTFUL = (Status.IN_DOUBT, Status.UNKNOWN)
TEXTS = ("hello", "hello", "x" * 200)
VALID_SECONDS = (3600.0, 3600.0, 15.0)
BUDGET = Counter(
    kill=2,
    freeze=1,
    move=2,
    take=1,
    reset=1,
    cancel=1,
    changed=1,
    resend=1,
    word=1,
    lost=2,
    drop=1,
    late=2,
    again=1,
    unsaid=1,
)
"""How often each of these may befall a history."""

histories = count(1)
_DECODERS = {
    topics.STATUS.name: decoder_for(MessageEvent[SmsStatus]),
    **{topics.returned(p).name: decoder_for(MessageEvent[SmsReturned]) for p in Priority},
    **{topics.deferred(p).name: decoder_for(MessageEvent[SmsDeferred]) for p in Priority},
}

Choose = Callable[[int], int]
"""A number from 0 to below the given one."""


class World:
    """See the top of this file. `choose` decides all that is left open."""

    def __init__(self, pool: Pool, receipts_pool: Pool, choose: Choose) -> None:
        self.pool = pool
        self.choose = choose
        self.history = next(histories)
        self.story: list[str] = []
        self.gateway = SmppGateway.model_validate(
            {"id": GATEWAY, "type": "smpp", "host": "h", "port": 1, "system_id": "s", "tries": 2}
            | {"in_doubt": ("hold", "resend_once")[choose(2)], "segments_per_second": (0, 20)[choose(2)]}
        )
        self.now = 1000.0
        self.left = Counter(BUDGET)
        self.running = Work()
        self.processes: list[Process] = []
        self.names = count(1)
        self.priorities = (Priority.NORMAL, Priority.HIGH)[: 1 + choose(2)]
        self.topics = [Topic(topics.dispatch(GATEWAY, priority).name) for priority in self.priorities]
        self.submits: list[Submit] = []
        self.messages: list[Message] = []
        self.ids: list[UUID] = []
        self.door: list[MessageEvent[SmsReturned] | MessageEvent[SmsDeferred]] = []
        self.decided: dict[LegKey, MessageEvent[SmsDispatch] | None] = {}
        self.cancelled: set[tuple[UUID, int]] = set()
        self.commands: list[MessageEvent[SmsCommand]] = []
        self.cycles: dict[UUID, int] = {}
        self.said: dict[UUID, set[Status]] = {}
        """What operators said became of a message."""
        self.repeats_references = choose(2) == 0
        """Whether the carrier's receipts repeat the reference of the submit."""
        self.receipts = Receipts(receipts_pool, self.note)
        self.events: dict[UUID, list[AnyMessageEvent]] = {}
        self.records: list[Outgoing] = []

    @property
    def wall(self) -> datetime:
        return self.at(self.now)

    def at(self, now: float) -> datetime:
        return START + timedelta(seconds=now)

    # Kafka and what is behind it

    def told(self, outgoing: Outgoing) -> None:
        """A record of a dispatcher is in Kafka."""
        self.records.append(outgoing)
        event: Any = _DECODERS[outgoing.topic](outgoing.value)
        self.note(event)
        if isinstance(event.data, SmsStatus):
            self.receipts.hear(topics.STATUS, event)
        else:
            self.door.append(event)

    def note(self, event: AnyMessageEvent) -> None:
        self.events.setdefault(event.subject, []).append(event)

    def shown(self, message_id: UUID) -> MessageView:
        fold = new_fold(self.events[message_id][0])
        for event in self.events[message_id]:
            apply(fold, event)
        return view(fold)

    def arrive(self) -> None:
        number = len(self.messages) + 1
        # Ids that no history had before; what is made of their last bits is the same in each.
        # They are so far apart that no two attempts have one reference.
        message_id = UUID(int=(self.history << 64) + number * 1000)
        text, valid = TEXTS[self.choose(len(TEXTS))], VALID_SECONDS[self.choose(len(VALID_SECONDS))]
        message = Message(
            tenant="bank",
            recipient=PERSON,
            number=number,
            text=text,
            accepted_at=self.wall,
            valid_until=self.wall + timedelta(seconds=valid),
            priority=self.priorities[self.choose(len(self.priorities))],
        )
        self.messages.append(message)
        self.ids.append(message_id)
        self.cycles[message_id] = 1
        self._dispatch(message_id, message, Leg(1, 1, self.wall))

    def _dispatch(self, message_id: UUID, message: Message, leg: Leg) -> None:
        event = MessageEvent(
            id=event_id(SmsDispatch.TYPE, message_id, leg.cycle, leg.leg),
            type=SmsDispatch.TYPE,
            source="simulation",
            time=self.wall,
            subject=message_id,
            data=SmsDispatch(
                message=message,
                leg=leg,
                gateway=GATEWAY,
                phone=PHONE,
                person_name=None,
                source_address="BANK",
                encoding=Encoding.GSM7,
                segments=1 if len(message.text) < 160 else 2,
                decided_at=self.wall,
            ),
        )
        self.decided[LegKey(message_id, leg.cycle, leg.leg)] = event
        self._produce(event)
        self.note(event)

    def _produce(self, event: MessageEvent[SmsDispatch]) -> None:
        self.topics[self.priorities.index(event.data.message.priority)].log.append(event)

    def resolve(self) -> None:
        """What the resolver does with what came back: it decides once a leg."""
        event = self.door.pop(0)
        message, leg = event.data.message, event.data.leg
        key = LegKey(event.subject, leg.cycle, leg.leg)
        if key in self.decided:
            if (known := self.decided[key]) is not None:
                self._produce(known)
            return
        cancelled = (key.message_id, key.cycle) in self.cancelled
        if not cancelled and self.wall < message.valid_until:
            self._dispatch(event.subject, message, leg)
            return
        self.decided[key] = None
        status = Status.CANCELLED if cancelled else Status.EXPIRED
        reason = Reason("why", "why")
        self.note(
            whole_ending(
                key.message_id, "bank", PERSON, leg, status, reason, at=self.wall, source="simulation", traceparent=None
            )
        )

    # Commands

    def command(self, message_id: UUID, kind: CommandKind) -> None:
        cycle = self.cycles[message_id]
        event = MessageEvent(
            id=event_id(SmsCommand.TYPE, message_id, cycle, kind),
            type=SmsCommand.TYPE,
            source="simulation",
            time=self.wall,
            subject=message_id,
            data=SmsCommand(tenant="bank", recipient=PERSON, kind=kind, cycle=cycle, asked_at=self.wall),
        )
        self.note(event)
        self.commands += [event, event]

    async def mark(self) -> None:
        """A command is heard by the dispatchers, or by the resolver."""
        event = self.commands.pop(self.choose(len(self.commands)))
        if event in self.commands:
            batch: Any = [SimpleNamespace(event=event)]
            await marks.mark(batch, self.pool)
        elif event.data.kind is CommandKind.CANCEL:
            self.cancelled.add((event.subject, event.data.cycle))

    def resend(self, message_id: UUID) -> None:
        self.cycles[message_id] += 1
        message = replace(self.messages[self.ids.index(message_id)], valid_until=self.wall + timedelta(hours=1))
        self._dispatch(message_id, message, Leg(self.cycles[message_id], 1, self.wall))

    def say(self, message_id: UUID, status: Status) -> None:
        """An operator says of a doubt what became of it."""
        self.said.setdefault(message_id, set()).add(status)
        self.command(message_id, CommandKind.CANCEL)
        shown = self.shown(message_id)
        furthest: dict[Leg, Status] = {}
        for event in self.events[message_id]:
            if isinstance(event.data, SmsStatus) and event.data.leg.cycle == shown.cycle:
                leg, told = event.data.leg, event.data.status
                furthest[leg] = max(told, furthest.get(leg, told), key=RANK.__getitem__)
        for leg in sorted(furthest, key=lambda leg: leg.leg):
            if leg.leg == shown.leg or (status is Status.FAILED and furthest[leg] in DOUBTFUL):
                word = Reason("operator", "said so")
                ending = partial(whole_ending, message_id, "bank", PERSON, leg, status, word)
                self.note(ending(at=self.wall, source="simulation", traceparent=None))

    # The carrier

    def decide(self, submit: Submit, fate: Verdict) -> None:
        submit.fate = fate
        if fate is Verdict.ACCEPTED:
            submit.provider_id = f"id-{self.submits.index(submit)}"

    def answer(self, submit: Submit) -> None:
        submit.answered = True
        assert submit.fate is not None
        submit.process.hear(Result(submit.sent, submit.fate, submit.provider_id, "smpp.x", "words"))

    def give_up(self, submit: Submit) -> None:
        submit.given_up = True
        submit.process.hear(Result(submit.sent, Verdict.NO_ANSWER, code="smpp.timed_out"))

    def report(self, submit: Submit, state: ReceiptState) -> None:
        """The carrier reports of what it took; a dispatcher publishes that as it comes."""
        assert submit.provider_id is not None
        reference = submit.submission.attempt_reference if self.repeats_references else None
        number = len(submit.reported)
        submit.reported.append(state)
        self.receipts.hear(
            topics.RECEIPTS,
            Event(
                id=submit.receipt_id(number),
                type=GatewayReceipt.TYPE,
                source="simulation",
                time=self.wall,
                subject=f"{GATEWAY}/{submit.provider_id}",
                data=GatewayReceipt(
                    gateway=GATEWAY,
                    provider_id=submit.provider_id,
                    state=state,
                    destination=PHONE.lstrip("+"),
                    observed_at=self.wall,
                    reference=reference,
                ),
            ),
        )

    # Time

    async def pass_time(self, seconds: float) -> None:
        """Every process that runs renews its lease and looks at the others."""
        until, running = self.now + seconds, [p for p in self.processes if not p.frozen]
        while timely := [p for p in running if p.next_timer <= until]:
            first = min(timely, key=lambda p: p.next_timer)
            self.now = max(self.now, first.next_timer)
            first.fire()
        self.now = until
        await self.pool.execute("UPDATE simulated.clock SET now = $1", self.wall)
        for process in running:
            if not process.closed:
                await process.do(process.lease.beat)
