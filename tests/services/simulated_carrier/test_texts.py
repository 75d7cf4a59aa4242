from __future__ import annotations

from libs.sms_text.segments import segments
from services.simulated_carrier.ledger import Concatenation, LedgerEntry
from tests.services.simulated_carrier.test_ledger import entry
from tests.services.simulated_carrier.texts import join_texts

LONG = "Dear client, your loan of 1.000 € is due. " * 8


def parts(text: str, reference: int = 7, first_sequence: int = 1, **fields: object) -> list[LedgerEntry]:
    pieces = segments(text, reference)
    return [
        entry(
            first_sequence + index,
            short_message=piece.short_message.hex(),
            esm_class=piece.esm_class,
            data_coding=piece.data_coding,
            concatenation=Concatenation(reference, index + 1, len(pieces)) if len(pieces) > 1 else None,
            **fields,
        )
        for index, piece in enumerate(pieces)
    ]


def test_a_text_of_one_part_is_decoded() -> None:
    (joined,) = join_texts(parts("Grüße: 5 €"))
    assert (joined.text, joined.complete) == ("Grüße: 5 €", True)


def test_parts_are_joined_whatever_their_order() -> None:
    for text in (LONG, "Привет, ваш кредит одобрен 🎉 " * 6):
        (joined,) = join_texts(reversed(parts(text)))
        assert (joined.text, joined.complete) == (text, True)
        assert joined.provider_ids == [str(number) for number in range(1, joined.of + 1)]


def test_parts_joined_by_sar_parameters_have_no_header_to_remove() -> None:
    halves = [
        entry(1, short_message=b"one ".hex(), concatenation=Concatenation(1, 1, 2)),
        entry(2, short_message=b"two".hex(), concatenation=Concatenation(1, 2, 2)),
    ]
    assert [joined.text for joined in join_texts(halves)] == ["one two"]


def test_two_people_or_senders_with_the_same_reference_are_kept_apart() -> None:
    texts = join_texts(parts(LONG) + parts(LONG[::-1], destination="4917099") + parts(LONG.upper(), system_id="other"))
    assert sorted(joined.text for joined in texts) == sorted([LONG, LONG[::-1], LONG.upper()])


def test_a_part_that_came_twice_shows_as_a_second_incomplete_text() -> None:
    entries = parts(LONG)
    for twice in ([*entries, entries[1]], [entries[0], entries[1], entries[1], *entries[2:]]):
        texts = join_texts(twice)
        assert [joined.complete for joined in texts] == [True, False]


def test_a_reference_may_be_used_again_for_the_same_person() -> None:
    texts = join_texts(parts(LONG) + parts(LONG.upper(), first_sequence=10))
    assert [joined.text for joined in texts] == [LONG, LONG.upper()]


def test_what_was_refused_is_left_out() -> None:
    assert join_texts(parts("no", accepted=False)) == []
