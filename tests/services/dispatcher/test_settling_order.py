"""What an answer means is stored, then told, then done with; what is under way elsewhere is waited for. No Kafka, no Postgres."""

import asyncio
import json
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import pytest
from msgspec import structs

from libs.bus.port import Outgoing
from libs.bus.record import Record
from libs.contracts import topics
from libs.contracts.without_receipt import NOT_ASKED
from libs.service_kit.config_file import SmppGateway
from libs.service_kit.metrics import SETTLED
from services.dispatcher import settler
from services.dispatcher.attempts import Attempt, LegKey, LegState, Outcome
from services.dispatcher.attempts import word_of as word_of_outcome
from services.dispatcher.board import Board
from services.dispatcher.drivers.port import Result, Verdict
from services.dispatcher.ledger import LateEvent, Settled
from services.dispatcher.sender import Sent
from services.dispatcher.settler import Settler
from tests.services.dispatcher.builders import GATEWAY, dispatch_event, record_of
from tests.waiting import until

ACCEPTED = Attempt(1, 1, uuid4(), Outcome.ACCEPTED, observed_at=datetime.now(UTC))
LATE = LateEvent(1, Outgoing("late", b"k", b"v"))


def word_of(told: Outgoing) -> str:
    return json.loads(told.value or b"")["data"]["status"] if told.topic == topics.STATUS.name else told.topic


class Ground:
    """A settler with one leg in hand. `happened` says what was done, and the statuses, or else topics, of what was told."""

    def __init__(self, text: str = "hello", **gateway: object) -> None:
        given = {"id": GATEWAY, "type": "smpp", "host": "h", "port": 1, "system_id": "s"} | gateway
        self.happened: list[str | list[str]] = []
        self.row: Attempt | None = None
        """What is stored already in place of the answer."""
        self.late = [LATE]
        self.deferral: Attempt | None = None
        self.opening: tuple[bool, bool] | None = None
        self.orphaned = [LATE]
        self.may_store = asyncio.Event()
        self.may_store.set()
        self.stored: list[Attempt] = []
        self.woken_after = 0
        """How much had happened when the sender was woken."""
        self.settled: list[Attempt] = []
        """Of the answers, as they are to be stored."""
        self.board = Board()
        event = dispatch_event(text)
        self.board.add(event, record_of(event))
        self.leg = self.board.take(9)[0].leg
        self.leg.attempts = [Attempt(part, 1, uuid4(), ours=True) for part in range(1, self.leg.parts + 1)]
        ground: Any = self
        configured = SmppGateway.model_validate(given)
        self.settler = Settler(configured, ground, self.board, ground, self._done, self._wake)

    def _wake(self) -> None:
        self.woken_after = len(self.happened)

    def _done(self, _: Sequence[Record]) -> None:
        self.happened.append("done")

    async def settle(self, settled: Sequence[Settled]) -> list[Settled]:
        await self.may_store.wait()
        self.happened.append("stored")
        self.settled += [one.attempt for one in settled]
        return list(settled) if self.row else []

    async def settle_late(
        self, settled: Settled, may_open_leg: bool, doubt_opens_leg: bool, _: object
    ) -> tuple[Attempt, list[LateEvent]]:
        self.happened.append("stored late")
        self.opening = may_open_leg, doubt_opens_leg
        assert self.row
        return self.row, self.late

    async def publish_many(self, outgoing: Sequence[Outgoing]) -> None:
        self.happened.append([word_of(each) for each in outgoing])

    async def defer(self, *_: object) -> Attempt | None:
        self.happened.append("deferred")
        return self.deferral

    async def forget_events(self, events: Sequence[LateEvent]) -> None:
        self.happened.append("forgotten")

    async def orphaned_events(self, _: int) -> list[LateEvent]:
        events, self.orphaned = self.orphaned, []
        return events

    async def read(self, legs: Sequence[LegState]) -> dict[LegKey, list[Attempt]]:
        self.happened.append("read")
        return {leg.key: [structs.replace(attempt) for attempt in self.stored] for leg in legs}

    async def answer(self, *verdicts: Verdict) -> None:
        """The carrier's words for the parts, and all that follows from them."""
        tokens = [Sent(self.leg, attempt, 0.0) for attempt in self.leg.attempts]
        self.settler.take([Result(*each) for each in zip(tokens, verdicts, strict=True)])
        await self.settler._round()


