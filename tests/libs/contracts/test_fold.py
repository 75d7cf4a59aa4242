from random import Random

from hypothesis import given
from hypothesis import strategies as st

from libs.contracts.fold import MessageFold, apply, new_fold, view
from libs.contracts.statuses import Status
from tests.services.projection.stories import Story, Told, tell


def folded(told: list[Told]) -> MessageFold:
    fold = new_fold(told[0].event)
    for _, _, event in told:
        apply(fold, event)
    return fold


@given(seed=st.integers(0, 10_000), order=st.randoms(use_true_random=False))
def test_events_in_any_order_and_any_number_give_the_same_fold_and_view(seed: int, order: Random) -> None:
    told = tell(Random(seed), seed)
    shuffled = told + order.choices(told, k=order.randrange(len(told)))
    order.shuffle(shuffled)
    assert folded(shuffled) == folded(told)
    assert view(folded(shuffled)) == view(folded(told))


@given(seed=st.integers(0, 10_000), order=st.randoms(use_true_random=False))
def test_whatever_is_known_of_a_message_can_be_shown(seed: int, order: Random) -> None:
    told = tell(Random(seed), seed)
    some = order.sample(told, order.randrange(1, len(told) + 1))
    assert view(folded(some)).status is not Status.REFUSED


def test_a_message_of_which_one_part_is_heard_of_first_is_queued() -> None:
    assert view(folded([Story(1).status(Status.SUBMITTED, part=2, parts=3)])).status is Status.QUEUED
