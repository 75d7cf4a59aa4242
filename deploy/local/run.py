"""`make run`: everything on this machine until Ctrl-C."""

import asyncio
import hashlib
import os
import shlex
import signal
import sys
import time
from pathlib import Path
from urllib.parse import urlsplit

from deploy import REPOSITORY
from deploy.local import control
from deploy.local.first_sms import FirstSmsError, send_first_sms
from deploy.local.ports import HOST, Ports
from deploy.local.processes import StartError
from deploy.local.running_lock import AlreadyRunningError, running_lock
from deploy.local.stack import Stack
from libs.service_kit.config_file import ConfigFileError

RUN = REPOSITORY / ".run"
CARRIER_BEHAVIOUR = '{"receipts": {"delay_ms": 300, "jitter_ms": 200}}'  # milliseconds: as if there were a phone
DEFAULT_CONFIG = Path(__file__).with_name("postrider.yaml")


def say(line: str) -> None:
    print(line, flush=True)


def stack_from_environment() -> Stack:
    """The stack that the environment describes; a server that an earlier run named in .run/env counts as our own."""
    ports = Ports.from_environment(os.environ)
    kafka = os.environ.get("KAFKA_BOOTSTRAP_SERVERS")
    if kafka == f"{HOST}:{ports['KAFKA_PORT']}":
        kafka = None
    postgres_dsn = os.environ.get("POSTGRES_DSN")
    if postgres_dsn and urlsplit(postgres_dsn).netloc.endswith(f"@{HOST}:{ports['POSTGRES_PORT']}"):
        postgres_dsn = None
    config = Path(os.environ.get("CONFIG") or DEFAULT_CONFIG)
    carrier = {"CARRIER_BEHAVIOUR": os.environ.get("CARRIER_BEHAVIOUR", CARRIER_BEHAVIOUR)}
    extra = {"carrier": carrier}
    return Stack(config, RUN, ports=ports, kafka=kafka, postgres_dsn=postgres_dsn, extra=extra, say=say)


async def live(stack: Stack) -> None:
    """Start, show, and stay until cancelled; stop in any case."""
    started = time.monotonic()
    await stack.start()
    try:
        say(f"Postrider is up after {time.monotonic() - started:.1f} s.\n")
        control.write_environment(stack)
        async with control.serve(stack, control.SOCKET):
            await _show_first_sms(stack)
            _show_addresses(stack)
            await asyncio.Event().wait()
    finally:
        say("\nStopping …")
        await stack.stop()
        say("Stopped.")


async def _show_first_sms(stack: Stack) -> None:
    if not stack.has_carrier:
        say("No first SMS: the configuration has no gateway to the simulated carrier.")
    elif hashlib.sha256(stack.api_key.encode()).digest() not in {key.sha256 for key in stack.configuration.api_keys}:
        say("No first SMS: the configuration has no API key ${POSTRIDER_API_KEY}.")
    else:
        try:
            await send_first_sms(stack.url, stack.api_key, say)
        except FirstSmsError as error:
            say(str(error))


def _show_addresses(stack: Stack) -> None:
    say(f"\n  API        {stack.url}")
    if stack.has_carrier:
        environment = stack.environment()
        say(f"  carrier    {environment['CARRIER_URL']}, SMPP {environment['CARRIER_SMPP']}")
    say(f"  Kafka      {stack.kafka}")
    say(f"  logs       {RUN / 'logs'}")
    say(f"  all of it, with the API key, as variables: . {shlex.quote(str(RUN / 'env'))}")
    say(f"""
Send one yourself:

  ( . {shlex.quote(str(RUN / "env"))}; curl -sS -X POST "$POSTRIDER_URL/sms" -H "Authorization: Bearer $POSTRIDER_API_KEY" \\
    -H "Idempotency-Key: $(date +%s%N)" -H "Content-Type: application/json" -d '{{"clientId": "2", "message": "Hello!"}}' )

Ctrl-C stops everything.""")


async def main() -> None:
    task = asyncio.current_task()
    assert task
    interrupted = 0

    def interrupt() -> None:
        nonlocal interrupted
        interrupted += 1
        if interrupted == 1:
            task.cancel()
        else:
            say("Not waiting any longer.")
            os._exit(1)  # the kernel ends the children with us

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        asyncio.get_running_loop().add_signal_handler(number, interrupt)
    try:
        with running_lock(RUN):
            await live(stack_from_environment())
    except asyncio.CancelledError:
        return
    except (StartError, ConfigFileError, AlreadyRunningError) as error:
        sys.exit(str(error))


if __name__ == "__main__":
    asyncio.run(main())