async def test_an_outcome_is_stored_then_told_and_only_then_its_record_is_done():
    ground = Ground()
    await ground.answer(Verdict.ACCEPTED)
    assert ground.happened == ["stored", ["submitted"], "done"]
    assert ground.woken_after == 3, "there may be more to claim"


@pytest.mark.parametrize(
    ("verdict", "receipts", "code"),
    [
        (Verdict.ACCEPTED, "each", None),
        (Verdict.ACCEPTED, "none", NOT_ASKED.code),
        (Verdict.FAILED, "none", "smpp.ESME_RINVDSTADR"),
    ],
)
async def test_the_carriers_words_are_stored_and_where_no_receipt_was_asked_for_that(
    verdict: Verdict, receipts: str, code: str | None
):
    ground = Ground(receipts=receipts)
    counted = SETTLED.labels(GATEWAY, word_of_outcome(settler.OUTCOMES[verdict]))
    before = counted._value.get()
    said = "smpp.ESME_RINVDSTADR" if verdict is Verdict.FAILED else None
    ground.settler.take([Result(Sent(ground.leg, ground.leg.attempts[0], 0.0), verdict, "id", said, "words")])
    await ground.settler._round()
    (stored,) = ground.settled
    assert (stored.provider_id, stored.reason_code) == ("id", code)
    assert stored.reason_words == (NOT_ASKED.words if code == NOT_ASKED.code else "words")
    assert counted._value.get() == before + 1


async def test_a_late_event_is_told_once_and_forgotten_when_it_is_told():
    ground = Ground()
    ground.row = ACCEPTED
    await ground.answer(Verdict.ACCEPTED)
    assert ground.happened == ["stored", "stored late", ["late"], "forgotten", "done"]


async def test_what_was_stored_before_stands_and_is_what_is_told():
    ground = Ground()
    ground.row, ground.late = ACCEPTED, []
    await ground.answer(Verdict.FAILED)
    assert ground.happened == ["stored", "stored late", ["submitted"], "done"]


@pytest.mark.parametrize(
    ("in_doubt", "text", "opening"),
    [
        ("hold", "hello", (True, False)),
        ("resend_once", "hello", (False, True)),
        ("resend_once", "x" * 200, (True, False)),
    ],
)
async def test_the_next_leg_is_opened_by_doubt_or_by_its_refutation_and_never_by_both(
    in_doubt: str, text: str, opening: tuple[bool, bool]
):
    ground = Ground(text, in_doubt=in_doubt)
    ground.row = ACCEPTED
    await ground.answer(*[Verdict.TEMPORARY] * ground.leg.parts)
    assert ground.opening == opening


async def test_a_late_event_of_one_that_is_gone_is_told_and_then_forgotten():
    ground = Ground()
    await ground.settler.publish_orphans()
    assert ground.happened == [["late"], "forgotten"]


