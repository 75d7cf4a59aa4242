"""The container engine of `make test-compose`, as far as it can be tested without starting one."""

import os
from pathlib import Path

import pytest

from deploy.containers import docker, engine


@pytest.fixture
def policy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(engine, "POLICY", tmp_path / "policy-rc.d")
    return engine.POLICY


def test_services_stay_off_while_packages_are_installed_and_the_machine_is_left_as_it_was(policy: Path) -> None:
    with pytest.raises(RuntimeError), engine.services_stay_off():
        assert policy.read_text() == "#!/bin/sh\nexit 101\n"
        assert os.access(policy, os.X_OK)
        raise RuntimeError("the installation failed")
    assert not policy.exists()


def test_a_policy_that_the_machine_has_is_left_alone(policy: Path) -> None:
    policy.write_text("the machine's own")
    with engine.services_stay_off():
        assert policy.read_text() == "the machine's own"
    assert policy.read_text() == "the machine's own"


def test_without_an_engine_or_the_right_to_start_one_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(docker, "client", lambda _environment: None)
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(engine.NoEngineError, match="only root on Linux can start one"), engine.engine(lambda _: None):
        pass


def test_a_command_that_fails_tells_the_end_of_its_output() -> None:
    with pytest.raises(docker.DockerError, match=r"(?s)ended with 3:.*went wrong"):
        docker.command(("sh", "-c", "echo it went wrong; exit 3"), {}, timeout=10)


def test_a_command_that_does_not_end_is_given_up() -> None:
    with pytest.raises(docker.DockerError, match="not done after"):
        docker.command(("sleep", "20"), {}, timeout=0.2)
