"""What a page says of the code that was measured, and of the load."""

import os
import subprocess
from pathlib import Path

import pytest

from tests.load.post_load import Load
from tests.load.report import code_state, load_generator
from tests.load.workload import Workload


def git(repository: Path, *words: str) -> str:
    options = ("user.name=nobody", "user.email=nobody@example.org", "commit.gpgsign=false")
    command = ("git", *(word for option in options for word in ("-c", option)), *words)
    return subprocess.run(command, cwd=repository, capture_output=True, text=True, check=True).stdout.strip()


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in [name for name in os.environ if name.startswith("GIT_")]:  # in a hook they name the real repository
        monkeypatch.delenv(name)
    git(tmp_path, "init", "-q")
    for file in ("libs/code.py", "docs/benchmarks/single.md"):
        (tmp_path / file).parent.mkdir(parents=True)
        (tmp_path / file).write_text("as committed")
    git(tmp_path, "add", "--all")
    git(tmp_path, "commit", "-q", "-m", "First")
    return tmp_path


def test_a_page_names_the_commit_that_was_measured(repository: Path) -> None:
    commit = git(repository, "rev-parse", "--short", "HEAD")
    assert code_state(repository) == [f"commit {commit}"]
    (repository / "docs/benchmarks/single.md").write_text("of this very run")
    assert code_state(repository) == [f"commit {commit}"]


@pytest.mark.parametrize("file", ["libs/code.py", "libs/new.py"])
def test_a_page_says_that_the_code_differed_from_the_commit(repository: Path, file: str) -> None:
    (repository / file).write_text("changed")
    assert code_state(repository) == [f"commit {git(repository, 'rev-parse', '--short', 'HEAD')}, with changes"]


def test_without_git_a_page_says_nothing_of_it(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    unpacked = repository / "unpacked"
    unpacked.mkdir()
    assert code_state(unpacked) == []
    monkeypatch.setenv("PATH", "")
    assert code_state(repository) == []


def test_a_page_says_how_its_loads_were_sent() -> None:
    urgent = Load(url="", api_key="", work=Workload(messages=300), connections=8, rate=100)
    bulk = Load(url="", api_key="", work=Workload(messages=50_000, bulk=1_000), connections=64, pipeline=1)
    assert load_generator([urgent, bulk]) == (
        "load generator on raw sockets: one process sends single POSTs at 100 a second over 8 connections, at most 16 under way on each; "
        "one process sends bulk requests as fast as answers come over 50 connections, at most 1 under way on each"
    )
