"""What is logged of an exception that nobody foresaw, from wherever it is logged: never its text."""

import asyncio
import json
import os
import sys
from pathlib import Path

import yaml

from libs.service_kit.faults import fault, trace
from libs.storage.database import MigrationError

NUMBER = "+4915112345678"

SERVICE = """
import asyncio, logging, os, warnings
import asyncpg, structlog
from libs.service_kit.lifecycle import run_service
from libs.service_kit.periodic import repeat
from libs.service_kit.settings import ServiceSettings
from libs.storage.database import MigrationError

NUMBER = os.environ["A_NUMBER"]  # not in the source, whose lines a traceback may have

class SpokenError(Exception): pass

async def fail(kind):
    raise type(kind, (SpokenError,), {})(NUMBER)

async def start(life):
    async def stop():
        await fail("Stopping")
    life.on_stop("part", stop)
    repeating = asyncio.create_task(repeat("work", 1000, lambda: fail("Repeated")))
    try:
        await fail("Libs")
    except SpokenError:
        warnings.warn("careful")
        logging.getLogger("lib").exception('"failed"\\n')
    try:
        await fail("Ours")
    except SpokenError:
        structlog.get_logger().exception("failed")
    task = asyncio.create_task(fail("Unawaited"))
    await asyncio.wait([task])
    del task
    background = life.background("work", fail("Background"))
    await asyncio.wait([background])
    try:
        error = asyncpg.CheckViolationError(NUMBER)
        error.detail = NUMBER
        raise error
    except asyncpg.PostgresError as error:
        raise KeyError(NUMBER) from error

run_service("test", ServiceSettings(), start)
"""


async def test_a_service_logs_no_exceptions_text_from_anywhere() -> None:
    environment = os.environ | {"OPS_PORT": "0", "INTERNAL_TOKEN": "x" * 16, "A_NUMBER": NUMBER}
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        SERVICE,
        cwd=Path(__file__).parents[3],
        env=environment,
        stderr=asyncio.subprocess.PIPE,
    )
    _, error = await process.communicate()
    told = error.decode()
    assert process.returncode == 1
    assert NUMBER not in told
    for kind in ("Stopping", "Repeated", "Libs", "Ours", "Unawaited", "Background", "CheckViolationError", "KeyError"):
        assert kind in told
    lines = [json.loads(line) for line in told.splitlines()]  # whoever said it, each is a line of JSON
    assert [(line["level"], line["event"]) for line in lines if line.get("logger") == "lib"] == [
        ("error", '"failed"\n')
    ]
    (failed,) = [line for line in lines if line["event"] == "start failed"]
    assert failed["exception"].splitlines()[-1] == "KeyError"


def test_a_fault_tells_class_and_place_and_not_the_text() -> None:
    try:
        raise KeyError(NUMBER)
    except KeyError as error:
        assert fault(error).startswith("KeyError in test_faults.py:")
        assert "+49" not in fault(error)
    assert fault(KeyError("x")) == "KeyError"
    try:
        yaml.safe_load("{" + NUMBER)
    except yaml.YAMLError as error:  # in our code, not in that of a library
        assert fault(error).startswith("ParserError in test_faults.py:")


def test_a_trace_tells_the_way_of_an_error_and_its_causes_and_in_words_what_is_ours() -> None:
    try:
        try:
            int(NUMBER + "x")
        except ValueError as error:
            raise MigrationError("outbox: 0001.sql has changed") from error
    except MigrationError as error:
        told = trace(error)
    assert told.index("int(NUMBER") < told.index("ValueError\n") < told.index("raise MigrationError")
    assert told.endswith("\nMigrationError: outbox: 0001.sql has changed")
    assert NUMBER not in told
