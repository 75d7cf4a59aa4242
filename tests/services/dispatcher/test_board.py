"""Which legs are claimed next, and whose they are."""

from datetime import UTC, datetime

from libs.bus.record import Record
from libs.contracts.events import MessageEvent, Priority, SmsDispatch
from services.dispatcher.attempts import Attempt, Outcome
from services.dispatcher.board import Board
from tests.services.dispatcher.builders import dispatch_event, record_of


def add(board: Board, event: MessageEvent[SmsDispatch], offset: int = 0) -> Record:
    record = record_of(event, offset)
    board.add(event, record)
    return record


def taken(board: Board, room: int) -> list[tuple[str, int]]:
    return [(ask.leg.event.data.message.text[:2], ask.part) for ask in board.take(room)]


def test_high_priority_goes_first_and_order_is_kept_within_a_priority():
    board = Board()
    for text, priority in (("n1", Priority.NORMAL), ("n2", Priority.NORMAL), ("h1", Priority.HIGH)):
        add(board, dispatch_event(text, priority=priority))
    assert taken(board, 10) == [("h1", 1), ("n1", 1), ("n2", 1)]
    assert taken(board, 10) == []


def test_a_message_of_many_parts_is_taken_as_far_as_there_is_room_and_stays_at_the_front():
    board = Board()
    add(board, dispatch_event("a" * 400))
    add(board, dispatch_event("b"))
    asks = board.take(2)
    assert [a.part for a in asks] == [1, 2]
    asks[0].leg.attempts = [Attempt(a.part, 1, a.leg.event.subject) for a in asks]
    assert taken(board, 5) == [("aa", 3), ("b", 1)]


def test_what_was_not_granted_goes_back_to_the_front_in_its_order():
    board = Board()
    for text in ("a", "b", "c"):
        add(board, dispatch_event(text))
    legs = [ask.leg for ask in board.take(2)]
    board.queue_first(legs)
    assert taken(board, 9) == [("a", 1), ("b", 1), ("c", 1)]


def test_what_has_expired_is_taken_out_of_its_turn_and_the_rest_keep_their_order():
    board = Board()
    for text, valid_seconds in (("v1", 60), ("x1", -1), ("v2", 60), ("x2", -1), ("x3", -1)):
        add(board, dispatch_event(text, valid_seconds=valid_seconds))
    expired = board.take_expired(datetime.now(UTC), 2)
    assert [ask.leg.event.data.message.text for ask in expired] == ["x1", "x2"]
    assert taken(board, 9) == [("v1", 1), ("v2", 1), ("x3", 1)]


def test_a_record_that_comes_twice_is_one_leg_with_two_records():
    board = Board()
    event = dispatch_event()
    first, second = add(board, event, 1), add(board, event, 2)
    (ask,) = board.take(9)
    assert board.finish(ask.leg) == [first, second]
    third = add(board, event, 3)
    (ask,) = board.take(9)
    assert board.finish(ask.leg) == [third], "the leg that was done is forgotten"


def test_a_leg_that_waits_for_a_moment_is_claimed_from_then_on():
    board = Board()
    add(board, dispatch_event())
    (ask,) = board.take(9)
    ask.leg.attempts = [Attempt(1, 1, ask.leg.event.subject, Outcome.TEMPORARY)]
    board.queue_at(ask.leg, 5.0)
    assert board.next_moment(4.9) == 5.0
    assert board.take(9) == []
    assert board.next_moment(5.0) is None
    assert [(a.part, a.try_number) for a in board.take(9)] == [(1, 2)]


def test_what_is_given_back_is_neither_claimed_nor_done_here():
    board = Board()
    kept, lost, asked_for = dispatch_event(priority=Priority.HIGH), dispatch_event(), dispatch_event()
    add(board, asked_for)
    (ask,) = board.take(9)
    add(board, kept)
    record = add(board, lost)
    board.withdraw(record.topic)
    assert [ask.leg.event for ask in board.take(9)] == [kept]
    assert board.finish(ask.leg) == []


def test_what_is_given_back_waits_here_no_longer():
    board = Board()
    add(board, dispatch_event())
    (ask,) = board.take(1)
    board.queue_at(ask.leg, 5.0)
    add(board, dispatch_event(priority=Priority.HIGH))
    record = add(board, dispatch_event())
    board.withdraw(record.topic)
    assert board.waiting == 1
    assert board.next_moment(0.0) is None


def test_a_leg_that_is_done_holds_on_to_no_record():
    board = Board()
    record = add(board, dispatch_event())
    (ask,) = board.take(1)
    assert board.finish(ask.leg) == [record]
    assert ask.leg.records == []


def test_a_leg_waits_once_however_often_it_is_queued_and_not_when_it_is_done():
    board = Board()
    add(board, dispatch_event(valid_seconds=-1))
    (ask,) = board.take(1)
    board.queue(ask.leg)
    board.queue(ask.leg)
    board.queue_first([ask.leg])
    assert board.waiting == 1
    board.finish(ask.leg)
    assert board.take_expired(datetime.now(UTC), 9) == []
    board.queue(ask.leg)
    board.queue_first([ask.leg])
    assert board.waiting == 0


def test_a_leg_that_is_done_while_it_waits_is_passed_over():
    board = Board()
    add(board, dispatch_event("a"))
    (ask,) = board.take(1)
    add(board, dispatch_event("b"))
    board.queue(ask.leg)
    board.finish(ask.leg)
    assert taken(board, 9) == [("b", 1)]


def test_what_is_kept_waits_for_its_own_moment_when_the_rest_is_given_back():
    board = Board()
    given_back = record_of(dispatch_event()).topic
    for moment in (1, 5, 2, 6, 7, 3):
        add(board, dispatch_event(priority=Priority.NORMAL if moment < 3 else Priority.HIGH))
        board.queue_at(board.take(1)[0].leg, moment)
    board.withdraw(given_back)
    assert board.next_moment(0) == 3
