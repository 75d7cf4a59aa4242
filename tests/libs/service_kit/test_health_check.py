import asyncio
import subprocess
import sys

from deploy.local.ports import free_port
from libs.service_kit.ops_server import Health, start_ops_server

TOKEN = "a-token-of-16-or-more"


async def run_check(port: int) -> tuple[int, str]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "libs.service_kit.health_check", str(port), stdout=subprocess.PIPE
    )
    words, _ = await asyncio.wait_for(process.communicate(), 30)
    assert process.returncode is not None
    return process.returncode, words.decode()


async def test_the_check_succeeds_once_the_service_is_ready_and_says_before_what_is_missing() -> None:
    health = Health()
    health.starting = "waiting for kafka"
    port = free_port()
    runner = await start_ops_server("127.0.0.1", port, TOKEN, health)
    try:
        code, words = await run_check(port)
        assert code == 1
        assert "waiting for kafka" in words
        health.starting = None
        assert (await run_check(port))[0] == 0
    finally:
        await runner.cleanup()


async def test_the_check_fails_where_nobody_listens() -> None:
    code, words = await run_check(free_port())
    assert code == 1
    assert "ConnectionRefusedError" in words
