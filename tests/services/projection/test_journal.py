from dataclasses import replace
from random import Random
from uuid import UUID

import msgspec
import pytest

from libs.bus.errors import BadRecord
from libs.contracts.events import Message, SmsCommand, SmsDispatch, SmsRequested, SmsStatus
from libs.contracts.fold import AnyMessageEvent, apply, new_fold
from libs.contracts.statuses import Status
from services.projection.journal import LEFT_OUT, Line, NewEntry, entry_of, event_of, id_of, ids_in, line_of, lines_in
from tests.services.projection.stories import NAME, PHONE, TEXT, Story, Told, tell


def blanked(event: AnyMessageEvent) -> AnyMessageEvent:
    """Without number, name and text, and without what the line of the message's request says."""
    data = event.data
    if isinstance(data, SmsRequested):
        return replace(event, data=replace(data, message=replace(data.message, text="")))
    event = replace(event, traceparent=None)
    if isinstance(data, SmsStatus):
        return replace(event, data=replace(data, destination=None))
    if isinstance(data, SmsCommand):
        return event
    m = data.message
    message = Message(
        tenant=m.tenant, recipient=m.recipient, number=0, text="", accepted_at=LEFT_OUT, valid_until=LEFT_OUT
    )
    data = replace(data, message=message)
    if isinstance(data, SmsDispatch):
        data = replace(data, phone="", person_name=None)
    return replace(event, data=data)


def stories() -> list[Told]:
    random = Random(1)
    return [told for number in range(40) for told in tell(random, number)]


def written(told: Told) -> Line:
    [line] = lines(entry([told]))
    return line


def entry(told: list[Told]) -> NewEntry:
    return entry_of(told[0].event.subject, [line_of(id_of(each.event), each.topic, each.event) for each in told])


def lines(entry: NewEntry) -> list[Line]:
    message_id, _, body = entry
    return lines_in(message_id, body)


def test_an_entry_has_a_line_of_each_event_and_the_least_of_their_ids() -> None:
    told = Story(1).delivered()
    written = entry(told)
    assert [(event_of(line), line.topic) for line in lines(written)] == [(blanked(t.event), t.topic) for t in told]
    assert written[1] == entry(told[::-1])[1] == min(t.event.id for t in told)
    assert [id_.hex() for id_ in ids_in(written[2])] == [t.event.id for t in told]


def test_what_is_no_entry_is_an_error_and_has_no_ids() -> None:
    for body in (b"", b"\x91\xcd\x7f\xff", b"\xc1"):
        assert ids_in(body) == []
        with pytest.raises(msgspec.MsgspecError):
            lines_in(Story(1).id, body)


def test_an_id_may_have_hyphens_and_must_be_a_uuid() -> None:
    event = Story(1).requested().event
    assert id_of(replace(event, id=str(UUID(event.id)))) == id_of(event)
    for wrong in ("", "17", event.id[:-1], event.id + "ab", "g" * 32):
        with pytest.raises(BadRecord, match="no UUID"):
            id_of(replace(event, id=wrong))


def test_a_line_gives_back_its_event_but_for_number_name_and_text() -> None:
    for told in stories():
        assert event_of(written(told)) == blanked(told.event)


def test_a_request_keeps_its_batch_and_an_older_line_has_no_size_of_it() -> None:
    story = Story(1, batch=Story(2).id, batch_size=2500)
    told = story.requested()
    line = written(told)
    assert event_of(line) == blanked(told.event)
    data = event_of(line._replace(values=line.values[:-1])).data
    assert isinstance(data, SmsRequested)
    assert (data.message.batch_id, data.message.batch_size) == (Story(2).id, None)


def test_a_line_holds_no_personal_data() -> None:
    for told in stories():
        line = str(written(told))
        for personal in (TEXT, PHONE, PHONE[1:], NAME, "+4915187654321"):
            assert personal not in line


def test_the_fold_of_the_journal_is_the_fold_of_the_events() -> None:
    random = Random(2)
    for number in range(40):
        told = tell(random, number)
        of_events, of_lines = new_fold(told[0].event), new_fold(told[0].event)
        for each in told:
            apply(of_events, each.event)
            apply(of_lines, event_of(written(each)))
        assert of_lines == of_events


def test_a_line_that_ends_before_fields_which_came_later_is_read_with_their_defaults() -> None:
    told = Story(2).status(Status.SUBMITTED)
    line = written(told)
    short = line._replace(values=line.values[:-3])
    assert event_of(short) == blanked(told.event)  # no reference, reason nor carrier's time


def test_an_unknown_form_is_an_error() -> None:
    told = Story(1).requested()
    line = written(told)
    with pytest.raises(KeyError):
        event_of(line._replace(values=[0, "postrider/tests"]))
