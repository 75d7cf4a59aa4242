import json
from functools import partial
from typing import Any

import pytest
from aiokafka.structs import TopicPartition

from libs.bus.codec import decoder_for, encode
from libs.bus.dead_letters import Record
from libs.bus.memory import MemoryBus
from libs.bus.poison import tell_history
from libs.contracts.events import Encoding, MessageEvent, Reason, SmsStatus
from libs.contracts.statuses import Status
from libs.storage.database import Pool
from services.resolver.deciding import Decision, Dispatch
from services.resolver.decisions import Coordinates, settle
from services.resolver.poison import end_leg
from services.resolver.publications import SOURCE, Cause
from tests.services.resolver.builders import NOW, PHONE, message, requested

read_status = decoder_for(MessageEvent[SmsStatus])
GOES_OUT = Dispatch(NOW, "demo", PHONE, None, None, Encoding.GSM7, 1)
REASON = Reason("undecodable", "Expected `str`, got `int` - at `$.data.message.text`")


async def told(pool: Pool, raw: bytes | None) -> list[MessageEvent[SmsStatus]]:
    bus = MemoryBus()
    record = Record(TopicPartition("sms.requested", 0), 7, b"acme/client/17", raw, (), None)
    end = partial(end_leg, pool=pool, now=lambda: NOW)
    await tell_history(record, REASON, source=SOURCE, publisher=bus.producer(), end_leg=end)
    return [read_status(r.value) for r in bus.records("sms.status")]


def damaged(cause: Cause, **message_fields: Any) -> bytes:
    event = json.loads(encode(cause))
    event["data"]["message"].update(message_fields)
    return json.dumps(event).encode()


def coordinates(cause: Cause) -> Coordinates:
    leg = cause.data.leg
    return Coordinates(leg.leg_at, cause.subject, leg.cycle, leg.leg)


async def test_a_message_that_can_be_named_ends_rejected_as_poison(pool: Pool):
    cause = requested(message())
    [event] = await told(pool, damaged(cause, text=5))
    assert (event.subject, event.time, event.traceparent) == (cause.subject, NOW, cause.traceparent)
    assert (event.data.status, event.data.part, event.data.leg) == (Status.REJECTED, 0, cause.data.leg)
    assert event.data.reason == Reason("poison", "its record could not be handled: undecodable")


async def test_told_again_it_is_the_same_event(pool: Pool):
    raw = damaged(requested(message()), text=5)
    assert await told(pool, raw) == await told(pool, raw)


async def test_the_end_is_a_decision_that_a_repaired_record_cannot_change(pool: Pool):
    cause = requested(message())
    [event] = await told(pool, damaged(cause, text=5))
    made: dict[Coordinates, Decision] = {coordinates(cause): GOES_OUT}
    [counts] = (await settle(pool, made)).values()
    assert counts == (NOW, Status.REJECTED, event.data.reason)


async def test_nothing_is_said_of_a_message_that_may_have_been_sent(pool: Pool):
    cause = requested(message())
    await settle(pool, {coordinates(cause): GOES_OUT})
    assert await told(pool, damaged(cause, text=5)) == []


@pytest.mark.parametrize("raw", [None, b"", b"\xff\xfe", b"{", b"[" * 10_000, b'{"subject": "no uuid"}', b"{}"])
async def test_nothing_is_said_of_what_cannot_be_named(pool: Pool, raw: bytes | None):
    assert await told(pool, raw) == []


async def test_a_name_that_no_event_may_carry_is_no_name(pool: Pool):
    nameless = damaged(requested(message()), recipient={"kind": "client", "id": "x" * 65})
    assert await told(pool, nameless) == []
    timeless = json.loads(damaged(requested(message()), text=5))
    timeless["data"]["leg"]["leg_at"] = "2026-11-21T08:30:15"
    assert await told(pool, json.dumps(timeless).encode()) == []
