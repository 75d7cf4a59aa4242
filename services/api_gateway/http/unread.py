"""How much of its answers a client has not taken yet."""

from __future__ import annotations

import termios
from array import array
from contextlib import suppress
from fcntl import ioctl
from typing import Any


def unread_bytes(transport: Any) -> int:
    """What was written and the client's host has not acknowledged (bytes).

    The transport's own buffer says too little: the kernel has megabytes beside it, and takes more only once a third of them is gone.
    """
    kernels = array("i", [0])
    if (socket := transport.get_extra_info("socket")) is not None:
        with suppress(OSError):  # it is closed already
            ioctl(socket.fileno(), termios.TIOCOUTQ, kernels)  # tcp(7)
    return transport.get_write_buffer_size() + kernels[0]
