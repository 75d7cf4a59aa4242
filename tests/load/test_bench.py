"""What pages say of the conditions under which they were measured."""

import os
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from tests.load import bench
from tests.load.ground import Ground
from tests.load.plan import QUICK
from tests.load.report import Page


@pytest.fixture
def load(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The machine's load average is the last of these."""
    averages = [0.5]
    monkeypatch.setattr(os, "getloadavg", lambda: (averages[-1], 0.0, 0.0))
    return averages


async def test_the_load_average_is_that_before_each_scenario_which_is_named_where_it_is_the_benchmarks_own(
    load: list[float], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def loading(average: float) -> Callable[[Ground], Awaitable[Page]]:
        async def measure(_ground: Ground) -> Page:
            load.append(average)
            return Page(title="", words="", tables=[])

        return measure

    async def failing(_ground: Ground) -> Page:
        load.append(8.5)
        raise RuntimeError

    monkeypatch.setattr(bench, "SCENARIOS", {"one": loading(4.5), "two": failing, "three": loading(9.5)})
    assert await bench.measure(["one", "two", "three"], QUICK, tmp_path) == ["two"]
    assert "load average when the scenario began: 0.5\n" in (tmp_path / "one.md").read_text()
    assert "began: 8.5 (the benchmark's own `two` ran until then)\n" in (tmp_path / "three.md").read_text()
