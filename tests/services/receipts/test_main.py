"""The receipts service as a process, between a real Kafka and a real PostgreSQL: fed, poisoned, killed, started again, set back."""

import asyncio
import json
import signal
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from deploy.local.kafka import SHORT_RUN, Kafka
from libs.bus.codec import encode
from libs.bus.dead_letters import LIMIT
from libs.contracts import topics
from libs.contracts.events import ReceiptState
from libs.contracts.statuses import Status
from libs.contracts.topics import Topic
from services.receipts.main import CONSUMED
from services.receipts.unreported import DEFAULT_WINDOW, SLOT_SECONDS, slot_of
from tests.conftest import DatabaseFactory
from tests.services.receipts.examples import (
    OTHER_DESTINATION,
    in_doubt,
    message_id,
    receipt,
    submitted,
    trace,
    traces,
)
from tests.services.receipts.program import Program, Sweeping, Traffic
from tests.waiting import WITHIN_SECONDS, until

_ids = count(1)


@dataclass
class Ground:
    program: Program
    traffic: Traffic
    dsn: str


@pytest.fixture(scope="module")
async def ground(server_directory: Path, postgres: DatabaseFactory, tmp_path_factory: Any) -> AsyncIterator[Ground]:
    """A broker of its own: the service's topics and group have fixed names. It makes all that it reads and writes."""
    async with Kafka(server_directory / "kafka-receipts", java_options=SHORT_RUN) as broker:
        dsn = await postgres()
        program = Program(tmp_path_factory.mktemp("receipts"), broker.bootstrap_servers, dsn)
        await program.start()
        traffic = Traffic(broker.bootstrap_servers)
        await traffic.start()
        yield Ground(program, traffic, dsn)
        await program.stop()
        await traffic.stop()


def new_id() -> tuple[str, int]:
    """A provider id nobody had yet, and the number of its message."""
    n = next(_ids)
    return f"provider-{n}", n


async def heard(ground: Ground, provider_id: str, *statuses: Status) -> None:
    """Wait until just these have been said of an id."""
    await until(
        lambda: {e.data.status for e in ground.traffic.said(provider_id)} >= set(statuses),
        f"{provider_id}: {', '.join(statuses)}",
    )
    assert {e.data.status for e in ground.traffic.said(provider_id)} == set(statuses)


async def shown(ground: Ground, provider_id: str, waits: bool) -> None:
    """Wait until a receipt is shown as parked, or no more."""
    async with asyncio.timeout(WITHIN_SECONDS):
        while (provider_id in {item["providerId"] for item in await parked(ground)}) is not waits:
            await asyncio.sleep(0.02)


async def parked(ground: Ground) -> list[dict[str, Any]]:
    status, body = await ground.program.get("/internal/parked?gateway=demo&limit=1000")
    assert status == 200
    return json.loads(body)["items"]


async def test_a_receipt_after_its_submit_becomes_a_status_under_the_messages_key(running: Ground) -> None:
    name, n = new_id()
    await running.traffic.statuses(submitted(name, message=n))
    await running.traffic.receipts(receipt(name, error="000"))
    await heard(running, name, Status.DELIVERED)
    (record,) = [r for r in running.traffic.records if r.key == str(message_id(n)).encode() and b"receipts" in r.value]
    (event,) = running.traffic.said(name)
    assert (event.subject, traces([event])) == (message_id(n), [trace(n)[3:35]])
    assert record.value == encode(event)


async def test_an_early_receipt_waits_in_sight_until_its_submit_comes(running: Ground) -> None:
    name, n = new_id()
    await running.traffic.receipts(receipt(name))
    await shown(running, name, waits=True)
    await running.traffic.statuses(submitted(name, message=n))
    await heard(running, name, Status.DELIVERED)
    await shown(running, name, waits=False)


async def test_three_parts_and_duplicates_of_their_receipts(running: Ground) -> None:
    names = [new_id()[0] for _ in range(3)]
    n = next(_ids)
    receipts = [receipt(name, state) for name in names for state in (ReceiptState.ENROUTE, ReceiptState.DELIVERED)]
    await running.traffic.receipts(*receipts[:3])
    await running.traffic.statuses(*(submitted(name, n, part=p, parts=3) for p, name in enumerate(names, 1)))
    await running.traffic.receipts(*receipts, *receipts)
    for part, name in enumerate(names, 1):
        await heard(running, name, Status.BUFFERED, Status.DELIVERED)
        assert len({e.id for e in running.traffic.said(name)}) == 2
        assert {e.data.part for e in running.traffic.said(name)} == {part}


