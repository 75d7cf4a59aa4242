"""Kannel on this machine, between the simulated carrier and a receiver of callbacks."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncGenerator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

import aiohttp

from deploy import REPOSITORY
from deploy.local import topology
from deploy.local.ports import HOST, free_port
from deploy.local.processes import Child, StartError
from tests.load.callback_process import CallbackProcess, callback_process
from tests.load.kannel_package import program
from tests.load.requests import KANNEL_USER, SENDER

SYSTEM_ID: Final = "postrider"
WINDOW: Final = 500
_QUIET = ("-v", "3")
_READY_SECONDS = 30.0
_STOP_SECONDS = 10.0
_POLL_SECONDS = 0.1

_CONFIGURATION: Final = """\
group = core
admin-port = {admin}
admin-password = {user}
smsbox-port = {boxes}
dlr-storage = internal
sms-outgoing-queue-limit = 10000000
{store}
group = smsc
smsc = smpp
smsc-id = carrier
host = {host}
port = {smpp}
smsc-username = {system_id}
smsc-password = secret
system-type = ""
transceiver-mode = true
max-pending-submits = {window}
source-addr-ton = 5
source-addr-npi = 0
dest-addr-ton = 1
dest-addr-npi = 1

group = smsbox
bearerbox-host = {host}
sendsms-port = {sendsms}
global-sender = {sender}
max-pending-requests = 512

group = sendsms-user
username = {user}
password = {user}
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Kannel:
    """`pids` by process, all but the load generator's."""

    url: str
    callbacks_url: str
    callbacks: CallbackProcess
    ledger: Path
    pids: Mapping[str, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Setup:
    """`store`: its queues are kept in a file too. `quiet`: it logs errors alone, else every PDU."""

    store: bool = False
    quiet: bool = True


@asynccontextmanager
async def running_kannel(receipt_delay_ms: int, setup: Setup) -> AsyncGenerator[Kannel]:
    """Bound to a carrier of its own; stopped and removed in the end."""
    admin, boxes, sendsms, smpp, carrier, callbacks = (free_port() for _ in range(6))
    status = f"http://{HOST}:{admin}/status.txt"
    async with AsyncExitStack() as closing:
        directory = Path(closing.enter_context(TemporaryDirectory(prefix="postrider-bench-")))
        file = directory / "kannel.conf"
        file.write_text(
            _CONFIGURATION.format(
                host=HOST, admin=admin, boxes=boxes, sendsms=sendsms, smpp=smpp, window=WINDOW,
                system_id=SYSTEM_ID, sender=SENDER, user=KANNEL_USER,
                store=f"store-type = file\nstore-location = {directory / 'store'}\n" if setup.store else "",
            )
        )  # fmt: skip
        receiver = await closing.enter_async_context(callback_process(callbacks))
        pids = {"callback receiver": receiver.pid}

        async def start(name: str, command: tuple[str, ...], ready: str, words: str, **environment: str) -> None:
            child = await Child.spawn(
                command,
                log=directory / f"{name}.log",
                environment={**os.environ, **environment},
                directory=REPOSITORY,
            )
            closing.push_async_callback(child.stop, budget=_STOP_SECONDS)
            await _until_ready(name, child, ready, words)
            pids[name] = child.pid

        await start(
            "carrier",
            topology.command("simulated_carrier"),
            f"http://{HOST}:{carrier}/health/ready",
            "",
            CARRIER_HOST=HOST,
            CARRIER_SMPP_PORT=str(smpp),
            CARRIER_HTTP_PORT=str(carrier),
            CARRIER_LEDGER_DIRECTORY=str(directory / "ledger"),
            CARRIER_BEHAVIOUR=f'{{"receipts":{{"delay_ms":{receipt_delay_ms}}}}}',
        )
        options = _QUIET if setup.quiet else ()
        await start("bearerbox", (program("bearerbox"), *options, str(file)), status, "(online")
        await start("smsbox", (program("smsbox"), *options, str(file)), status, "smsbox:")
        yield Kannel(
            url=f"http://{HOST}:{sendsms}",
            callbacks_url=f"http://{HOST}:{callbacks}",
            callbacks=receiver,
            ledger=directory / "ledger",
            pids=pids,
        )


async def _until_ready(name: str, child: Child, url: str, words: str) -> None:
    """Until the answer holds these words."""
    deadline = time.monotonic() + _READY_SECONDS
    async with aiohttp.ClientSession() as session:
        while words not in (answer := await _get(session, url)) or not answer:
            if not child.running or time.monotonic() > deadline:
                raise StartError(f"{name} did not start:\n{child.log_tail()}")
            await asyncio.sleep(_POLL_SECONDS)


async def _get(session: aiohttp.ClientSession, url: str) -> str:
    """What a 200 says; empty when it is not answered so."""
    try:
        async with session.get(url) as response:
            return await response.text() if response.status == 200 else ""
    except aiohttp.ClientError:
        return ""
