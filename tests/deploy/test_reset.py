"""`make reset` forgets what is there, and what is not."""

from pathlib import Path

import pytest

from deploy.local import reset
from deploy.local.running_lock import running_lock


@pytest.mark.parametrize("there", [True, False])
def test_data_elsewhere_is_forgotten_even_if_it_is_gone(
    there: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run, home = tmp_path / ".run", tmp_path / "home"
    monkeypatch.setattr(reset, "RUN", run)
    monkeypatch.setattr(reset, "ROOT_HOME", home)
    (run / "postgres").mkdir(parents=True)
    (run / "postgres" / "data").symlink_to(home / "data-1")
    if there:
        (home / "data-1" / "base").mkdir(parents=True)
    reset.main()
    assert capsys.readouterr().out == f"Removed {run}.\n"
    assert not run.exists() and not (home / "data-1").exists()


def test_what_runs_is_not_forgotten(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reset, "RUN", tmp_path / ".run")
    with running_lock(reset.RUN), pytest.raises(SystemExit, match="stop it first"):
        reset.main()
    assert (reset.RUN / "lock").exists()
