"""A load in a process of its own, so that what it costs is told apart and nothing that measures gets in its way."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager

import msgspec

from deploy import REPOSITORY
from tests.load.post_load import Load, Result, run

_READY = b"ready\n"


class LoadProcess:
    """Connected; `run` sends."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    async def run(self) -> Result:
        """Raises RuntimeError when the load failed; its own words are on stderr."""
        output, _ = await self._process.communicate(b"go\n")
        if self._process.returncode:
            raise RuntimeError("the load generator failed")
        return msgspec.msgpack.decode(output, type=Result)


@asynccontextmanager
async def load_processes(loads: Sequence[Load]) -> AsyncGenerator[list[LoadProcess]]:
    """A process for each load, ready to send; ended in any case."""
    started: list[asyncio.subprocess.Process] = []
    try:
        for load in loads:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "tests.load.load_process"),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                cwd=REPOSITORY,
                limit=1 << 20,
            )
            started.append(process)
            assert process.stdin and process.stdout
            process.stdin.write(msgspec.json.encode(load) + b"\n")
        for process in started:
            assert process.stdout
            if await process.stdout.readline() != _READY:
                raise RuntimeError("the load generator did not come up")
        yield [LoadProcess(process) for process in started]
    finally:
        for process in started:
            if process.returncode is None:
                process.kill()
                await process.wait()


def main() -> None:
    load = msgspec.json.decode(sys.stdin.buffer.readline(), type=Load)

    def ready() -> None:
        sys.stdout.buffer.write(_READY)
        sys.stdout.buffer.flush()
        sys.stdin.buffer.readline()

    result = run(load, ready)
    sys.stdout.buffer.write(msgspec.msgpack.encode(result))


if __name__ == "__main__":
    main()
