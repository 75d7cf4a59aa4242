"""The benchmark's proof that the carrier got every text exactly once."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from services.simulated_carrier.ledger import Ledger, LedgerEntry
from tests.load.arrivals import arrivals, last_entry
from tests.load.workload import text_of

ACCOUNT = "demo"


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    ledger = Ledger(tmp_path)
    yield ledger
    ledger.close()


def read(ledger: Ledger, numbers: Sequence[int], *, accepted: bool = True, account: str = ACCOUNT) -> None:
    """The carrier reads messages with these numbers, each in the second of its number."""
    first = ledger.next_sequence
    ledger.append(
        [
            LedgerEntry(
                sequence=sequence,
                received_at=number * 1_000_000,
                accepted=accepted,
                command_status=0 if accepted else 0x58,
                provider_id=f"{sequence}" if accepted else None,
                session=1,
                system_id=account,
                source="POSTRIDER",
                destination="+254700000001",
                esm_class=0,
                data_coding=0,
                registered_delivery=1,
                short_message=text_of(number).hex(),
                concatenation=None,
                user_message_reference=None,
            )
            for sequence, number in enumerate(numbers, first)
        ]
    )


def test_each_message_arrived_when_the_carrier_accepted_it(ledger: Ledger, tmp_path: Path) -> None:
    read(ledger, [7, 8])  # of a run before
    before = last_entry(tmp_path)
    read(ledger, [11], accepted=False)  # to be sent again
    read(ledger, [12, 11])
    read(ledger, [13], account="another")
    assert arrivals(tmp_path, before, {11, 12}, ACCOUNT) == {11: 11.0, 12: 12.0}


@pytest.mark.parametrize(
    ("accepted", "words"),
    [
        ([1, 2], "1 messages never reached the carrier, 0 others did"),
        ([1, 2, 3, 2], "accepted 4 instead of 3 messages"),
        ([1, 2, 2], "1 messages never reached the carrier, 0 others did"),
        ([1, 2, 3, 4], "0 messages never reached the carrier, 1 others did"),
    ],
    ids=["lost", "doubled", "lost and doubled", "of nobody"],
)
def test_it_fails_unless_each_arrived_once(ledger: Ledger, tmp_path: Path, accepted: Sequence[int], words: str) -> None:
    read(ledger, accepted)
    with pytest.raises(AssertionError, match=words):
        arrivals(tmp_path, 0, {1, 2, 3}, ACCOUNT)
