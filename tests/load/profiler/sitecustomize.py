"""A sampling profiler for any Python process: put this directory on PYTHONPATH, and name a directory in PROFILE_DIRECTORY.

SIGUSR1 begins (anew), SIGUSR2 ends and writes <pid>.json. It samples where CPU time goes, not waiting; what C code spends is its caller's.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections import Counter
from pathlib import Path
from types import CodeType, FrameType

INTERVAL_SECONDS = 0.002


class Sampler:
    def __init__(self, directory: str) -> None:
        self._file = Path(directory, f"{os.getpid()}.json")
        self._samples = 0
        self._own: Counter[CodeType] = Counter()
        self._within: Counter[CodeType] = Counter()

    def begin(self, _signal: int, _frame: FrameType | None) -> None:
        self._samples = 0
        self._own.clear()
        self._within.clear()
        signal.setitimer(signal.ITIMER_PROF, INTERVAL_SECONDS, INTERVAL_SECONDS)

    def sample(self, _signal: int, frame: FrameType | None) -> None:
        self._samples += 1
        if frame is None:
            return
        self._own[frame.f_code] += 1
        seen = set[CodeType]()
        while frame is not None:
            seen.add(frame.f_code)
            frame = frame.f_back
        self._within.update(seen)

    def end(self, _signal: int, _frame: FrameType | None) -> None:
        signal.setitimer(signal.ITIMER_PROF, 0)
        found = {"samples": self._samples, "own": _named(self._own), "cumulative": _named(self._within)}
        part = self._file.with_suffix(".part")
        part.write_text(json.dumps(found))
        part.rename(self._file)  # whole, or not there


def _named(counts: Counter[CodeType]) -> Counter[str]:
    names: Counter[str] = Counter()
    for code, count in counts.items():
        names[f"{_file(code.co_filename)}:{code.co_qualname}"] += count
    return names


def _file(path: str) -> str:
    """From the library or the repository on."""
    for cut in ("/site-packages/", f"/python3.{sys.version_info.minor}/", f"{Path.cwd()}/"):
        if cut in path:
            return path.rpartition(cut)[2]
    return path


if directory := os.environ.get("PROFILE_DIRECTORY"):
    sampler = Sampler(directory)
    signal.signal(signal.SIGPROF, sampler.sample)
    signal.signal(signal.SIGUSR1, sampler.begin)
    signal.signal(signal.SIGUSR2, sampler.end)
