from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from libs.contracts.message_ids import time_of
from libs.storage.partitions import first_uuid


@given(milliseconds=st.integers(0, 1 << 45))
def test_the_first_uuid_of_a_moment_has_exactly_its_millisecond(milliseconds: int) -> None:
    moment = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=milliseconds)
    assert first_uuid(moment).int >> 80 == milliseconds
    assert first_uuid(moment + timedelta(microseconds=999)) == first_uuid(moment)


def test_the_first_uuid_sorts_before_the_ids_of_its_millisecond() -> None:
    at = datetime(2026, 11, 20, 8, 0, 0, 123_000, tzinfo=UTC)
    assert first_uuid(at).int >> 80 << 80 == first_uuid(at).int
    assert time_of(type(first_uuid(at))(int=first_uuid(at).int | 7 << 76)) == at
