"""The ids that follow from a batch's id."""

from uuid import UUID

from libs.contracts.http.requests import MAX_BULK_MESSAGES
from libs.contracts.message_ids import new_message_id, time_of
from services.api_gateway.bulk.batch_ids import batch_ids


def test_they_are_message_ids_of_the_batchs_millisecond_in_the_order_of_the_items() -> None:
    batch = new_message_id()
    texts = [message_id for message_id, _ in batch_ids(batch, MAX_BULK_MESSAGES)]
    ids = [UUID(text) for text in texts]
    assert [str(found) for found in ids] == texts
    assert {(found.version, found.variant) for found in ids} == {(7, batch.variant)}
    assert {time_of(found) for found in ids} == {time_of(batch)}
    assert ids == sorted(set(ids))


def test_event_ids_are_distinct_and_of_the_usual_form() -> None:
    events = [event_id for _, event_id in batch_ids(new_message_id(), MAX_BULK_MESSAGES)]
    assert len(set(events)) == MAX_BULK_MESSAGES
    assert {UUID(event_id).hex == event_id for event_id in events} == {True}


def test_they_follow_from_the_batch_and_the_index_alone() -> None:
    batch = new_message_id()
    assert list(batch_ids(batch, 10)) == list(batch_ids(batch, 10_000))[:10]
    other = {message_id for message_id, _ in batch_ids(new_message_id(), 1000)}
    assert other.isdisjoint(message_id for message_id, _ in batch_ids(batch, 1000))
