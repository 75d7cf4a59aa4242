"""How a service starts, waits, fails and stops: seen from its own process's inside, and over HTTP."""

import asyncio
import json
import signal
import ssl
import sys
from contextlib import suppress
from pathlib import Path

import aiohttp
import asyncpg
import pytest
from aiokafka.errors import KafkaConnectionError
from structlog.testing import capture_logs

from deploy.local.ports import free_port
from libs.service_kit import lifecycle, metrics
from libs.service_kit.lifecycle import Lifecycle
from libs.service_kit.ops_server import Health, start_ops_server
from libs.service_kit.settings import ServiceSettings

TOKEN = "x" * 16


def settings() -> ServiceSettings:
    return ServiceSettings.model_validate({"ops_port": 0, "internal_token": TOKEN})


async def test_a_part_is_waited_for_and_readiness_says_so():
    life = Lifecycle(settings())
    tries: list[str] = []

    async def start() -> str:
        tries.append(life.health.missing()["start"])
        if len(tries) < 3:
            raise ConnectionRefusedError("nobody there")
        return "open"

    assert await life.part("postgres", start) == "open"
    assert "waiting for postgres" in tries[2]


@pytest.mark.parametrize(
    "away",
    [
        asyncpg.CannotConnectNowError,
        asyncpg.TooManyConnectionsError,
        KafkaConnectionError,
        ssl.SSLCertVerificationError,
    ],
)
async def test_what_a_neighbour_says_while_it_is_away_is_waited_out(away: type[Exception]):
    life = Lifecycle(settings())
    tries: list[type[Exception]] = []

    async def start() -> str:
        if not tries:
            tries.append(away)
            raise away("a text")
        return "open"

    assert await life.part("thing", start) == "open"


@pytest.mark.parametrize(
    "fault",
    [
        ValueError,
        asyncpg.ClientConfigurationError,
        asyncpg.UndefinedTableError,
        asyncpg.CheckViolationError,
        asyncpg.NumericValueOutOfRangeError,
        asyncpg.RaiseError,
    ],
)
async def test_a_fault_that_is_nobodys_absence_ends_the_start(fault: type[Exception]):
    life = Lifecycle(settings())

    async def start() -> None:
        raise fault("a mistake of ours")

    with pytest.raises(fault, match="a mistake"):
        async with asyncio.timeout(5):
            await life.part("thing", start)


@pytest.mark.parametrize("code", ["42704", "22023"])
async def test_a_session_that_postgres_refuses_for_what_we_asked_ends_the_start(code: str):
    life = Lifecycle(settings())

    async def start() -> None:
        raise asyncpg.PostgresError.new({"S": "FATAL", "V": "FATAL", "C": code, "M": "a mistake of ours"})

    with pytest.raises(asyncpg.PostgresError, match="a mistake"):
        async with asyncio.timeout(5):
            await life.part("postgres", start)


async def test_background_work_that_fails_ends_the_service():
    life = Lifecycle(settings())

    async def work() -> None:
        raise RuntimeError("gone")

    life.background("work", work())
    async with asyncio.timeout(5):
        await life.wait_for_stop()
    assert life.failed


class Reader:
    """A consumer that takes a while to stop."""

    def __init__(self) -> None:
        self.state = "starting"
        self.budgets: list[float] = []

    @property
    def ready(self) -> bool:
        return self.state == "running"

    async def start(self) -> None:
        self.state = "running"

    async def stop(self, budget_seconds: float) -> None:
        self.budgets.append(budget_seconds)
        await asyncio.sleep(0.1)


async def test_without_its_consumers_a_service_is_not_ready():
    life, reader = Lifecycle(settings()), Reader()
    await life.consumer("marks", reader)
    life.health.starting = None
    assert life.health.missing() == {}
    reader.state = "stopped: too many dead letters"
    assert life.health.missing() == {"marks": "stopped: too many dead letters"}


async def test_consumers_that_stop_one_after_the_other_share_the_budget():
    life, first, second = Lifecycle(settings()), Reader(), Reader()
    await life.consumer("first", first)
    await life.consumer("second", second)
    await life.stop_all()
    assert settings().drain_budget_seconds - 1 < second.budgets[0] <= settings().drain_budget_seconds
    assert first.budgets[0] <= second.budgets[0] - 0.1


async def status_with_token(port: int, token: bytes) -> int:
    """A header whose octets no client library would send."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(
        b"GET /internal/x HTTP/1.1\r\nHost: x\r\nX-Postrider-Internal: %b\r\nConnection: close\r\n\r\n" % token
    )
    answer = await reader.read()
    writer.close()
    return int(answer.split()[1])


async def test_health_says_what_is_missing_and_the_internal_api_wants_its_token():
    health, port = Health(), free_port()
    health.starting = None
    health.add("kafka", lambda: "not there")

    async def inside(_: aiohttp.web.Request) -> aiohttp.web.Response:
        return aiohttp.web.Response(text="in")

    runner = await start_ops_server("127.0.0.1", port, TOKEN, health, [aiohttp.web.get("/internal/x", inside)])
    base = f"http://127.0.0.1:{port}"
    try:
        async with aiohttp.ClientSession() as session:
            async with session.get(f"{base}/health/ready") as answer:
                assert answer.status == 503
                assert (await answer.json())["missing"] == {"kafka": "not there"}
            async with session.get(f"{base}/health/live") as answer:
                assert answer.status == 200
            async with session.get(f"{base}/metrics") as answer:
                assert answer.content_type == "text/plain"  # Prometheus refuses what it does not know
                assert metrics.BOUND.describe()[0].name in await answer.text()
            async with session.get(f"{base}/internal/x") as answer:
                assert answer.status == 401
            assert await status_with_token(port, b"\xff") == 401
            assert await status_with_token(port, TOKEN.encode()) == 200
            async with session.get(f"{base}/internal/x", headers={"X-Postrider-Internal": TOKEN}) as answer:
                assert await answer.text() == "in"
    finally:
        await runner.cleanup()


SERVICE = """
import sys
from libs.service_kit.crash_points import crash_point
from libs.service_kit import lifecycle, metrics
from libs.service_kit.lifecycle import run_service
from libs.service_kit.settings import ServiceSettings

