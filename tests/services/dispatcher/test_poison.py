"""What the history says of a dispatch that went to the dead letters."""

from functools import partial
from uuid import uuid4

from aiokafka import TopicPartition

from libs.bus.codec import encode
from libs.bus.poison import tell_history
from libs.bus.record import Record
from libs.contracts.events import Reason
from libs.contracts.statuses import Status
from services.dispatcher.ledger import Ledger
from services.dispatcher.poison import end_leg
from services.dispatcher.publications import SOURCE
from tests.services.dispatcher.world import MakeWorld, all_told


async def test_what_went_to_the_dead_letters_ends_as_one_and_the_same_event_unless_it_was_claimed(world: MakeWorld):
    async with world() as w:
        w.start()
        end = partial(end_leg, ledger=Ledger(w.pool, w.gateway.id, uuid4(), interval_us=0))
        event, claimed = w.event("dead"), w.event("claimed")
        await w.send(claimed)
        await w.until(all_told(w, [claimed], Status.SUBMITTED))
        reason = Reason("handler-error", "a fault")
        for each in (event, event, claimed):
            record = Record(TopicPartition("t", 0), 0, None, encode(each), (), None)
            await tell_history(record, reason, source=SOURCE, publisher=w.producer, end_leg=end)
        await w.until(lambda: len(w.words(event.subject)) == 2)
        first, second = w.statuses[event.subject]
        assert first == second and first.status is Status.REJECTED
        assert w.words(claimed.subject) == ["submitted"]
        await w.send(event)  # it can be handled after all
        await w.until(lambda: len(w.words(event.subject)) == 3)
        assert w.words(event.subject)[-1] == "failed"
        assert len(await w.carrier.accepted()) == 1


async def test_a_name_that_no_event_may_carry_is_no_name_and_ends_nothing(world: MakeWorld):
    async with world() as w:
        end, nameless = (
            partial(end_leg, ledger=Ledger(w.pool, w.gateway.id, uuid4(), interval_us=0)),
            w.event("nameless"),
        )
        object.__setattr__(nameless.data.message.recipient, "id", "x" * 65)
        record = Record(TopicPartition("t", 0), 0, None, encode(nameless), (), None)
        reason = Reason("invalid", "an id that is too long")
        await tell_history(record, reason, source=SOURCE, publisher=w.producer, end_leg=end)
        assert await w.pool.fetchval("SELECT count(*) FROM attempts WHERE message_id = $1", nameless.subject) == 0
