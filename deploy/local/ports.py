"""TCP ports on this machine: find a free one, or say which one is taken and how to choose another."""

import contextlib
import secrets
import socket
from collections.abc import Iterator, Mapping
from typing import ClassVar

from deploy.local.processes import StartError

HOST = "127.0.0.1"


class PortTakenError(StartError):
    """A port that the stack was told to use belongs to another program."""


_FREE = range(20_000, 30_000)
"""Below the ports that the kernel gives to outgoing connections: one of those could take a free port before its owner does."""
_mine = _FREE
_given: set[int] = set()


def draw_from_share(number: int, of: int) -> None:
    """Draw only from one share of the free ports (`number` counts from 0): who has another never draws the same."""
    global _mine
    _mine = _FREE[number::of]


def free_port() -> int:
    """A port that nobody listens on now, at random so that two programs rarely meet, and not the same twice."""
    while True:
        port = secrets.choice(_mine)  # unlike `random`, never seeded alike in two processes, as tools for tests do
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind((HOST, port))
            if port not in _given:
                _given.add(port)
                return port


def require_free(port: int, what: str, *, variable: str | None = None) -> None:
    """Raise `PortTakenError`, naming the port and the variable that moves it, unless `port` can be listened on."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # a connection in TIME_WAIT is no listener
        try:
            probe.bind((HOST, port))
        except OSError as error:
            remedy = f"; set {variable} to another one" if variable else ""
            raise PortTakenError(f"port {port} on {HOST} for {what} is taken{remedy}") from error


class Ports:
    """The ports of one stack: from the environment with defaults, or all found free. Fixed once asked for."""

    DEFAULTS: ClassVar = {
        "POSTRIDER_PORT": 8080,  # the API
        "KAFKA_PORT": 19092,
        "KAFKA_CONTROLLER_PORT": 19093,
        "POSTGRES_PORT": 15432,
        "CARRIER_SMPP_PORT": 2775,
        "CARRIER_HTTP_PORT": 2780,
    }
    OPS_BASE = "OPS_PORT_BASE"  # the processes' health and metrics servers have this port and those after it
    OPS_BASE_DEFAULT = 18100

    def __init__(self, fixed: Mapping[str, int], ops: Iterator[int]) -> None:
        self._fixed = fixed
        self._free_ops = ops
        self._ops: dict[str, int] = {}

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> "Ports":
        """Raises `StartError` naming a variable that is no port."""

        def port(variable: str, default: int) -> int:
            text = environment.get(variable, str(default))
            if not (text.isascii() and text.isdigit() and 0 < int(text) < 65_536):
                raise StartError(f"{variable}={text} is not a port: give a number from 1 to 65535")
            return int(text)

        fixed = {variable: port(variable, default) for variable, default in cls.DEFAULTS.items()}
        return cls(fixed, iter(range(port(cls.OPS_BASE, cls.OPS_BASE_DEFAULT), 65_536)))

    @classmethod
    def free(cls) -> "Ports":
        return cls({variable: free_port() for variable in cls.DEFAULTS}, iter(free_port, None))

    def __getitem__(self, variable: str) -> int:
        return self._fixed[variable]

    def ops(self, process: str) -> int:
        """The ops port of a process, the same for as long as this stack lives. Raises `StartError` if none is left."""
        if process not in self._ops:
            port = next(self._free_ops, None)
            if port is None:
                raise StartError(f"no port is left for the health of {process}: set {self.OPS_BASE} lower")
            self._ops[process] = port
        return self._ops[process]
