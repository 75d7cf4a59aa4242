"""The product's central promise, under kills: nothing accepted is lost, nothing is sent twice, and every doubt has a name."""

from __future__ import annotations

import os
import random
import re
import time

import pytest

from deploy import REPOSITORY
from deploy.local.stack import Stack
from libs.service_kit.kafka import Cluster
from services.projection.rebuild.rebuilding import check, rebuild
from tests.faults.auditor import audit, doubts, explain
from tests.faults.conftest import REPLICAS
from tests.faults.killing import ELSEWHERE, carry_out, schedule, witness
from tests.faults.load import Load
from tests.faults.records import Reader

SEED = int(os.environ.get("FAULTS_SEED", "20"))
"""Orders the kills and the load. `FAULTS_SEED=$RANDOM make test` tries others."""
REST_SECONDS = 90.0
SERVICES = REPOSITORY / "services"


def test_a_kill_is_meant_for_every_crash_point_that_there_is() -> None:
    sources = [file.read_text() for file in SERVICES.rglob("*.py")]
    there_are = {point for source in sources for point in re.findall(r'crash_point\("([^"]+)"\)', source)}
    assert {kill.point for kill in schedule(REPLICAS, random.Random(SEED)) if kill.point} | ELSEWHERE == there_are


@pytest.mark.timeout(480)
async def test_every_service_may_be_killed_anywhere(stack: Stack, records: Reader) -> None:
    chance = random.Random(SEED)
    kills = schedule(REPLICAS, chance)
    print(f"FAULTS_SEED={SEED}")
    after, started = await records.ledger_end(), time.monotonic()
    async with witness(stack.postgres_dsn) as seen:
        seed = chance.randrange(2**32)
        load = Load(stack.url, stack.api_key, "kill", rate=200, clients=50, seed=seed, scheduled_share=0.1)
        async with load:
            for kill in kills:
                print(f"{time.monotonic() - started:5.1f} s  {kill}")
                await carry_out(kill, stack, seen)
        print(f"{time.monotonic() - started:5.1f} s  {len(load.promises)} messages; repeated after {dict(load.again)}")
        await records.until_at_rest(load.name, load.promises, within=REST_SECONDS)
        run = await records.of_run(load.name, load.promises, after, seen.left_behind)
    accepted, surplus = doubts(run)
    print(
        f"{time.monotonic() - started:5.1f} s  in doubt: {len(accepted)} that the carrier accepted, {len(surplus)} not"
    )
    complaints = audit(run)
    assert not complaints, explain(run, complaints) + await records.histories(complaints)
    assert accepted, "no kill fell between the carrier's acceptance and its record"
    assert surplus, "no kill fell between an attempt and its first byte"
    assert await check(stack.postgres_dsn, print) == 0, "the outbox is not what its journal says"
    shown = await records.outbox(load.name)
    await rebuild(stack.postgres_dsn, Cluster(stack.kafka), print)
    assert await check(stack.postgres_dsn, print) == 0
    assert await records.outbox(load.name) == shown