async def start(life):
    await life.serve_ops()
    async def hang():
        import asyncio
        print("stopping", flush=True)
        if "hang" in sys.argv:
            await asyncio.sleep(1000)
    life.on_stop("hang", hang)
    for _ in range(3):
        crash_point("test.point")
    print("up", flush=True)
    async def fail():
        raise KeyError
    if "fail" in sys.argv:
        life.background("work", fail())

run_service("test", ServiceSettings(), start)
"""


async def service(
    *arguments: str, stderr: int = asyncio.subprocess.DEVNULL, **environment: str
) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        SERVICE,
        *arguments,
        cwd=Path(__file__).parents[3],
        env={"PATH": "/usr/bin:/bin", "OPS_PORT": "0", "INTERNAL_TOKEN": TOKEN, **environment},
        stdout=asyncio.subprocess.PIPE,
        stderr=stderr,
    )


@pytest.mark.parametrize("told", [signal.SIGTERM, signal.SIGINT])
async def test_a_service_that_is_told_to_stop_does_so_in_order(told: signal.Signals):
    process = await service()
    assert process.stdout is not None
    assert await process.stdout.readline() == b"up\n"
    process.send_signal(told)
    assert await process.stdout.readline() == b"stopping\n"
    assert await process.wait() == 0


async def test_a_service_listens_where_and_logs_what_it_is_told_to():
    port = free_port()
    told = {"OPS_HOST": "127.0.0.2", "OPS_PORT": str(port), "LOG_LEVEL": "ERROR"}
    process = await service(stderr=asyncio.subprocess.PIPE, **told)
    assert process.stdout is not None
    assert await process.stdout.readline() == b"up\n"
    _, writer = await asyncio.open_connection("127.0.0.2", port)
    writer.close()
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection("127.0.0.1", port)
    process.terminate()
    _, logged = await process.communicate()
    assert logged == b""


async def test_a_service_whose_work_failed_stops_in_order_and_asks_to_be_started_again():
    process = await service("fail")
    output, _ = await process.communicate()
    assert output == b"up\nstopping\n"
    assert process.returncode == 1


async def test_a_stop_that_hangs_ends_hard_after_its_budget():
    process = await service("hang", stderr=asyncio.subprocess.PIPE, DRAIN_BUDGET_SECONDS="0.1")
    assert process.stdout is not None
    assert await process.stdout.readline() == b"up\n"
    process.send_signal(signal.SIGTERM)
    async with asyncio.timeout(60):
        _, logged = await process.communicate()
    assert process.returncode == 70
    last = json.loads(logged.splitlines()[-1])
    assert (last["service"], last["event"]) == ("test", "stop took too long, ending hard")


async def test_a_crash_point_kills_at_the_passing_that_is_asked_for():
    process = await service(CRASH_AT="test.point:3")
    assert await process.wait() == -signal.SIGKILL
    process = await service(CRASH_AT="test.point:4")
    assert process.stdout is not None
    assert await process.stdout.readline() == b"up\n"
    process.terminate()
    await process.wait()


async def until_missing(life: Lifecycle, missing: dict[str, str]) -> None:
    async with asyncio.timeout(10):
        while life.health.missing() != missing:
            await asyncio.sleep(0.001)


async def test_a_neighbour_that_does_not_answer_makes_the_service_not_ready_until_it_does(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(lifecycle, "WATCH_SECONDS", 0.001)
    life, there, refused = Lifecycle(settings()), True, 0

    async def ask() -> None:
        nonlocal refused
        if not there:
            refused += 1
            raise ConnectionRefusedError

    life.health.starting = None
    life.watch("postgres", ask)
    with capture_logs() as logs:
        there = False
        await until_missing(life, {"postgres": "does not answer: ConnectionRefusedError"})
        async with asyncio.timeout(10):
            while refused < 3:
                await asyncio.sleep(0.001)
        there = True
        await until_missing(life, {})
    assert [(each["event"], each["part"]) for each in logs] == [
        ("neighbour away", "postgres"),
        ("neighbour back", "postgres"),
    ]
    await life.stop_all()


async def test_a_neighbour_whose_question_can_not_be_called_off_makes_the_service_not_ready_meanwhile(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(lifecycle, "WATCH_SECONDS", 0.001)
    monkeypatch.setattr(lifecycle, "ANSWER_SECONDS", 0.001)
    life, answered, asked = Lifecycle(settings()), asyncio.Event(), 0

    async def ask() -> None:
        nonlocal asked
        asked += 1
        while not answered.is_set():
            with suppress(asyncio.CancelledError):
                await answered.wait()

    life.health.starting = None
    life.watch("postgres", ask)
    await until_missing(life, {"postgres": "does not answer: TimeoutError"})
    assert asked == 1
    answered.set()
    await until_missing(life, {})
    await life.stop_all()
