"""Talks to the running stack: `python -m deploy.local.control status | scale GATEWAY REPLICAS | kill PROCESS`.

One JSON object per line each way, over a Unix socket that only the user who started the stack can open.
"""

import asyncio
import contextlib
import json
import os
import socket
import sys
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

from deploy import REPOSITORY, running_stack
from deploy.local.processes import StartError
from deploy.local.stack import Stack

SOCKET = REPOSITORY / ".run" / "control.sock"
USAGE = "usage: status | scale GATEWAY REPLICAS | kill PROCESS"

Message = dict[str, Any]


def write_environment(stack: Stack) -> None:
    """How everything is reached at this moment, in the directory's `env`: for `.` in a shell, and for commands."""
    running_stack.write(stack.environment(), stack.directory / "env")


@contextlib.asynccontextmanager
async def serve(stack: Stack, path: Path) -> AsyncGenerator[None]:
    """Answer requests as long as the context lasts."""

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            answer = await _answer(stack, json.loads(await reader.readline()))
        except (KeyError, ValueError, StartError) as error:
            answer = {"error": str(error.args[0]) if error.args else type(error).__name__}
        with contextlib.suppress(ConnectionError):
            writer.write(json.dumps(answer).encode() + b"\n")
            await writer.drain()
        writer.close()

    server = await asyncio.start_unix_server(talk, _address(path))
    await asyncio.to_thread(path.chmod, 0o600)
    try:
        yield
    finally:
        server.close()


async def _answer(stack: Stack, request: Message) -> Message:
    match request:
        case {"command": "status"}:
            return {
                "processes": [{"name": p.spec.name, "pid": p.pid, "deaths": len(p.deaths)} for p in stack.processes]
            }
        case {"command": "scale", "gateway": str(gateway), "replicas": int(replicas)} if 0 <= replicas <= 100:
            try:
                await stack.scale(gateway, replicas)
            finally:  # some may have started before one that could not
                write_environment(stack)
            addresses = {p.spec.name: p.spec.ready_url for p in stack.dispatchers(gateway)}
            return {"gateway": gateway, "replicas": len(addresses), **addresses}
        case {"command": "kill", "process": str(name)}:
            await stack.process(name).kill()
            return {"killed": name}
        case _:
            raise ValueError(USAGE)


def _address(path: Path) -> str:
    return os.path.relpath(path)  # the shorter way: a socket's address has 107 bytes at most


def ask(request: Message, path: Path = SOCKET) -> Message:
    """Send one request to the running stack. Raises `OSError` if none is running."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(_address(path))
        connection.sendall(json.dumps(request).encode() + b"\n")
        with connection.makefile() as answer:
            return json.loads(answer.readline())


def _request(arguments: list[str]) -> Message:
    match arguments:
        case ["status"]:
            return {"command": "status"}
        case ["scale", gateway, replicas] if replicas.isdecimal():
            return {"command": "scale", "gateway": gateway, "replicas": int(replicas)}
        case ["kill", process]:
            return {"command": "kill", "process": process}
        case _:
            raise SystemExit(USAGE)


def main() -> None:
    request = _request(sys.argv[1:])
    try:
        answer = ask(request)
    except OSError:
        raise SystemExit("Postrider is not running here: start it with `make run`") from None
    if "error" in answer:
        raise SystemExit(answer["error"])
    for process in answer.pop("processes", []):
        print(f"{process['name']:<24} pid {process['pid'] or '-':<8} died {process['deaths']} times")
    for word, value in answer.items():
        print(f"{word}: {value}")


if __name__ == "__main__":
    main()
