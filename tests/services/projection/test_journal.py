from dataclasses import replace
from random import Random

import pytest

from libs.contracts.events import SmsCommand, SmsDispatch, SmsStatus
from libs.contracts.fold import AnyMessageEvent, apply, new_fold
from libs.contracts.statuses import Status
from services.projection.journal import event_of, line_of
from tests.services.projection.stories import NAME, PHONE, TEXT, Story, Told, tell


def blanked(event: AnyMessageEvent) -> AnyMessageEvent:
    data = event.data
    if isinstance(data, SmsStatus):
        return replace(event, data=replace(data, destination=None))
    if isinstance(data, SmsCommand):
        return event
    data = replace(data, message=replace(data.message, text=""))
    if isinstance(data, SmsDispatch):
        data = replace(data, phone="", person_name=None)
    return replace(event, data=data)


def stories() -> list[Told]:
    random = Random(1)
    return [told for number in range(40) for told in tell(random, number)]


def test_a_line_gives_back_its_event_but_for_number_name_and_text() -> None:
    for topic, _, event in stories():
        assert event_of(line_of(event, topic)) == blanked(event)


def test_a_line_holds_no_personal_data() -> None:
    for topic, _, event in stories():
        line = "".join(map(str, line_of(event, topic)))
        for personal in (TEXT, PHONE, PHONE[1:], NAME, "+4915187654321"):
            assert personal not in line


def test_the_fold_of_the_journal_is_the_fold_of_the_events() -> None:
    random = Random(2)
    for number in range(40):
        told = tell(random, number)
        of_events, of_lines = new_fold(told[0].event), new_fold(told[0].event)
        for topic, _, event in told:
            apply(of_events, event)
            apply(of_lines, event_of(line_of(event, topic)))
        assert of_lines == of_events


def test_nulls_are_not_written() -> None:
    told = Story(2).status(Status.SUBMITTED)
    assert "null" not in line_of(told.event, told.topic).body


def test_an_unknown_type_is_an_error() -> None:
    told = Story(1).requested()
    with pytest.raises(KeyError):
        event_of(line_of(told.event, told.topic)._replace(type="postrider.sms.forgotten.v1"))
