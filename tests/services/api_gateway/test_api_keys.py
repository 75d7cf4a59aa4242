import pytest

from libs.service_kit.config_file import Scope
from libs.service_kit.problems import ProblemError
from services.api_gateway.api_keys import ApiKeys, Caller, TokenBucket
from tests.services.api_gateway.fakes import API_KEYS, SEND_KEY


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_a_bucket_grants_its_burst_and_then_its_rate() -> None:
    clock = Clock()
    bucket = TokenBucket(5, clock)
    assert [bucket.take() for _ in range(5)] == [0] * 5
    assert bucket.take() == pytest.approx(0.2)
    clock.now += 0.2
    assert bucket.take() == 0
    assert bucket.take() > 0


def test_a_bucket_never_holds_more_than_its_burst() -> None:
    clock = Clock()
    bucket = TokenBucket(2, clock)
    clock.now += 3600
    assert [bucket.take() > 0 for _ in range(3)] == [False, False, True]


def test_a_rate_below_one_per_second_still_grants_one() -> None:
    clock = Clock()
    bucket = TokenBucket(0.1, clock)
    assert bucket.take() == 0
    assert bucket.take() == pytest.approx(10)


def test_a_bucket_may_be_overdrawn_once_and_then_nobody_gets_any_until_the_debt_is_paid() -> None:
    clock = Clock()
    bucket = TokenBucket(2, clock)
    assert bucket.take() == bucket.take() == 0
    assert bucket.take_more(99) == 0
    assert bucket.take() == bucket.take_more(1) == pytest.approx(100 / 2)
    clock.now += 99 / 2
    assert bucket.take() == pytest.approx(1 / 2)
    clock.now += 1 / 2 + 1e-9
    assert bucket.take() == 0
    assert bucket.take() > 0


def test_whoever_comes_back_when_told_to_does_not_come_too_early() -> None:
    bucket = TokenBucket(2, Clock())
    assert bucket.take() == bucket.take_more(9) == 0
    with pytest.raises(ProblemError) as raised, Caller("a", "demo", frozenset(), bucket).charged(1):
        pass
    assert (raised.value.problem.status, raised.value.headers["Retry-After"]) == (429, "5")  # four and a half


def test_what_is_given_back_is_there_again_up_to_the_burst() -> None:
    bucket = TokenBucket(2, Clock())
    assert bucket.take() == bucket.take_more(9) == 0
    bucket.give_back(9)
    assert [bucket.take() > 0 for _ in range(2)] == [False, True]


@pytest.mark.parametrize("authorization", [b"Bearer %b", b"bearer %b", b"BEARER  %b "])
def test_a_key_is_known_by_its_hash(authorization: bytes) -> None:
    caller = ApiKeys(API_KEYS).authenticate(authorization % SEND_KEY.encode(), Scope.SEND)
    assert (caller.name, caller.tenant) == ("sender", "demo")
    assert SEND_KEY not in repr(caller)


@pytest.mark.parametrize(
    "authorization", [None, b"", b"Bearer", b"Bearer ", SEND_KEY.encode(), f"Token {SEND_KEY}".encode(), b"Bearer \xff"]
)
def test_anything_else_is_401(authorization: bytes | None) -> None:
    with pytest.raises(ProblemError) as raised:
        ApiKeys(API_KEYS).authenticate(authorization, Scope.SEND)
    assert raised.value.problem.status == 401
