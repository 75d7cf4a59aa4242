"""Leases and bind slots on a real Postgres. Their clock, and how long Postgres takes to answer, are the tests'."""

import asyncio
from typing import Any
from uuid import UUID

import pytest

from libs.storage.database import Pool
from services.dispatcher.lease import GRACE_SECONDS, Lease
from tests.services.dispatcher.builders import GATEWAY
from tests.waiting import until

SECONDS = 5.0


class Ground:
    """Leases that go by `now`. What Postgres is asked takes `answer_seconds`, or fails by one of `faults`."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self.now = 1000.0
        self.answer_seconds = 0.0
        self.faults = list[Exception]()

    def acquire(self) -> Any:
        self.now += self.answer_seconds
        return self._pool.acquire()

    async def fetchval(self, *asked: Any) -> Any:
        if self.faults:
            raise self.faults.pop()
        self.now += self.answer_seconds
        return await self._pool.fetchval(*asked)

    async def fetch(self, *asked: Any) -> Any:
        return await self._pool.fetch(*asked)

    async def execute(self, *asked: Any) -> str:
        return await self._pool.execute(*asked)

    async def lease(self, seconds: float = SECONDS, gateway: str = GATEWAY) -> Lease:
        pool: Any = self
        made = Lease(pool, gateway, seconds)
        made._clock = lambda: self.now
        await made.register()
        return made

    async def dead(self) -> list[UUID]:
        return [row["instance"] for row in await self._pool.fetch("SELECT instance FROM instances WHERE dead")]


@pytest.fixture
def ground(pool: Pool) -> Ground:
    return Ground(pool)


async def test_one_slot_is_held_by_one_and_passes_on_when_its_holder_is_dead(ground: Ground):
    first, second = await ground.lease(), await ground.lease()
    assert await first.take_slot(1) == 1
    assert await first.take_slot(1) == 1, "the answer was lost"
    assert await second.take_slot(1) is None
    await first.release()
    assert await second.take_slot(1) == 1


async def test_a_holder_whose_answer_was_lost_is_told_its_slot_also_when_an_earlier_one_is_free(ground: Ground):
    first, second = await ground.lease(), await ground.lease()
    assert (await first.take_slot(2), await second.take_slot(2)) == (1, 2)
    await first.release()
    assert await second.take_slot(2) == 2


async def test_a_lease_counts_from_before_it_was_asked_for_and_ends_when_it_is_given_back(ground: Ground):
    ground.answer_seconds = 3
    lease = await ground.lease()
    ground.now = 1000 + SECONDS - 0.1
    assert lease.valid
    ground.now += 0.1
    assert not lease.valid
    ground.answer_seconds = 0
    another = await ground.lease()
    await another.release()
    assert not another.valid


async def test_a_renewal_counts_from_before_it_was_sent(ground: Ground):
    lease = await ground.lease()
    ground.now += 1
    ground.answer_seconds = 2
    await lease.beat()
    ground.now = 1001 + SECONDS - 0.1
    assert lease.valid
    ground.now += 0.1
    assert not lease.valid


async def test_an_answer_that_comes_when_the_lease_is_over_renews_nothing(ground: Ground):
    lease = await ground.lease()
    ground.now += SECONDS
    lease.renewed(ground.now - 1)
    assert not lease.valid


async def test_a_renewal_that_fails_while_postgres_is_away_is_sent_again(ground: Ground):
    lease = await ground.lease(seconds=0.5)  # so that it is sent again soon
    ground.now += 0.25
    ground.faults = [ConnectionRefusedError()]
    beating = asyncio.create_task(lease.keep())
    try:
        await until(lambda: not ground.faults)
        ground.now += 0.25 - 0.01
        await until(lambda: lease._valid_until > 1000.5 or beating.done())
        assert not beating.done()
    finally:
        beating.cancel()


async def test_a_peer_whose_beat_stands_still_is_marked_dead_and_one_that_beats_is_not(ground: Ground):
    watcher, silent, lively = [await ground.lease() for _ in range(3)]
    await watcher.beat()
    ground.now += SECONDS + GRACE_SECONDS - 0.1
    await lively.beat()
    await watcher.beat()
    assert await ground.dead() == [], "its holder gets the time to unbind"
    ground.now += 0.1
    await watcher.beat()
    assert await ground.dead() == [silent.instance]
    await silent.beat()
    assert not silent.valid, "a lapsed lease is never renewed"


async def test_a_peer_is_judged_by_the_length_of_its_own_lease_and_by_ours_if_it_has_told_none(
    ground: Ground, pool: Pool
):
    watcher, _, older_release = await ground.lease(), await ground.lease(60), await ground.lease(60)
    await pool.execute("UPDATE instances SET lease_seconds = NULL WHERE instance = $1", older_release.instance)
    await watcher.beat()
    ground.now += SECONDS + GRACE_SECONDS
    await watcher.beat()
    assert await ground.dead() == [older_release.instance]


async def test_who_has_died_long_ago_is_forgotten_and_who_has_lived_for_long_is_not(ground: Ground, pool: Pool):
    old, dead = await ground.lease(), await ground.lease()
    await dead.release()
    await pool.execute("UPDATE instances SET started_at = now() - interval '2 days'")
    await ground.lease()
    known = await pool.fetch("SELECT instance FROM instances")
    assert old.instance in {row["instance"] for row in known} and len(known) == 2


async def test_only_the_living_of_the_same_gateway_are_peers_to_give_way_to(ground: Ground):
    watcher = await ground.lease()
    for gateway in ("another", GATEWAY):
        other = await ground.lease(gateway=gateway)
        other.bound = True
        await other.beat()
    await other.release()
    for _ in range(2):
        await watcher.beat()
        ground.now += 1
    assert (watcher.peer_stands_by, watcher.peer_bound_seconds) == (False, 0)
    peer = await ground.lease()
    peer.bound = True
    await peer.beat()
    await watcher.beat()
    ground.now += 1
    assert (watcher.peer_stands_by, watcher.peer_bound_seconds) == (True, 1)
    await peer.take_slot(1)
    await watcher.beat()
    assert not watcher.peer_stands_by
