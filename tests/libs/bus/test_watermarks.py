from aiokafka.structs import TopicPartition
from hypothesis import given
from hypothesis import strategies as st

from libs.bus.watermarks import Watermarks

P, Q = TopicPartition("t", 0), TopicPartition("t", 1)


@given(st.sets(st.integers(0, 200), min_size=1), st.randoms())
def test_committable_is_always_the_lowest_unfinished_offset(offsets: set[int], random: object) -> None:
    marks = Watermarks()
    delivered = sorted(offsets)
    marks.delivered(P, delivered)
    order = list(delivered)
    random.shuffle(order)  # type: ignore[attr-defined]
    unfinished = set(delivered)
    for offset in order:
        marks.finished(P, [offset])
        unfinished.discard(offset)
        assert marks.low(P) == min(unfinished, default=delivered[-1] + 1)
        assert marks.unfinished() == len(unfinished)


def test_only_what_moved_since_the_last_commit_is_committable() -> None:
    marks = Watermarks()
    marks.delivered(P, [5, 6, 9])
    marks.delivered(Q, [0])
    assert marks.committable() == {}
    marks.finished(P, [6])
    assert marks.committable() == {}
    marks.finished(P, [5])
    assert marks.committable() == {P: 9}
    marks.committed({P: 9})
    assert marks.committable() == {}
    marks.finished(P, [9])
    marks.finished(Q, [0])
    assert marks.committable() == {P: 10, Q: 1}


def test_what_would_be_committable_can_be_asked_before_it_is_finished() -> None:
    marks = Watermarks()
    marks.delivered(P, [5, 6, 9, 10])
    marks.delivered(Q, [3])
    marks.finished(P, [9])
    assert marks.once_finished({P: {5}, Q: {3}, TopicPartition("t", 2): {0}}) == {P: 6, Q: 4}
    assert marks.once_finished({P: {5, 6}}) == {P: 10}
    assert marks.once_finished({P: {6, 10}}) == {P: 5}
    assert marks.once_finished({P: {10, 6, 5}}) == {P: 11}
    assert marks.committable() == {}


def test_what_is_finished_twice_or_was_never_delivered_changes_nothing() -> None:
    marks = Watermarks()
    marks.delivered(P, [5, 6])
    for offset in (5, 5, 4, 7):
        marks.finished(P, [offset])
    marks.finished(P, [5, 5])
    marks.finished(Q, [1])
    assert marks.committable() == {P: 6}
    assert marks.unfinished() == 1


def test_a_partition_that_was_reset_is_forgotten_and_starts_anew() -> None:
    marks = Watermarks()
    marks.delivered(P, [5, 6])
    marks.finished(P, [5])
    marks.reset([P, Q])
    marks.finished(P, [6])
    assert marks.committable() == {}
    assert marks.low(P) is None
    marks.delivered(P, [6])
    assert marks.committable() == {}
    marks.finished(P, [6])
    assert marks.committable() == {P: 7}


def test_what_is_finished_at_once_is_finished_one_by_one() -> None:
    marks = Watermarks()
    marks.delivered(P, [5, 6, 9])
    marks.finished(P, [5, 6, 9])
    assert (marks.unfinished(), marks.committable()) == (0, {P: 10})
    marks.delivered(P, [10, 11, 12])
    marks.finished(P, [10, 12])
    assert (marks.unfinished(), marks.committable()) == (1, {P: 11})
    marks.finished(P, [11])
    assert marks.committable() == {P: 13}


def test_what_was_passed_without_being_handed_out_counts_as_finished() -> None:
    marks = Watermarks()
    marks.delivered(P, [], 8)
    assert marks.committable() == {P: 8}
    marks.delivered(P, [8, 10], 12)
    marks.finished(P, [8])
    assert marks.committable() == {P: 10}
    marks.finished(P, [10])
    assert marks.committable() == {P: 12}
