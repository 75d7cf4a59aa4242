"""The benchmark's own arithmetic."""

import json
import os
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from tests.load import tables
from tests.load.arithmetic import milliseconds, percentile, spread
from tests.load.post_load import Load, Result
from tests.load.report import Table
from tests.load.runs import Growth, Run
from tests.load.scenarios.profile import PROFILER, Samples, functions
from tests.load.storage import Written
from tests.load.workload import Workload, number_in, text_of


def load(rate: float | None = None, *, first: int = 1, messages: int = 4) -> Load:
    return Load(url="", api_key="", work=Workload(messages=messages, first=first), rate=rate)


def result(began: float, seconds: float, *latencies: float) -> Result:
    return Result(messages=4, began=began, seconds=seconds, statuses={202: 4}, latencies=list(latencies))


def run(
    loads: list[Load], results: list[Result], seconds: float = 4.0, arrivals: dict[int, float] | None = None
) -> Run:
    return Run(
        loads=loads,
        results=results,
        began=100.0,
        seconds=seconds,
        arrivals=arrivals or {},
        cpu={"a": 0.5, "b": 1.5},
        memory={"a": 10_000_000},
        elsewhere=0.0,
        growth=Growth(wal=4_000, tables={"outbox.events": 2_000, "small.one": 40}, kafka=800),
        loop=0.1,
    )


def test_a_percentile_is_a_value_that_was_measured() -> None:
    ordered = [float(n) for n in range(1, 101)]
    assert [percentile(ordered, p) for p in (0, 50, 95, 99, 100)] == [1, 51, 96, 100, 100]
    assert percentile([7.0], 99) == 7
    assert milliseconds([0.001, 0.002, 0.0305]) == ("2.0", "30.5", "30.5")


def test_a_spread_is_the_median_with_its_bounds() -> None:
    assert spread([3.0, 1.0, 2.0], ".1f") == "2.0 (1.0–3.0)"
    assert spread([1234.0], ",.0f") == "1,234"


def test_rates_count_to_the_last_answer_of_any_load_and_to_the_last_delivery() -> None:
    both = run([load(), load(first=5)], [result(100.0, 1.0), result(101.0, 1.0)])
    assert both.messages == 8
    assert both.accepted_per_second == 8 / 2.0
    assert both.per_second == 8 / 4.0
    assert both.cpu_us == 2.0 / 8 * 1e6
    assert both.cores == 2.0 / 4.0


def test_latency_at_a_rate_counts_from_when_each_message_was_due() -> None:
    arrivals = {11: 100.1, 12: 100.9, 13: 101.2, 14: 101.5}  # due at 100.0, 100.5, 101.0, 101.5
    measured = run([load(rate=2, first=11)], [result(100.0, 2.0)], arrivals=arrivals)
    assert measured.to_carrier() == pytest.approx([0.0, 0.1, 0.2, 0.4])


def test_tables_state_costs_per_message() -> None:
    once = run([load()], [result(100.0, 1.0, 0.2, 0.1)])
    assert [row[:2] for row in tables.processes([once]).rows] == [("b", "375000.0"), ("a", "125000.0")]
    rows = {row[0]: row[1] for row in tables.disk([once]).rows}
    assert rows == {
        "`outbox.events`": "500",
        "all tables": "510",
        "PostgreSQL's log (WAL)": "1,000",
        "Kafka's logs (kept for 14 days)": "200",
    }
    assert "| POST → 202, p50 (ms) | 200.0 |" in str(tables.rates([once]))


def test_tables_side_by_side_keep_the_order_of_the_first() -> None:
    one = Table(title="1", head=("", ""), rows=[("a", "1", "x"), ("b", "2", "y")])
    two = Table(title="2", head=("", ""), rows=[("b", "4"), ("a", "3")])
    both = tables.side_by_side("both", {"one": one, "two": two})
    assert (both.head, both.rows) == (("", "one", "two"), [("a", "1", "3"), ("b", "2", "4")])


def test_what_was_written_before_is_not_counted_again() -> None:
    grown = Written(90, Counter(a=7, b=2), 30).since(Written(50, Counter(a=3, b=2), 10))
    assert (grown.wal, grown.tables, grown.kafka) == (40, {"a": 4}, 20)


def test_requests_hold_each_number_once_also_when_the_last_bulk_is_not_full() -> None:
    work = Workload(messages=25, first=100, bulk=10, scheduled_at="2030-01-01T00:00:00Z")
    bodies = work.bodies(range(work.requests))
    messages = [message for body in bodies for message in json.loads(body)["messages"]]
    assert [len(json.loads(body)["messages"]) for body in bodies] == [10, 10, 5]
    assert [number_in(message["message"].encode()) for message in messages] == list(range(100, 125))
    assert {message["scheduledAt"] for message in messages} == {"2030-01-01T00:00:00Z"}
    assert len(text_of(1)) == len(text_of(10**12 - 1)) == 60


def test_a_profile_states_shares_and_microseconds_of_the_most_expensive_functions_first() -> None:
    samples = Samples(samples=200, own={"a": 50, "b": 150}, cumulative={"a": 200, "b": 150})
    within, own = functions(samples, cpu_us=40.0)
    assert list(within.rows) == [("`a`", "100.0%", "40.00"), ("`b`", "75.0%", "30.00")]
    assert list(own.rows) == [("`b`", "75.0%", "30.00"), ("`a`", "25.0%", "10.00")]


def test_the_sampler_finds_where_cpu_time_goes(tmp_path: Path) -> None:
    program = (
        "import sys, time\n"
        "def burn():\n    end = time.process_time() + 0.4\n    while time.process_time() < end: pass\n"
        "print(flush=True)\nsys.stdin.readline()\nburn()\nprint(flush=True)\nsys.stdin.readline()\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(PROFILER), "PROFILE_DIRECTORY": str(tmp_path)}
    with subprocess.Popen(
        [sys.executable, "-c", program], env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin
        assert process.stdout
        process.stdout.readline()
        process.send_signal(signal.SIGUSR1)
        process.stdin.write("\n")
        process.stdin.flush()
        process.stdout.readline()
        process.send_signal(signal.SIGUSR2)
        process.stdin.write("\n")
        process.stdin.flush()
        process.wait(10)
    found: Samples = json.loads((tmp_path / f"{process.pid}.json").read_text())
    [burn] = [name for name in found["cumulative"] if name.endswith(":burn")]
    assert found["samples"] > 10
    assert found["cumulative"][burn] > found["samples"] * 0.8
