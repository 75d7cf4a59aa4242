"""What has passed its validity is not sent, and ends, with real Kafka, Postgres and a carrier."""

import pytest

from deploy.local.ports import free_port
from libs.contracts.statuses import Status
from services.dispatcher import instance
from services.dispatcher.attempts import Outcome
from services.dispatcher.ledger import Claim, ClaimVerdict, Ledger
from services.dispatcher.publications import OWN_REASONS
from tests.services.dispatcher.world import MakeWorld, all_told
from tests.waiting import until


async def test_an_expired_message_is_not_sent(world: MakeWorld):
    async with world() as w:
        w.start()
        event = w.event(valid_seconds=-5)
        await w.send(event)
        await w.until(all_told(w, [event], Status.EXPIRED))
        assert await w.carrier.accepted() == []


async def test_what_passes_its_validity_ends_while_the_gateway_is_away(
    world: MakeWorld, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(instance, "BIND_SECONDS", 0.1)
    async with world(port=free_port()) as w:
        w.start()
        event, valid = w.event(valid_seconds=1), w.event()
        await w.send(event, valid)
        await w.until(all_told(w, [event], Status.EXPIRED))
        assert w.words(valid.subject) == []


async def test_what_passes_its_validity_ends_before_its_turn_comes(world: MakeWorld):
    async with world(segments_per_second=1) as w:
        backlog = [w.event(f"{n}") for n in range(60)]
        event = w.event(valid_seconds=1)
        w.start()
        await w.send(*backlog, event)
        await w.until(all_told(w, [event], Status.EXPIRED))
        assert not all_told(w, backlog, Status.SUBMITTED)()


async def test_what_is_granted_and_then_passes_its_validity_is_not_sent_and_ends_once(
    world: MakeWorld, monkeypatch: pytest.MonkeyPatch
):
    async with world() as w:
        sending = w.start()
        before, after = w.event("before"), w.event("after")
        await w.send(before)
        await w.until(all_told(w, [before], Status.SUBMITTED))
        event, claim = w.event(valid_seconds=3), Ledger.claim

        async def slow_claim(ledger: Ledger, asked: Claim, age_seconds: float) -> list[ClaimVerdict]:
            verdicts = await claim(ledger, asked, age_seconds)
            if asked.asks[0].leg.event == event:
                await until(lambda: sending._lease.postgres_time >= event.data.message.valid_until)
            return verdicts

        monkeypatch.setattr(Ledger, "claim", slow_claim)
        await w.send(event)
        await w.until(all_told(w, [event], Status.EXPIRED))
        await w.send(after)
        await w.until(all_told(w, [after], Status.SUBMITTED))
        outcomes = "SELECT array_agg(outcome::text ORDER BY try) FROM attempts WHERE message_id = $1"
        assert await w.pool.fetchval(outcomes, event.subject) == ["N", "X"]
        assert [told.reason for told in w.statuses[event.subject]] == [OWN_REASONS[Outcome.EXPIRED]]
        assert len(await w.carrier.accepted()) == 2
