"""What the provider allows holds whoever comes, goes, is killed or stands still: its rate, its binds, and each message once."""

import asyncio
import time
from bisect import bisect_left
from collections.abc import Collection, Iterable, Mapping

import asyncpg
import pytest

from deploy.local.stack import Stack
from deploy.local.supervisor import SupervisedProcess
from services.simulated_carrier.ledger import LedgerEntry
from tests.end_to_end.client import Api, Carrier, Json, bound, metric
from tests.end_to_end.conftest import Reconfigure
from tests.end_to_end.feeder import feeding
from tests.kafka_groups import groups_of
from tests.waiting import until

CLIENTS = {f"rate-{n}": f"+2547333{n:05}" for n in range(30)}
ALL = list(CLIENTS)
ONE = ALL[:1]
"""All traffic to one person lies in one partition: one replica has all of it, the others nothing."""

RATE = 50
SECOND = 1_000_000
STEADY_SECONDS = 4
WINDOW = 20
"""So much may be on its way, and so much in doubt for each instance that is lost."""
GROUPS = ("dispatcher.demo", "dispatcher.demo.high")

pytestmark = pytest.mark.timeout(480)  # on a slow machine each wait here may take its time, and there are many


async def test_the_rate_holds_while_replicas_join_and_leave(
    stack: Stack, api: Api, carrier: Carrier, reconfigure: Reconfigure
) -> None:
    await api.put_clients(CLIENTS)
    await reconfigure(1, segmentsPerSecond=RATE, bindsAllowed=3)
    async with feeding(api, carrier, ONE, tag="rate", backlog=150) as feeder:
        for replicas, clients in ((1, ONE), (2, ONE), (3, ALL), (1, ALL)):
            feeder.clients = clients
            await stack.scale("demo", replicas)
            await _settled(stack, replicas)
            await _full_rate(carrier, replicas)
    seen = carrier.entries(feeder.began)
    await reconfigure(1)  # the rest leaves without a limit
    assert _most_in_a_second(await _allowed_at(stack, [e.provider_id for e in seen if e.provider_id])) <= RATE + 1
    messages = await feeder.check_all_ended_and_nothing_doubled()
    assert {sms["status"] for sms in messages.values()} == {"delivered"}


async def test_one_bind_is_never_two_and_is_taken_over_when_its_holder_is_killed(
    stack: Stack, api: Api, carrier: Carrier, reconfigure: Reconfigure
) -> None:
    await api.put_clients(CLIENTS)
    await reconfigure(0)
    await carrier.calm()
    await carrier.steer(binds={"max_per_system_id": 1})
    await reconfigure(3, segmentsPerSecond=RATE, bindsAllowed=1, window=WINDOW)
    dispatchers = stack.dispatchers("demo")
    async with feeding(api, carrier, ALL, tag="binds", backlog=150) as feeder:
        await _arrivals(carrier, feeder.began, RATE)
        [holder] = await bound(dispatchers)
        session = carrier.entries(feeder.began)[-1].session
        await holder.kill()
        taken_over = await _arrival_from_another_session(carrier, feeder.began, session)
        await holder.wait_until_ready()
        await _arrivals(carrier, taken_over.sequence, RATE)
        assert len(await bound(dispatchers)) == 1
    assert (await carrier.sessions("postrider"))["most_bound_at_once"] == 1
    assert (await carrier.statistics())["binds_refused"] == {}, "nobody even tried"
    assert _in_doubt(await feeder.check_all_ended_and_nothing_doubled()) <= WINDOW


async def test_a_dispatcher_that_stood_still_beyond_its_lease_doubles_nothing_and_works_again(
    stack: Stack, api: Api, carrier: Carrier, reconfigure: Reconfigure
) -> None:
    await api.put_clients(CLIENTS)
    await carrier.steer(responses={"delay_ms": 100})  # so that there always are attempts without an answer
    await reconfigure(2, segmentsPerSecond=RATE, bindsAllowed=2, window=WINDOW)
    first, second = stack.dispatchers("demo")
    async with feeding(api, carrier, ALL, tag="stood-still", backlog=150) as feeder:
        await asyncio.gather(*(_claims_more(process) for process in (first, second)))
        alive = await _instances(stack, dead=False)
        assert len(alive) == 2
        second.suspend()
        try:
            [lost] = await _declared_dead(stack, alive)
            await _arrivals(carrier, carrier.last(), RATE)
        finally:
            second.resume()
        # A peer declared it dead; it finds that out and comes back under another name, within the same process.
        await _came_back(stack, alive - {lost})
        await _settled(stack, 2)
        await _claims_more(second)
        assert second.deaths == []
    assert _in_doubt(await feeder.check_all_ended_and_nothing_doubled()) <= WINDOW


