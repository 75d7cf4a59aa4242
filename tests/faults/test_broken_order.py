"""The kill test must fail for a dispatcher that writes its attempts after the send: else it would prove nothing."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator

import pytest

from deploy.local import topology
from deploy.local.stack import Stack
from tests.faults.auditor import Rule, audit, explain
from tests.faults.killing import Kill, carry_out, witness
from tests.faults.load import Load
from tests.faults.records import Reader

ROUNDS = 3
"""One kill is all but sure to be enough: with 200 ms until an answer, some twenty messages are on their way at any time."""
REST_SECONDS = 90.0


@pytest.fixture
async def broken(stack: Stack, records: Reader, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Reader]:
    """The stack with one broken dispatcher in the place of its own."""
    own = topology.command
    command = (sys.executable, "-m", "tests.faults.broken_dispatcher")
    monkeypatch.setattr(topology, "command", lambda service: command if service == "dispatcher" else own(service))
    await stack.scale("demo", 0)
    await stack.scale("demo", 1)
    await records.steer_carrier(responses={"delay_ms": 200})
    yield records
    await stack.scale("demo", 0)


@pytest.mark.timeout(300)
async def test_the_auditor_sees_attempts_written_after_the_send(stack: Stack, broken: Reader) -> None:
    kill = Kill("dispatcher-demo-1", "dispatcher.write-response")
    seen: set[Rule] = set()
    words = ""
    for number in range(ROUNDS):
        after = await broken.ledger_end()
        load = Load(stack.url, stack.api_key, f"broken{'abc'[number]}", rate=100, clients=20, seed=number)
        async with witness(stack.postgres_dsn) as killed, load:
            await carry_out(kill, stack, killed)
            await stack.process(kill.process).wait_until_ready()
        await broken.until_at_rest(load.name, load.promises, within=REST_SECONDS)
        run = await broken.of_run(load.name, load.promises, after, killed.left_behind)
        complaints = audit(run)
        words = explain(run, complaints)
        seen = {complaint.rule for complaint in complaints}
        if Rule.ONCE in seen:
            break
    assert Rule.ONCE in seen, words
