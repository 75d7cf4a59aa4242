"""A child process that writes to a log file, stops within a budget, and never outlives the process that started it."""

import asyncio
import contextlib
import ctypes
import os
import pwd
import signal
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

_PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None)
_AUTOGROUP = Path("/proc/self/autogroup")


class StartError(Exception):
    """A process ended, or was not ready in time; the text carries the end of its log."""


class Child:
    """One running (or ended) process, the leader of a process group of its own."""

    def __init__(self, process: asyncio.subprocess.Process, log: Path) -> None:
        self._process = process
        self.log = log

    @classmethod
    async def spawn(
        cls,
        command: Sequence[str],
        *,
        log: Path,
        environment: Mapping[str, str] | None = None,
        directory: Path | None = None,
        user: pwd.struct_passwd | None = None,
        death_signal: signal.Signals = signal.SIGKILL,
        nice: int = 0,
    ) -> "Child":
        """Start `command`, appending its output to `log`. The higher `nice` (0 to 19), the later it gets a processor that others want.

        `death_signal` is what the kernel sends the child if this process dies without stopping it (prctl(2),
        PR_SET_PDEATHSIG). `user` runs it as that user; only root may ask for another one.
        """
        parent = os.getpid()

        def prepare() -> None:  # in the child, after setuid (which would clear the death signal), before exec
            _libc.prctl(_PR_SET_PDEATHSIG, int(death_signal))
            if os.getppid() != parent:
                os._exit(1)
            if nice:
                _be_nice(nice)

        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("ab") as output:
            process = await asyncio.create_subprocess_exec(
                *command,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=output,
                stderr=asyncio.subprocess.STDOUT,
                cwd=directory,
                env=environment,
                start_new_session=True,  # Ctrl-C reaches us alone: we stop the children, in order
                user=user.pw_uid if user else None,
                group=user.pw_gid if user else None,
                extra_groups=[] if user else None,
                preexec_fn=prepare,
            )
        return cls(process, log)

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def running(self) -> bool:
        return self._process.returncode is None

    @property
    def exit_code(self) -> int | None:
        """None while it runs; negative: ended by that signal."""
        return self._process.returncode

    async def wait(self) -> int:
        return await self._process.wait()

    def send_signal(self, number: signal.Signals) -> None:
        """Send a signal to the whole process group; no error if it has ended."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, number)

    async def stop(self, *, budget: float, with_signal: signal.Signals = signal.SIGTERM) -> bool:
        """Ask it to end, wait up to `budget` seconds, then kill it. True if it ended by itself."""
        in_time = True
        if self.running:
            self.send_signal(with_signal)
            self.send_signal(signal.SIGCONT)  # one that was suspended must wake up to hear it
            try:
                await asyncio.wait_for(self.wait(), budget)
            except TimeoutError:
                in_time = False
        await self.kill()
        return in_time

    async def kill(self) -> None:
        """SIGKILL to the group, whatever is left of it; returns when the process has ended."""
        self.send_signal(signal.SIGKILL)
        await self.wait()

    def log_tail(self, lines: int = 20) -> str:
        """The last lines that the process wrote."""
        with self.log.open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - 16_384))
            text = file.read().decode(errors="replace")
        return "\n".join(text.splitlines()[-lines:])


def _be_nice(nice: int) -> None:
    """Lower this process's priority, and its session's: where the kernel groups by session, it compares the groups alone (sched(7))."""
    os.nice(nice)
    for _ in range(50):
        try:
            _AUTOGROUP.write_text(str(nice))
            return
        except BlockingIOError:  # only root may set more than one in 0.1 s
            time.sleep(0.1)
        except OSError:  # sessions are not grouped here
            return


def describe_exit(code: int | None) -> str:
    """`signal 9`, `exit code 1`, …"""
    if code is None:
        return "still running"
    return f"signal {-code}" if code < 0 else f"exit code {code}"
