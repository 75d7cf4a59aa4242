"""Which legs are claimed next, and whose they are."""

from libs.contracts.events import Priority
from services.dispatcher.attempts import Attempt, LegState, Outcome
from services.dispatcher.board import Board
from tests.services.dispatcher.builders import dispatch_event


def taken(board: Board, room: int) -> list[tuple[str, int]]:
    return [(ask.leg.event.data.message.text[:2], ask.part) for ask in board.take(room)]


def test_high_priority_goes_first_and_order_is_kept_within_a_priority():
    board = Board()
    for text, priority in (("n1", Priority.NORMAL), ("n2", Priority.NORMAL), ("h1", Priority.HIGH)):
        board.add(dispatch_event(text, priority=priority), text)
    assert taken(board, 10) == [("h1", 1), ("n1", 1), ("n2", 1)]
    assert taken(board, 10) == []


def test_a_message_of_many_parts_is_taken_as_far_as_there_is_room_and_stays_at_the_front():
    board = Board()
    board.add(dispatch_event("a" * 400), 1)
    board.add(dispatch_event("b"), 2)
    asks = board.take(2)
    assert [a.part for a in asks] == [1, 2]
    asks[0].leg.attempts = [Attempt(a.part, 1, a.leg.event.subject) for a in asks]
    assert taken(board, 5) == [("aa", 3), ("b", 1)]


def test_what_was_not_granted_goes_back_to_the_front_in_its_order():
    board = Board()
    for text in ("a", "b", "c"):
        board.add(dispatch_event(text), text)
    legs = [ask.leg for ask in board.take(2)]
    board.queue_first(legs)
    assert taken(board, 9) == [("a", 1), ("b", 1), ("c", 1)]


def test_a_record_that_comes_twice_is_one_leg_with_two_places():
    board = Board()
    event = dispatch_event()
    board.add(event, "first")
    board.add(event, "second")
    (ask,) = board.take(9)
    assert board.finish(ask.leg) == ["first", "second"]
    board.add(event, "third")
    (ask,) = board.take(9)
    assert board.finish(ask.leg) == ["third"], "the leg that was done is forgotten"


def test_a_leg_that_waits_for_a_moment_is_claimed_from_then_on():
    board = Board()
    board.add(dispatch_event(), 1)
    (ask,) = board.take(9)
    ask.leg.attempts = [Attempt(1, 1, ask.leg.event.subject, Outcome.TEMPORARY)]
    board.queue_at(ask.leg, 5.0)
    assert board.next_moment(4.9) == 5.0
    assert board.take(9) == []
    assert board.next_moment(5.0) is None
    assert [(a.part, a.try_number) for a in board.take(9)] == [(1, 2)]


def test_what_is_given_back_is_neither_claimed_nor_done_here():
    board = Board()
    kept, lost = dispatch_event("kept"), dispatch_event("lost")
    board.add(kept, "mine")
    board.add(lost, "theirs")
    board.withdraw(lambda place: place == "theirs")
    legs: list[LegState] = [ask.leg for ask in board.take(9)]
    assert [leg.event for leg in legs] == [kept]
    gone = LegState(lost, [])
    assert not gone.held and board.finish(gone) == []


def test_what_is_given_back_waits_here_no_longer():
    board = Board()
    for text in ("a", "b", "c"):
        board.add(dispatch_event(text), text)
    (ask,) = board.take(1)
    board.queue_at(ask.leg, 5.0)
    board.withdraw(lambda place: place != "b")
    assert board.waiting == 1
    assert board.next_moment(0.0) is None


def test_a_leg_that_is_done_holds_on_to_no_record():
    board = Board()
    board.add(dispatch_event(), "place")
    (ask,) = board.take(1)
    assert board.finish(ask.leg) == ["place"]
    assert ask.leg.places == []
