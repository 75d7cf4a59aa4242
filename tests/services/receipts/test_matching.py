from datetime import timedelta
from uuid import UUID

from msgspec.structs import replace

from libs.contracts.events import PersonKind, ReceiptState
from services.receipts.matching import (
    DOUBT_LIFE,
    EARLY,
    ID_LIFE,
    Attempt,
    Doubt,
    Receipt,
    Registration,
    pair,
    place,
    resolve,
)
from tests.services.receipts.examples import NOON, seconds

HERE, ELSEWHERE = b"here", b"elsewhere"
TICK = timedelta(microseconds=1)


def attempt(message: int = 1, destination: bytes | None = HERE, part: int = 1) -> Attempt:
    return Attempt(UUID(int=message), 1, 1, NOON, part, 3, 1, "bank", PersonKind.CLIENT, "17", destination, None)


def registration(message: int = 1, at: float = 0, reuse: int = 0, destination: bytes | None = HERE) -> Registration:
    return Registration("demo", "id", reuse, attempt(message, destination), seconds(at))


def receipt(at: float = 0, destination: bytes | None = HERE, reference: int | None = None) -> Receipt:
    return Receipt("demo", "id", "r", ReceiptState.DELIVERED, None, None, seconds(at), reference, destination, None)


def test_a_receipt_of_an_unknown_id_has_no_partner() -> None:
    assert pair(receipt(), []) is None


def test_the_destinations_must_agree_unless_one_is_unknown() -> None:
    assert pair(receipt(destination=HERE), [registration(destination=ELSEWHERE)]) is None
    for one, other in ((HERE, HERE), (None, HERE), (HERE, None), (None, None)):
        assert pair(receipt(destination=one), [registration(destination=other)]) is not None


def test_of_an_id_used_again_the_newest_registration_before_the_receipt_counts() -> None:
    old, middle, new = registration(1, at=0), registration(2, at=100, reuse=1), registration(3, at=200, reuse=2)
    for order in ([old, middle, new], [new, middle, old]):
        assert pair(receipt(at=150), order) == middle
        assert pair(receipt(at=200), order) == new
        assert pair(receipt(at=50), order) == old


def test_an_early_receipt_takes_the_first_registration_that_follows() -> None:
    first, second = registration(1, at=10), registration(2, at=20, reuse=1)
    assert pair(receipt(at=0), [second, first]) == first


def test_a_registration_of_another_number_is_passed_over_for_an_older_one() -> None:
    old, new = registration(1, at=0), registration(2, at=100, reuse=1, destination=ELSEWHERE)
    assert pair(receipt(at=150), [old, new]) == old


def test_a_receipt_is_early_by_an_hour_at_most_and_late_by_the_life_of_an_id() -> None:
    known = [registration(at=0)]
    for age, expected in ((-EARLY, True), (-EARLY - TICK, False), (ID_LIFE, True), (ID_LIFE + TICK, False)):
        assert (pair(replace(receipt(at=age.total_seconds()), observed_at=NOON + age), known) is not None) is expected


def test_an_attempt_is_placed_once_under_its_id() -> None:
    assert place(registration(1), []) == registration(1, reuse=0)
    assert place(registration(1, at=9), [registration(1)]) is None
    assert place(registration(2), [registration(1)]) == registration(2, reuse=1)
    part_two = replace(registration(1), attempt=attempt(1, part=2))
    assert place(part_two, [registration(1)]) == replace(part_two, reuse=1)


def test_a_doubt_ends_when_it_is_the_only_one_that_fits() -> None:
    one, other = Doubt("demo", 7, attempt(1), NOON), Doubt("demo", 7, attempt(2), NOON)
    assert resolve(receipt(reference=7), [one], ()) == one
    assert resolve(receipt(reference=7), [one, other], ()) is None
    assert resolve(receipt(reference=7), [one, other], {other.attempt}) == one


def test_a_doubt_of_another_gateway_reference_number_or_time_does_not_fit() -> None:
    fits = Doubt("demo", 7, attempt(1), NOON)
    asked = receipt(reference=7)
    assert resolve(asked, [replace(fits, gateway="other")], ()) is None
    assert resolve(asked, [replace(fits, reference=8)], ()) is None
    assert resolve(asked, [replace(fits, attempt=attempt(1, ELSEWHERE))], ()) is None
    for age, expected in ((-EARLY, True), (-EARLY - TICK, False), (DOUBT_LIFE, True), (DOUBT_LIFE + TICK, False)):
        found = resolve(replace(asked, observed_at=NOON + age), [fits], ())
        assert (found is not None) is expected
