"""Backpressure: how long to pause, and when it is over."""

from services.dispatcher.throttle import LAST_SECONDS, Throttle


def test_each_refusal_in_a_row_waits_longer_up_to_a_bound():
    throttle, now, waits = Throttle(), 0.0, list[float]()
    for _ in range(12):
        throttle.refused(now)
        waits.append(throttle.wait(now))
        now += throttle.wait(now)
    longest = [min(0.5 * 2**n, LAST_SECONDS) for n in range(12)]
    assert all(most / 2 <= wait <= most for wait, most in zip(waits, longest, strict=True))


def test_refusals_of_one_burst_count_once():
    throttle = Throttle()
    for _ in range(50):
        throttle.refused(10.0)
    assert throttle.wait(10.0) <= 0.5


def test_an_acceptance_ends_it_but_not_one_from_before_the_pause_was_over():
    throttle = Throttle()
    throttle.refused(0.0)
    throttle.accepted(0.0)
    assert throttle.active
    throttle.accepted(1.0)
    assert not throttle.active and throttle.wait(1.0) == 0