async def test_a_leg_of_which_another_instance_has_a_part_under_way_is_looked_at_until_its_outcome_is_known(
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setattr(settler, "LOOK_AGAIN_SECONDS", 0.01)
    ground = Ground("x" * 200)
    ground.leg.attempts = []
    ground.stored = [ACCEPTED, Attempt(2, 1, uuid4())]
    ground.settler.look([ground.leg])
    running = asyncio.create_task(ground.settler.run())
    await until(lambda: ground.happened.count("read") == 2)
    assert set(map(str, ground.happened)) == {"read"}
    ground.stored = [ACCEPTED, structs.replace(ACCEPTED, part=2)]
    await until(lambda: "done" in ground.happened)
    running.cancel()
    assert ground.happened[-3:] == ["read", ["submitted"] * 2, "done"]
    assert ground.happened.count("done") == 1


async def test_a_part_that_was_refused_for_now_waits_before_it_is_tried_again_and_one_that_was_not_sent_does_not():
    ground, now = Ground("x" * 200), asyncio.get_running_loop().time()
    await ground.answer(Verdict.ACCEPTED, Verdict.TEMPORARY)
    assert ground.board.take(9) == []
    moment = ground.board.next_moment(now)
    assert moment is not None and moment >= now + settler.RETRY_FIRST_SECONDS / 2
    ground = Ground("x" * 200)
    await ground.answer(Verdict.ACCEPTED, Verdict.NOT_SENT)
    assert [(ask.part, ask.try_number) for ask in ground.board.take(9)] == [(2, 2)]


async def test_a_part_waits_twice_as_long_after_each_refusal_but_never_more_than_a_minute():
    for refusals, longest in ((1, 1), (2, 2), (4, 8), (9, 60)):
        ground = Ground("x" * 200, tries=100)
        known, other = ground.leg.attempts
        refused = [structs.replace(known, try_number=n, outcome=Outcome.TEMPORARY) for n in range(1, refusals + 1)]
        ground.leg.attempts = [other, *refused]
        before = asyncio.get_running_loop().time()
        ground.settler._next(ground.leg)
        after, moment = asyncio.get_running_loop().time(), ground.board.next_moment(before)
        assert moment is not None and before + longest / 2 <= moment <= after + longest


async def test_an_answer_is_that_of_its_own_try_alone():
    ground = Ground("x" * 200)
    first, other = ground.leg.attempts
    second = structs.replace(first, try_number=2)
    ground.leg.attempts = [structs.replace(first, outcome=Outcome.TEMPORARY), other, second]
    ground.settler.take([Result(Sent(ground.leg, second, 0.0), Verdict.NOT_SENT)])
    await ground.settler._round()
    assert [attempt.outcome for attempt in ground.leg.attempts] == [Outcome.TEMPORARY, None, Outcome.NOT_SENT]


@pytest.mark.parametrize(("text", "told"), [("hello", ["in_doubt", "sms.returned"]), ("x" * 200, ["in_doubt"] * 2)])
async def test_doubt_is_sent_once_more_only_where_the_message_has_one_part(text: str, told: list[str]):
    ground = Ground(text, in_doubt="resend_once")
    await ground.answer(*[Verdict.NO_ANSWER] * ground.leg.parts)
    assert told in ground.happened


async def test_a_message_of_which_all_parts_are_refused_for_now_is_done_here_when_its_deferral_is_stored_and_told():
    ground = Ground("x" * 200)
    ground.deferral = structs.replace(ACCEPTED, try_number=2, outcome=Outcome.DEFERRED)
    await ground.answer(Verdict.TEMPORARY, Verdict.TEMPORARY)
    assert ground.happened == ["stored", "deferred", ["sms.deferred"], "done"]


async def test_a_message_of_which_more_is_stored_than_is_known_here_is_not_deferred():
    ground = Ground("x" * 200)
    await ground.answer(Verdict.TEMPORARY, Verdict.TEMPORARY)
    assert ground.happened == ["stored", "deferred"]


async def test_a_part_that_was_not_sent_is_tried_again_while_the_other_waits_for_its_answer():
    ground = Ground("x" * 200)
    ground.settler.take([Result(Sent(ground.leg, ground.leg.attempts[0], 0.0), Verdict.NOT_SENT)])
    await ground.settler._round()
    assert [(ask.part, ask.try_number) for ask in ground.board.take(9)] == [(1, 2)]


async def test_what_it_has_under_way_itself_is_not_waited_for_as_if_it_were_elsewhere():
    ground = Ground("x" * 200)
    ours, other = ground.leg.attempts
    ground.leg.attempts = [ours]
    ground.stored = [
        structs.replace(ours, ours=False),
        structs.replace(other, ours=False, outcome=Outcome.NOT_SENT, observed_at=datetime.now(UTC)),
    ]
    ground.settler.look([ground.leg])
    await ground.settler._round()
    assert [(ask.part, ask.try_number) for ask in ground.board.take(9)] == [(2, 2)]


async def test_it_is_idle_when_what_it_has_taken_is_stored_and_what_it_was_to_look_at_is_read():
    ground = Ground()
    ground.may_store.clear()
    running = asyncio.create_task(ground.settler.run())
    ground.settler.take([Result(Sent(ground.leg, ground.leg.attempts[0], 0.0), Verdict.ACCEPTED)])
    assert not ground.settler.idle
    await until(lambda: not ground.settler._results)
    assert not ground.settler.idle, "it is being stored"
    ground.may_store.set()
    await until(lambda: ground.settler.idle)
    assert ground.happened[-1] == "done"
    ground.settler.look([ground.leg])
    assert not ground.settler.idle
    await until(lambda: ground.settler.idle)
    running.cancel()
