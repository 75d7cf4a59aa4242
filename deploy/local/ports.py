"""TCP ports on this machine: find a free one, or say which one is taken and how to choose another."""

import socket

from deploy.local.processes import StartError

HOST = "127.0.0.1"


class PortTakenError(StartError):
    """A port that the stack was told to use belongs to another program."""


def free_port() -> int:
    """A port that nobody listens on now (the kernel hands them out in turn, so two callers rarely meet)."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


def require_free(port: int, what: str, *, variable: str | None = None) -> None:
    """Raise `PortTakenError`, naming the port and the variable that moves it, unless `port` can be listened on."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # a connection in TIME_WAIT is no listener
        try:
            probe.bind((HOST, port))
        except OSError as error:
            remedy = f"; set {variable} to another one" if variable else ""
            raise PortTakenError(f"port {port} on {HOST} for {what} is taken{remedy}") from error
