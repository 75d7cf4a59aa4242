"""The free ports of the tests' processes."""

import pytest

from deploy.local import ports


def test_whoever_draws_from_shares_of_their_own_never_draw_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[int] = []
    for number in range(3):
        monkeypatch.setattr(ports, "_given", set())
        monkeypatch.setattr(ports, "_mine", ports._mine)
        ports.draw_from_share(number, 3)
        drawn += [ports.free_port() for _ in range(1000)]
    assert len(set(drawn)) == len(drawn)
