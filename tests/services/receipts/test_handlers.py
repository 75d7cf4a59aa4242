import pytest

from libs.bus.errors import BadRecord
from libs.contracts.statuses import Status
from services.receipts.handlers import sort_out
from tests.services.receipts.examples import KEY, attempt_status, in_doubt, receipt, submitted


def test_only_submits_with_an_id_doubts_with_a_reference_and_receipts_concern_us() -> None:
    registrations, doubts, receipts = sort_out([submitted("a"), in_doubt(7), receipt("b")], KEY)
    assert [r.provider_id for r in registrations] == ["a"]
    assert [d.reference for d in doubts] == [7]
    assert [r.provider_id for r in receipts] == ["b"]


@pytest.mark.parametrize(
    "event",
    [
        attempt_status(status=Status.DELIVERED, provider_id="a"),
        attempt_status(status=Status.FAILED),
        attempt_status(status=Status.SUBMITTED, provider_id=None),
        attempt_status(status=Status.SUBMITTED, provider_id=""),
        attempt_status(status=Status.SUBMITTED, provider_id="a", gateway=None),
        attempt_status(status=Status.IN_DOUBT, reference=None),
        attempt_status(status=Status.IN_DOUBT, reference=7, destination=None),
    ],
)
def test_any_other_status_is_skipped(event: object) -> None:
    assert sort_out([event], KEY) == ([], [], [])


def test_an_empty_destination_says_nothing() -> None:
    _, _, receipts = sort_out([receipt("a", destination="")], KEY)
    assert receipts[0].destination is None


def test_spellings_of_one_number_have_one_fingerprint() -> None:
    spellings = ("+254700000001", "254700000001", "00254700000001", "0700000001")
    _, _, receipts = sort_out([receipt("a", destination=d) for d in spellings], KEY)
    assert len({r.destination for r in receipts}) == 1


def test_a_receipt_without_an_id_is_a_bad_record() -> None:
    with pytest.raises(BadRecord, match="provider_id"):
        sort_out([receipt("")], KEY)
