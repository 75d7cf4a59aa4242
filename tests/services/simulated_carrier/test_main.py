"""The carrier as the program that it is: started, killed, started again, stopped."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from deploy import REPOSITORY
from libs.smpp.pdus import SubmitSmResp
from services.simulated_carrier.ledger import read_ledger
from tests.services.simulated_carrier.raw_client import RawClient, sms


@dataclass
class Program:
    process: asyncio.subprocess.Process
    smpp_port: int

    async def bound(self) -> RawClient:
        _, client = await asyncio.get_running_loop().create_connection(RawClient, "127.0.0.1", self.smpp_port)
        assert (await client.bind()).command_status == 0
        return client


Launch = Callable[[], Awaitable[Program]]


async def _spawn(**environment: str) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "services.simulated_carrier.main",
        cwd=REPOSITORY,
        env={**os.environ, "CARRIER_SMPP_PORT": "0", "CARRIER_HTTP_PORT": "0", **environment},
        stderr=asyncio.subprocess.PIPE,
    )


@pytest.fixture
async def launch(tmp_path: Path) -> AsyncIterator[Launch]:
    processes: list[asyncio.subprocess.Process] = []

    async def start() -> Program:
        process = await _spawn(CARRIER_LEDGER_DIRECTORY=str(tmp_path))
        processes.append(process)
        assert process.stderr is not None
        async with asyncio.timeout(20):
            line = json.loads(await process.stderr.readline())
        assert line["event"] == "listening"
        return Program(process, line["smpp_port"])

    yield start
    for process in processes:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def test_what_was_answered_outlives_a_kill_and_ids_are_never_given_twice(launch: Launch, tmp_path: Path) -> None:
    answered: list[str] = []
    for _ in range(2):
        program = await launch()
        client = await program.bound()
        client.send(*[sms() for _ in range(2_000)])
        for _ in range(500):
            answered.append((await client.receive(SubmitSmResp))[1].message_id)
        program.process.kill()
        await program.process.wait()
        answered += [pdu.message_id for _, pdu in client.inbox if isinstance(pdu, SubmitSmResp)]
    entries = list(read_ledger(tmp_path))
    recorded = [entry.provider_id for entry in entries]
    assert set(answered) <= set(recorded)
    assert len(set(recorded)) == len(recorded)
    assert [entry.sequence for entry in entries] == list(range(1, len(entries) + 1))


async def test_sigterm_ends_it_cleanly(launch: Launch) -> None:
    program = await launch()
    client = await program.bound()
    await client.submit(sms())
    program.process.send_signal(signal.SIGTERM)
    async with asyncio.timeout(10):
        _, output = await program.process.communicate()
    assert program.process.returncode == 0
    assert [json.loads(line)["event"] for line in output.splitlines()] == [
        "bound",
        "stopping",
        "session_ended",
        "stopped",
    ]
    assert b"4917012345678" not in output


@pytest.mark.parametrize(
    ("environment", "said"),
    [
        ({"CARRIER_SEED": "many"}, b"CARRIER_SEED: "),
        ({"CARRIER_BEHAVIOUR": '{"receipts": {"delay_ms": -5}}'}, b"CARRIER_BEHAVIOUR.receipts.delay_ms: "),
        ({"CARRIER_ACCOUNTS": '{"bank": ["hunter2"]}'}, b"CARRIER_ACCOUNTS.bank: "),
        ({"CARRIER_ACCOUNTS": '{"bank": "hunter2', "CARRIER_SEED": "1"}, b"CARRIER_ACCOUNTS: is not JSON"),
        ({"CARRIER_ACCOUNTS": '{"bank": "hunter2', "CARRIER_SEED": "many"}, b"CARRIER_SEED: "),
    ],
)
async def test_wrong_settings_are_named_and_not_shown(environment: dict[str, str], said: bytes, tmp_path: Path) -> None:
    process = await _spawn(CARRIER_LEDGER_DIRECTORY=str(tmp_path), **environment)
    async with asyncio.timeout(20):
        _, errors = await process.communicate()
    assert process.returncode == 2
    assert said in errors
    assert b"Traceback" not in errors
    assert b"hunter2" not in errors


async def test_a_taken_port_is_named(launch: Launch, tmp_path: Path) -> None:
    program = await launch()
    process = await _spawn(CARRIER_LEDGER_DIRECTORY=str(tmp_path / "other"), CARRIER_SMPP_PORT=str(program.smpp_port))
    async with asyncio.timeout(20):
        _, errors = await process.communicate()
    assert process.returncode == 1
    assert str(program.smpp_port).encode() in errors
