"""`make setup` is for tests and benchmarks too, which start servers of their own: what `make run` is to use says nothing to it."""

import os
from pathlib import Path

import pytest

from deploy.local import postgres_binaries, prepare


@pytest.fixture(autouse=True)
def servers_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KAFKA_BOOTSTRAP_SERVERS", "elsewhere:9092")
    monkeypatch.setenv("POSTGRES_DSN", "postgresql://elsewhere/postrider")


def test_what_the_servers_of_the_tests_need_is_fetched_whatever_servers_are_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    steps: list[str] = []
    monkeypatch.setattr(prepare, "install_system_packages", lambda: None)
    monkeypatch.setattr(prepare, "step", lambda name, _work, *, needed: steps.append(name))
    monkeypatch.setattr(postgres_binaries, "installed", lambda: None)
    prepare.main()
    assert steps == ["Python packages", "Kafka's jars", "Kafka's class archive", "PostgreSQL"]


def test_a_java_that_is_missing_is_named_whatever_servers_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prepare, "java_version", lambda: 0)
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(prepare.SetupError, match=r"Missing: Java 17 or newer.*openjdk-17"):
        prepare.install_system_packages()


def test_what_was_made_from_something_else_is_made_anew(tmp_path: Path) -> None:
    source = tmp_path / "requirements.lock"
    source.write_text("one")
    assert not prepare.stamped(tmp_path, source)
    prepare.stamp(tmp_path, source)
    assert prepare.stamped(tmp_path, source)
    source.write_text("two")
    assert not prepare.stamped(tmp_path, source)
