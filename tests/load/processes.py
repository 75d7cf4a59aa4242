"""What the processes of a system have used, from /proc: CPU time, also of children that have ended, and memory."""

from __future__ import annotations

import os
import time
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from deploy.local.stack import Stack

PROC = Path("/proc")
_LOOP = 3_000_000
_TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Usage:
    """CPU in seconds, of a process and all its descendants, and the resident memory in bytes of the largest of them."""

    pid: int
    cpu_seconds: float
    resident_bytes: int


@dataclass(frozen=True, slots=True)
class _Stat:
    parent: int
    ticks: int
    """user and system time, and that of children that have ended and were waited for"""


def pids_of(stack: Stack) -> dict[str, int]:
    """Everything that takes part in serving, and the carrier."""
    found = {process.spec.name: process.pid for process in stack.processes}
    found["Kafka"] = stack.broker.pid if stack.broker else None
    found["PostgreSQL"] = stack.database.pid if stack.database else None
    return {name: pid for name, pid in found.items() if pid is not None}


def usage(pids: Mapping[str, int]) -> dict[str, Usage]:
    """What each that still runs has used since its start. The descendants of one that are listed themselves are not counted to it."""
    stats = _read_all()
    children: defaultdict[int, list[int]] = defaultdict(list)
    for pid, stat in stats.items():
        children[stat.parent].append(pid)
    listed = set(pids.values())

    def family(pid: int) -> list[int]:
        return [pid, *(each for child in children[pid] if child not in listed for each in family(child))]

    found: dict[str, Usage] = {}
    for name, root in pids.items():
        if root not in stats:
            continue
        members = family(root)
        ticks = sum(stats[pid].ticks for pid in members)
        resident = max(_resident_bytes(pid) for pid in members)
        found[name] = Usage(root, ticks / _TICKS_PER_SECOND, resident)
    return found


def cpu_between(before: Mapping[str, Usage], after: Mapping[str, Usage]) -> dict[str, float]:
    """Seconds by name. AssertionError when the processes are not the same: one that was started again counts from zero."""
    pids, now = ({name: used.pid for name, used in moment.items()} for moment in (before, after))
    changed = sorted({name for name, _ in pids.items() ^ now.items()})
    assert not changed, f"ended or started meanwhile: {', '.join(changed)}"
    return {name: used.cpu_seconds - before[name].cpu_seconds for name, used in after.items()}


def busy_seconds() -> float:
    """CPU time that this machine has spent on anything since its start, all cores together."""
    user, nice, system, _idle, _wait, interrupts, soft_interrupts, *_ = map(
        int, (PROC / "stat").read_text().split("\n", 1)[0].split()[1:]
    )
    return (user + nice + system + interrupts + soft_interrupts) / _TICKS_PER_SECOND


def loop_seconds() -> float:
    """CPU time that a fixed piece of Python takes at the moment: what cores are worth that others on the same hardware slow down."""
    began = time.process_time()
    for _ in range(_LOOP):
        pass
    return time.process_time() - began


def _read_all() -> dict[int, _Stat]:
    found: dict[int, _Stat] = {}
    for directory in PROC.iterdir():
        if directory.name.isdigit():
            try:
                text = (directory / "stat").read_text()
            except (FileNotFoundError, ProcessLookupError):
                continue  # it has ended meanwhile
            fields = text[text.rindex(")") + 2 :].split()  # proc(5): from the state on; the name may hold anything
            found[int(directory.name)] = _Stat(int(fields[1]), sum(map(int, fields[11:15])))
    return found


def _resident_bytes(pid: int) -> int:
    try:
        lines = (PROC / str(pid) / "status").read_text().splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    fields = {name: rest for name, _, rest in (line.partition(":") for line in lines)}
    return int(fields.get("VmRSS", "0").split()[0]) * 1024