async def test_a_receipt_of_another_number_is_never_published(running: Ground) -> None:
    name, n = new_id()
    await running.traffic.statuses(submitted(name, message=n))
    await running.traffic.receipts(receipt(name, ReceiptState.REJECTED, destination=OTHER_DESTINATION))
    await shown(running, name, waits=True)
    await running.traffic.receipts(receipt(name))
    await heard(running, name, Status.DELIVERED)


async def test_a_doubt_ends_with_its_receipt(running: Ground) -> None:
    name, n = new_id()
    await running.traffic.statuses(in_doubt(n, message=n))
    await running.traffic.receipts(receipt(name, reference=n))
    await heard(running, name, Status.SUBMITTED, Status.DELIVERED)


async def test_what_is_parked_is_for_our_own_services_and_names_no_number(running: Ground) -> None:
    name, _ = new_id()
    await running.traffic.receipts(receipt(name, carrier_time="2603011202", error="0A1", word="SENT"))
    await shown(running, name, waits=True)
    assert (await running.program.get("/internal/parked", token="wrong"))[0] == 401
    for wrong in ("0", "1001", "many"):
        status, words = await running.program.get(f"/internal/parked?limit={wrong}")
        assert (status, words.startswith("limit:")) == (400, True)
    assert (await running.program.get("/internal/parked?gateway=%00"))[0] == 400
    (item,) = [item for item in await parked(running) if item["providerId"] == name]
    assert (item["gateway"], item["state"], item["error"], item["word"]) == ("demo", "delivered", "0A1", "SENT")
    assert (item["carrierTime"], item["observedAt"]) == ("2603011202", "2026-03-01T12:00:02+00:00")
    assert "700000001" not in str(item)
    _, metrics = await running.program.get("/metrics")
    assert 'postrider_receipts_parked_total{gateway="demo"}' in metrics


@pytest.mark.parametrize("topic", CONSUMED, ids=lambda topic: topic.name)
async def test_poison_goes_to_the_dead_letters_and_the_rest_goes_on(running: Ground, topic: Topic) -> None:
    before = len(running.traffic.dead(topic))
    name, n = new_id()
    unstorable = encode(submitted(f"{name}\0", message=n) if topic is topics.STATUS else receipt(f"{name}\0"))
    poison = [b"\x00\xff", b"{", b"{}", b"[]", unstorable]
    if topic is topics.RECEIPTS:
        poison.append(encode(receipt("")))
    await running.traffic.statuses(submitted(name, message=n))
    await running.traffic.raw(topic, *poison)
    await running.traffic.receipts(receipt(name))
    await until(lambda: len(running.traffic.dead(topic)) >= before + len(poison), "dead letters")
    assert sorted(r.value for r in running.traffic.dead(topic)[before:]) == sorted(poison)
    await heard(running, name, Status.DELIVERED)


async def test_receipts_without_an_id_stop_nothing_however_many_they_are(running: Ground) -> None:
    before = len(running.traffic.dead(topics.RECEIPTS))
    await running.traffic.receipts(*(receipt("") for _ in range(LIMIT + 1)))
    await until(lambda: len(running.traffic.dead(topics.RECEIPTS)) == before + LIMIT + 1, "dead letters")
    assert (await running.program.get("/health/ready"))[0] == 200


async def test_lost_connections_to_postgres_are_made_again_and_cost_no_record(running: Ground) -> None:
    before = len(dead(running))
    connection = await asyncpg.connect(running.dsn)
    ids = [new_id() for _ in range(10)]
    for name, n in ids:
        await connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE application_name = 'receipts' AND datname = current_database()"
        )
        await running.traffic.statuses(submitted(name, message=n))
        await running.traffic.receipts(receipt(name))
    await connection.close()
    for name, _ in ids:
        await until(lambda name=name: bool(running.traffic.said(name)) or len(dead(running)) > before, name)
    assert [dict(r.headers)["dead-letter-words"] for r in dead(running)[before:]] == []


def dead(ground: Ground) -> list[Any]:
    return [record for topic in CONSUMED for record in ground.traffic.dead(topic)]