async def _settled(stack: Stack, replicas: int) -> None:
    """All replicas are bound and have joined both groups."""

    async def settled() -> bool:
        if len(await bound(stack.dispatchers("demo"))) != replicas:
            return False
        return all([await groups.members(group) == replicas for group in GROUPS])

    async with groups_of(stack.kafka) as groups:
        await until(settled, f"{replicas} replicas in the groups", within=45)


async def _full_rate(carrier: Carrier, replicas: int) -> None:
    """Together they come to send what the provider allows: were it shared out among them, the one that has all would never."""

    async def reached() -> bool:
        return await _steady_arrivals(carrier) >= 0.9 * RATE * STEADY_SECONDS

    await until(reached, f"the full rate with {replicas} replicas", within=60)


async def _steady_arrivals(carrier: Carrier) -> int:
    """Arrivals in so many seconds from the first one from now on."""
    [first] = await _arrivals(carrier, carrier.last(), 1)
    end = first.received_at + STEADY_SECONDS * SECOND
    await until(lambda: time.time() * SECOND > end + SECOND / 2, "a steady phase")
    return sum(entry.received_at < end for entry in carrier.entries(first.sequence - 1))


async def _arrivals(carrier: Carrier, after: int, number: int) -> list[LedgerEntry]:
    """The first entries after this sequence, as soon as there are so many."""

    async def there() -> list[LedgerEntry] | None:
        found = carrier.entries(after)
        return found[:number] if len(found) >= number else None

    return await until(there, f"{number} submits", within=30)


async def _arrival_from_another_session(carrier: Carrier, after: int, session: int) -> LedgerEntry:
    async def there() -> LedgerEntry | None:
        return next((entry for entry in carrier.entries(after) if entry.session > session), None)

    return await until(there, "a submit in another session", within=30)


async def _claims_more(process: SupervisedProcess) -> None:
    before = await metric(process, "postrider_attempts_claimed_total")

    async def more() -> bool:
        return await metric(process, "postrider_attempts_claimed_total") > before

    await until(more, f"{process.spec.name} claims", within=30)


async def _declared_dead(stack: Stack, instances: set[str]) -> set[str]:
    async def declared() -> set[str]:
        return instances & await _instances(stack, dead=True)

    return await until(declared, "an instance that is declared dead", within=20)


async def _came_back(stack: Stack, others: set[str]) -> set[str]:
    async def back() -> set[str]:
        return await _instances(stack, dead=False) - others

    return await until(back, "a new instance", within=30)


async def _instances(stack: Stack, *, dead: bool) -> set[str]:
    connection = await asyncpg.connect(stack.postgres_dsn, server_settings={"search_path": "dispatch"})
    try:
        return {str(row[0]) for row in await connection.fetch("SELECT instance FROM instances WHERE dead = $1", dead)}
    finally:
        await connection.close()


async def _allowed_at(stack: Stack, provider_ids: Collection[str]) -> list[int]:
    """When each of these accepted attempts was allowed to leave (microseconds, by Postgres's clock)."""
    connection = await asyncpg.connect(stack.postgres_dsn, server_settings={"search_path": "dispatch"})
    try:
        moments = "SELECT (extract(epoch FROM allowed_at) * 1000000)::bigint FROM attempts WHERE provider_id = ANY($1)"
        found = [row[0] for row in await connection.fetch(moments, provider_ids)]
    finally:
        await connection.close()
    assert len(found) == len(provider_ids)
    return found


def _in_doubt(messages: Mapping[str, Json]) -> int:
    return sum(sms["status"] == "in_doubt" for sms in messages.values())


def _most_in_a_second(moments: Iterable[int]) -> int:
    """In any second, wherever it begins (microseconds)."""
    times = sorted(moments)
    return max(bisect_left(times, moment + SECOND) - index for index, moment in enumerate(times))
