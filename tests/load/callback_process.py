"""The receiver of callbacks in a process of its own, so that what it costs is told apart."""

from __future__ import annotations

import asyncio
import gc
import socket
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import msgspec

from deploy import REPOSITORY
from deploy.local.ports import HOST
from tests.load.callbacks import Called, Expected, serve

_READY = b"ready\n"


class CallbackProcess:
    """Say what to `expect` before anything is sent."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    @property
    def pid(self) -> int:
        return self._process.pid

    def expect(self, numbers: range) -> None:
        assert self._process.stdin
        self._process.stdin.write(msgspec.json.encode(Expected(numbers.start, numbers.stop)) + b"\n")

    async def called(self) -> Called:
        """Returns when all expected callbacks came, or none for long."""
        assert self._process.stdout
        return msgspec.json.decode(await self._process.stdout.readline(), type=Called)


@asynccontextmanager
async def callback_process(port: int) -> AsyncGenerator[CallbackProcess]:
    """It listens on this port; ended in any case."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.load.callback_process", str(port)),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        cwd=REPOSITORY,
    )
    try:
        assert process.stdout
        if await process.stdout.readline() != _READY:
            raise RuntimeError("the receiver of callbacks did not come up")
        yield CallbackProcess(process)
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


def main() -> None:
    def write(line: bytes) -> None:
        sys.stdout.buffer.write(line)
        sys.stdout.buffer.flush()

    gc.disable()
    with socket.create_server((HOST, int(sys.argv[1])), backlog=1024) as listener:
        write(_READY)
        serve(listener, sys.stdin.fileno(), lambda called: write(msgspec.json.encode(called) + b"\n"))


if __name__ == "__main__":
    main()