@pytest.mark.parametrize("point", ["receive-store", "store-publish", "publish-commit"])
async def test_killed_at_any_point_it_goes_on_with_what_it_had_stored(running: Ground, point: str) -> None:
    (late, n), (early, m), (doubted, k) = new_id(), new_id(), new_id()
    await running.traffic.receipts(receipt(early))
    await shown(running, early, waits=True)
    await running.traffic.statuses(in_doubt(k, message=k), submitted(late, message=n))
    await stored(running, late)
    assert await running.program.stop() == 0

    await running.traffic.statuses(submitted(early, message=m))
    await running.traffic.receipts(receipt(late), receipt(doubted, reference=k))
    child = await running.program.start(crash_at=f"receipts.{point}", ready=False)
    await until(lambda: not child.running, "the crash")
    assert child.exit_code == -signal.SIGKILL

    await running.program.start()
    await heard(running, late, Status.DELIVERED)
    await heard(running, early, Status.DELIVERED)
    await heard(running, doubted, Status.SUBMITTED, Status.DELIVERED)
    for name, events in ((late, 1), (early, 1), (doubted, 2)):
        assert len({e.id for e in running.traffic.said(name)}) == events


async def stored(ground: Ground, provider_id: str) -> None:
    """Wait until an id is registered."""
    connection = await asyncpg.connect(ground.dsn)
    try:
        registered = "SELECT count(*) FROM receipts.provider_ids WHERE provider_id = $1"
        await until(lambda: connection.fetchval(registered, provider_id), f"{provider_id} to be registered")
    finally:
        await connection.close()


async def test_set_back_to_the_beginning_it_says_again_what_it_said(running: Ground) -> None:
    ids = [new_id() for _ in range(6)]
    names = [name for name, _ in ids]
    await running.traffic.receipts(receipt(names[0]), receipt(names[1], ReceiptState.ENROUTE))
    await running.traffic.statuses(*(submitted(name, n) for name, n in ids[:5]), in_doubt(ids[5][1], ids[5][1]))
    await running.traffic.receipts(*(receipt(name, reference=n) for name, n in ids[1:]))
    for name in names[1:]:
        await until(lambda name=name: Status.DELIVERED in {e.data.status for e in running.traffic.said(name)}, name)
    assert await running.program.stop() == 0
    said = {e.id: encode(e) for e in running.traffic.said()}
    times = Counter(e.id for e in running.traffic.said())

    await running.traffic.set_back("receipts", CONSUMED)
    await running.program.start()
    await until(lambda: said_more_often(running, times), "everything said again")
    assert {e.id: encode(e) for e in running.traffic.said()} == said


def said_more_often(ground: Ground, times: Counter[str]) -> bool:
    now = Counter(e.id for e in ground.traffic.said())
    return all(now[i] > times[i] for i in times)


# The last one here: that a gateway never reported is said once, also to whoever is set back to the beginning.
@pytest.mark.parametrize(("point", "times"), [("decide-publish", 1), ("publish-forget", 2)])
async def test_killed_while_it_ends_what_was_never_reported_it_says_the_same_again(
    running: Ground, point: str, times: int
) -> None:
    assert await running.program.stop() == 0
    name, n = new_id()
    at = datetime.now(UTC) - DEFAULT_WINDOW - timedelta(seconds=SLOT_SECONDS)
    await running.traffic.statuses(submitted(name, message=n, observed_at=at))
    await swept_until(running, at)
    sweeping = Sweeping(running.program.directory, running.program.kafka, running.dsn)
    child = await sweeping.start(crash_at=f"receipts.{point}", ready=False)
    await until(lambda: not child.running, "the crash")
    assert child.exit_code == -signal.SIGKILL

    await sweeping.start()
    await until(lambda: len(running.traffic.said(name)) == times, "that it is unknown")
    assert await sweeping.stop() == 0
    assert [e.data.status for e in running.traffic.said(name)] == [Status.UNKNOWN] * times
    assert set(traces(running.traffic.said(name))) == {trace(n)[3:35]}
    assert len({encode(e) for e in running.traffic.said(name)}) == 1
    assert {e.data.observed_at for e in running.traffic.said(name)} == {at + DEFAULT_WINDOW}


async def swept_until(ground: Ground, at: datetime) -> None:
    """Have the next sweep begin with what was sent then."""
    connection = await asyncpg.connect(ground.dsn)
    try:
        await connection.execute(
            "INSERT INTO receipts.sweeps VALUES ('demo', $1) ON CONFLICT (gateway) DO UPDATE SET next_slot = $1",
            slot_of(at),
        )
    finally:
        await connection.close()
