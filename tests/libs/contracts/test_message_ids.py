import time
from datetime import UTC, datetime, timedelta
from uuid import RFC_4122, UUID, uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from libs.contracts import message_ids
from libs.contracts.message_ids import first_id, is_message_id, moment_of, new_message_id, time_of


def test_ids_are_version_7_of_the_standard_variant() -> None:
    made = [new_message_id() for _ in range(1000)]
    assert {(i.version, i.variant) for i in made} == {(7, RFC_4122)}


def test_ids_rise_within_a_millisecond() -> None:
    made = [new_message_id() for _ in range(20_000)]
    assert made == sorted(made)
    assert len(set(made)) == len(made)


def test_ids_rise_when_the_clock_goes_back_a_little(monkeypatch: pytest.MonkeyPatch) -> None:
    before = new_message_id()
    earlier = time.time_ns() - 60 * 1_000_000_000
    monkeypatch.setattr(time, "time_ns", lambda: earlier)
    assert new_message_id() > before


def test_ids_follow_a_clock_that_had_jumped_ahead_and_rise_again_from_there(monkeypatch: pytest.MonkeyPatch) -> None:
    now = time.time_ns()
    monkeypatch.setattr(message_ids, "_last_ms", 0)
    monkeypatch.setattr(time, "time_ns", lambda: now + 86_400 * 1_000_000_000)
    ahead = new_message_id()
    monkeypatch.setattr(time, "time_ns", lambda: now)
    made = [new_message_id() for _ in range(1000)]
    assert {each.int >> 80 for each in made} == {now // 1_000_000}
    assert made == sorted(made)
    assert ahead > made[-1]


def test_ids_rise_when_a_millisecond_is_full(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "time_ns", lambda: 0)
    monkeypatch.setattr(message_ids, "_last_ms", 5)
    monkeypatch.setattr(message_ids, "_last_tail", (1 << 74) - 1)
    assert new_message_id().int >> 80 == 6


def test_the_time_of_an_id_is_when_it_was_made_in_whole_milliseconds() -> None:
    before = datetime.now(UTC)
    at = time_of(new_message_id())
    assert before - timedelta(milliseconds=1) <= at <= datetime.now(UTC) + timedelta(milliseconds=20)
    assert at.microsecond % 1000 == 0


def test_the_time_of_a_known_id_is_exact() -> None:
    # RFC 9562, appendix A.6
    assert time_of(UUID("017F22E2-79B0-7CC3-98C4-DC0C0C07398F")) == datetime(2022, 2, 22, 19, 22, 22, tzinfo=UTC)


def test_other_versions_and_years_after_9999_have_no_time() -> None:
    with pytest.raises(ValueError, match="UUIDv7"):
        time_of(uuid4())
    with pytest.raises(ValueError, match="9999"):
        time_of(UUID("ffffffff-ffff-7000-8000-000000000000"))


def test_the_last_id_that_has_a_time_is_that_of_the_last_millisecond_of_9999() -> None:
    end = datetime(9999, 12, 31, 23, 59, 59, 999_000, tzinfo=UTC)
    last = (end - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(milliseconds=1)
    of_last, of_next = (UUID(int=ms << 80 | 7 << 76 | 2 << 62) for ms in (last, last + 1))
    assert is_message_id(of_last)
    assert time_of(of_last) == end
    assert not is_message_id(of_next)


@given(milliseconds=st.integers(0, 1 << 45))
def test_the_first_id_of_a_moment_is_of_the_next_whole_millisecond(milliseconds: int) -> None:
    moment = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=milliseconds)
    assert first_id(moment).int == milliseconds << 80
    assert first_id(moment - timedelta(microseconds=999)) == first_id(moment)
    assert first_id(moment + timedelta(microseconds=1)).int == milliseconds + 1 << 80
    assert moment_of(first_id(moment)) == moment


def test_the_first_id_of_a_moment_sorts_before_the_ids_of_its_millisecond_and_after_those_of_the_one_before() -> None:
    message_id = new_message_id()
    assert first_id(time_of(message_id)) < message_id < first_id(time_of(message_id) + timedelta(microseconds=1))


def test_before_1970_the_first_id_is_the_least_of_all() -> None:
    assert first_id(datetime.min.replace(tzinfo=UTC)) == UUID(int=0)
