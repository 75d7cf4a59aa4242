"""What processes are said to have used, against children that are known to have used something."""

import os
import subprocess
import sys
from contextlib import ExitStack

import pytest

from tests.load.processes import Usage, cpu_between, usage

BURN = "import time\nend = time.process_time() + 0.25\nwhile time.process_time() < end: pass\n"
BURN_IN_A_CHILD = f"import subprocess, sys\nsubprocess.run([sys.executable, '-c', {BURN!r}])\n"
HOLD = "held = b'x' * 50_000_000\n"
THEN_WAIT = "print(flush=True)\nsys.stdin.read()\n"


def test_children_count_to_their_parent_also_when_they_have_ended_and_memory_is_what_is_held() -> None:
    with ExitStack() as started:
        parents: dict[str, int] = {}
        for name, work in (("idle", ""), ("busy", f"{BURN_IN_A_CHILD}{HOLD}")):
            command = [sys.executable, "-c", f"import sys\n{work}{THEN_WAIT}"]
            process = started.enter_context(
                subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            )
            assert process.stdout
            process.stdout.readline()
            parents[name] = process.pid
        used = usage(parents)
    assert used["busy"].cpu_seconds >= 0.2 > used["idle"].cpu_seconds
    assert used["busy"].resident_bytes >= used["idle"].resident_bytes + 40_000_000


def test_a_child_that_is_listed_itself_is_not_counted_twice() -> None:
    command = [sys.executable, "-c", f"import sys\n{BURN}{THEN_WAIT}"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout
        child.stdout.readline()
        apart = usage({"parent": os.getpid(), "child": child.pid})
        together = usage({"parent": os.getpid()})
    assert apart["child"].cpu_seconds >= 0.2
    assert together["parent"].cpu_seconds >= apart["parent"].cpu_seconds + 0.2


def test_what_was_used_meanwhile_is_that_of_the_same_processes() -> None:
    before = {"a": Usage(10, 2.0, 1), "b": Usage(11, 5.0, 1)}
    assert cpu_between(before, {"a": Usage(10, 3.5, 1), "b": Usage(11, 5.0, 1)}) == {"a": 1.5, "b": 0.0}


@pytest.mark.parametrize(
    "after",
    [
        {"a": Usage(10, 3.5, 1), "b": Usage(12, 0.1, 1)},
        {"a": Usage(10, 3.5, 1)},
        {"a": Usage(10, 3.5, 1), "b": Usage(11, 5.0, 1), "c": Usage(12, 0.1, 1)},
    ],
    ids=["started again", "ended", "started"],
)
def test_a_process_that_ended_or_started_meanwhile_fails_the_run(after: dict[str, Usage]) -> None:
    with pytest.raises(AssertionError, match=r"meanwhile: [bc]$"):
        cpu_between({"a": Usage(10, 2.0, 1), "b": Usage(11, 5.0, 1)}, after)


def test_a_process_that_has_gone_is_not_said_to_have_used_anything() -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as gone:
        gone.wait()
    assert usage({"gone": gone.pid}) == {}
