"""The window's bookkeeping."""

import pytest

from libs.smpp import window
from libs.smpp.window import Window


def test_a_token_is_in_flight_until_its_answer() -> None:
    open_ones = Window(2, 10.0)
    open_ones.add(1, "a", now=0.0)
    open_ones.add(2, "b", now=0.0)
    assert (open_ones.in_flight, open_ones.free) == (2, 0)
    assert open_ones.take(2) == "b"
    assert (open_ones.in_flight, open_ones.free) == (1, 1)
    with pytest.raises(KeyError):
        open_ones.take(2)


def test_time_over_is_told_once_frees_the_window_and_a_late_answer_still_counts() -> None:
    open_ones = Window(2, 10.0)
    open_ones.add(1, "a", now=0.0)
    open_ones.add(2, "b", now=5.0)
    assert open_ones.expire(9.9) == []
    assert open_ones.expire(10.0) == ["a"]
    assert open_ones.expire(10.0) == []
    assert open_ones.in_flight == 1
    assert open_ones.take(1) == "a"
    with pytest.raises(KeyError):
        open_ones.take(1)


def test_the_end_gives_what_is_in_flight_and_forgets_the_rest() -> None:
    open_ones = Window(3, 10.0)
    open_ones.add(1, "a", now=0.0)
    open_ones.add(2, "b", now=5.0)
    open_ones.expire(10.0)
    assert open_ones.close() == ["b"]
    assert open_ones.close() == []
    with pytest.raises(KeyError):
        open_ones.take(1)


def test_only_so_many_late_ones_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(window, "MAX_REMEMBERED", 2)
    open_ones = Window(3, 1.0)
    for sequence in (1, 2, 3):
        open_ones.add(sequence, sequence, now=0.0)
    open_ones.expire(1.0)
    with pytest.raises(KeyError):
        open_ones.take(1)
    assert open_ones.take(3) == 3
