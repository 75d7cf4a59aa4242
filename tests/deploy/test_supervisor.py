import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from deploy import REPOSITORY
from deploy.local.ports import free_port
from deploy.local.processes import Child, StartError
from deploy.local.supervisor import ProcessSpec, Supervisor, missing

FAKE_SERVICE = Path(__file__).with_name("fake_service.py")


class Setting:
    """A supervisor with what it said, and specs of fake services."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.said: list[str] = []
        self.supervisor = Supervisor(directory / "logs", self.said.append)

    def spec(self, name: str, **environment: str) -> ProcessSpec:
        port = free_port()
        own = {"NAME": name, "OPS_PORT": str(port), "STOP_ORDER": str(self.directory / "order"), **environment}
        return ProcessSpec(
            name=name,
            command=(sys.executable, str(FAKE_SERVICE)),
            environment={**os.environ, **own},
            ready_url=f"http://127.0.0.1:{port}/health/ready",
            directory=self.directory,
        )

    def stop_order(self) -> list[str]:
        return (self.directory / "order").read_text().split()


@pytest.fixture
async def setting(tmp_path: Path) -> AsyncIterator[Setting]:
    setting = Setting(tmp_path)
    yield setting
    await setting.supervisor.stop_all(budget=1)


async def test_start_returns_when_the_process_is_ready(setting: Setting) -> None:
    process = await setting.supervisor.start(setting.spec("slow", SLOW_START="0.5"))
    assert await missing(process.spec.ready_url) is None


async def test_a_nice_process_is_nice_to_other_sessions_too(setting: Setting) -> None:
    process = await setting.supervisor.start(replace(setting.spec("nice"), nice=7))
    assert process.pid is not None
    assert os.getpriority(os.PRIO_PROCESS, process.pid) == os.getpriority(os.PRIO_PROCESS, 0) + 7
    group = Path(f"/proc/{process.pid}/autogroup")
    assert not group.exists() or group.read_text().endswith(" nice 7\n")


async def test_a_process_that_dies_is_started_again_and_that_is_said(setting: Setting) -> None:
    process = await setting.supervisor.start(setting.spec("mortal"))
    first = process.pid
    await process.kill()
    await process.wait_until_ready(within=20)
    assert process.pid not in (None, first)
    assert process.deaths == [-9]
    assert any("mortal died (signal 9); starting it again in 0.5 s" in line for line in setting.said)


async def test_each_death_is_counted_until_the_process_is_stopped(setting: Setting) -> None:
    process = await setting.supervisor.start(setting.spec("mortal"))
    for _ in range(2):
        await process.kill()
        await process.wait_until_ready(within=20)
    await process.stop()
    assert process.deaths == [-9, -9]
    assert process.pid is None
    waits = [line.partition("starting it again in ")[2].partition(";")[0] for line in setting.said if "died" in line]
    assert waits == ["0.5 s", "1 s"]


async def test_a_restart_is_in_order_and_no_death_and_what_is_set_once_holds_until_one(setting: Setting) -> None:
    process = await setting.supervisor.start(setting.spec("second"))
    first = process.pid
    await process.restart(once={"NAME": "first-again"})
    await process.wait_until_ready(within=20)
    assert process.pid not in (None, first)
    assert process.deaths == []
    await process.kill()
    await process.wait_until_ready(within=20)
    await process.stop()
    assert setting.stop_order() == ["second", "second"]
    assert process.deaths == [-9]


async def test_a_restarted_process_that_dies_before_it_is_ready_is_started_again(setting: Setting) -> None:
    process = await setting.supervisor.start(setting.spec("mortal"))
    await process.restart(once={"SLOW_START": "60"})
    await process.kill()
    await process.wait_until_ready(within=20)
    assert process.deaths == [-9]


async def test_what_is_set_once_is_gone_after_a_death(setting: Setting) -> None:
    spec = setting.spec("changed")
    process = await setting.supervisor.start(spec, once={"NAME": "first-life"})
    await process.kill()
    await process.wait_until_ready(within=20)
    await process.stop()
    assert setting.stop_order() == ["changed"]


async def test_processes_stop_in_reverse_order(setting: Setting) -> None:
    for name in ("first", "second", "third"):
        await setting.supervisor.start(setting.spec(name))
    await setting.supervisor.stop_all()
    assert setting.stop_order() == ["third", "second", "first"]


async def test_a_process_that_ignores_sigterm_is_killed_after_its_budget(setting: Setting) -> None:
    process = await setting.supervisor.start(setting.spec("deaf", DEAF="yes"))
    pid = process.pid
    await setting.supervisor.stop("deaf", budget=0.3)
    assert any("deaf did not stop within" in line for line in setting.said)
    assert "draining" in process.log.read_text()
    with pytest.raises(ProcessLookupError):
        os.kill(pid or 0, 0)


async def test_a_process_that_does_not_stop_in_order_is_told_of(setting: Setting) -> None:
    await setting.supervisor.start(setting.spec("orderly"))
    process = await setting.supervisor.start(setting.spec("hanging", STOP_CODE="70"))  # as one that never gets done
    await setting.supervisor.stop_all()
    told = [line for line in setting.said if "did not stop" in line]
    assert told == [f"hanging did not stop in order (exit code 70); see {process.log}"]


async def test_a_process_that_died_before_it_was_stopped_is_told_of_once(setting: Setting) -> None:
    process = await setting.supervisor.start(setting.spec("mortal"))
    await process.kill()
    await process.stop()
    assert [line.partition(" (")[0] for line in setting.said] == ["mortal died"]


async def test_a_suspended_process_can_be_resumed_and_stopped(setting: Setting) -> None:
    process = await setting.supervisor.start(setting.spec("sleeper"))
    process.suspend()
    assert await missing(process.spec.ready_url) is not None
    process.resume()
    await process.wait_until_ready(within=20)
    process.suspend()
    await process.stop()
    assert setting.stop_order() == ["sleeper"]


async def test_a_process_that_ends_while_starting_shows_its_log(setting: Setting) -> None:
    with pytest.raises(StartError, match=r"(?s)ended while starting \(exit code 1\).*no such setting: COLOUR"):
        await setting.supervisor.start(setting.spec("broken", DIE_AT_ONCE="yes"))
    assert setting.supervisor.processes == ()


async def test_a_process_that_is_never_ready_says_what_is_missing(
    setting: Setting, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("deploy.local.supervisor.READY_SECONDS", 1.0)
    with pytest.raises(StartError, match=r"was not ready after 1 s \(503 waiting for kafka\)"):
        await setting.supervisor.start(setting.spec("waiting", NEVER_READY="waiting for kafka"))


async def test_children_end_with_the_process_that_started_them(setting: Setting) -> None:
    """A parent that is killed outright can stop nobody: the kernel does it."""
    spec = setting.spec("orphan")
    script = f"""
import asyncio, os, signal
from pathlib import Path
from deploy.local.supervisor import ProcessSpec, Supervisor

async def main():
    spec = ProcessSpec(name="orphan", command={spec.command!r}, environment={dict(spec.environment)!r},
                       ready_url={spec.ready_url!r}, directory=Path({str(setting.directory)!r}))
    await Supervisor(Path({str(setting.directory)!r}), print).start(spec)
    print("the orphan was ready", flush=True)
    os.kill(os.getpid(), signal.SIGKILL)

asyncio.run(main())
"""
    parent = await Child.spawn((sys.executable, "-c", script), log=setting.directory / "log", directory=REPOSITORY)
    assert await parent.wait() == -signal.SIGKILL
    assert "the orphan was ready" in parent.log_tail()
    async with asyncio.timeout(10):
        while await missing(spec.ready_url) is None:
            await asyncio.sleep(0.05)
