"""At most one stack per checkout: a lock that the kernel frees when its holder ends, however it ends."""

import contextlib
import fcntl
import os
from collections.abc import Generator
from pathlib import Path


class AlreadyRunningError(Exception):
    """A stack runs here; the text names its process."""


@contextlib.contextmanager
def running_lock(directory: Path) -> Generator[None]:
    """Hold the lock of the stack in `directory`; `AlreadyRunningError` if another process does."""
    directory.mkdir(parents=True, exist_ok=True)
    with (directory / "lock").open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            raise AlreadyRunningError(
                f"Postrider is running here (process {file.read().strip()}): stop it first with Ctrl-C"
            ) from None
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield
