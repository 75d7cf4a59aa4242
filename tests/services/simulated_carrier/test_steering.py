from __future__ import annotations

import random
from typing import Any

import pytest
from pydantic import ValidationError

from libs.smpp.status import CommandStatus
from services.simulated_carrier.behaviour import Behaviour
from services.simulated_carrier.steering import ACCEPT, THROTTLE, Steering, Verdict

SECOND = 1_000_000


def steering(**sections: dict[str, object]) -> Steering:
    return Steering(Behaviour().with_fields(sections), random.Random(1), now_us=0)


def judge(steered: Steering, count: int, destination: str = "49170", now_us: int = 0) -> list[Verdict]:
    return [steered.judge_submit("demo", destination, now_us) for _ in range(count)]


def test_by_default_everything_is_accepted_and_delivered() -> None:
    steered = steering()
    assert judge(steered, 3) == [ACCEPT] * 3
    assert steered.outcome("49170") == "DELIVRD"
    assert steered.judge_bind(bound=100, now_us=0) == 0


def test_no_second_takes_more_segments_than_the_throttle_allows() -> None:
    steered = steering(throttle={"segments_per_second": 2})
    times = [0, 400_000, 900_000, SECOND - 1, SECOND, SECOND + 399_999, SECOND + 400_000]
    verdicts = [judge(steered, 1, now_us=time)[0] for time in times]
    assert verdicts == [ACCEPT, ACCEPT, THROTTLE, THROTTLE, ACCEPT, THROTTLE, ACCEPT]


def test_each_system_id_has_a_throttle_of_its_own() -> None:
    steered = steering(throttle={"segments_per_second": 1})
    assert steered.judge_submit("one", "49170", 0) == steered.judge_submit("two", "49170", 0) == ACCEPT


def test_the_next_submits_are_refused_and_then_no_more() -> None:
    steered = steering(refusals={"next": 2, "command_status": 0x14})
    refusal = Verdict(accepted=False, command_status=0x14)
    assert judge(steered, 3) == [refusal, refusal, ACCEPT]
    assert steered.shown(0).refusals.next == 0


def test_the_longest_suffix_decides_on_refusal_and_outcome() -> None:
    steered = steering(
        refusals={"by_suffix": {"9": 0x0B, "99": 0x0A}},
        receipts={"outcome_by_suffix": {"1": "UNDELIV", "11": "EXPIRED"}},
    )
    assert [judge(steered, 1, destination)[0].command_status for destination in ("49", "499", "48")] == [0x0B, 0x0A, 0]
    assert [steered.outcome(destination) for destination in ("41", "411", "42")] == ["UNDELIV", "EXPIRED", "DELIVRD"]


def test_outcomes_fall_by_weight() -> None:
    steered = steering(receipts={"outcomes": {"DELIVRD": 3, "UNDELIV": 1}})
    drawn = [steered.outcome("49170") for _ in range(1_000)]
    assert 650 < drawn.count("DELIVRD") < 850
    assert set(drawn) == {"DELIVRD", "UNDELIV"}


def test_a_receipt_is_late_by_its_delay_and_up_to_its_jitter_more() -> None:
    assert steering(receipts={"delay_ms": 250}).receipt_delay() == 0.25
    jittery = steering(receipts={"delay_ms": 250, "jitter_ms": 100})
    delays = [jittery.receipt_delay() for _ in range(1_000)]
    assert 0.25 <= min(delays) < 0.26
    assert 0.34 < max(delays) <= 0.35


@pytest.mark.parametrize("section", ["refusals", "silence"])
def test_a_probability_is_about_kept_and_repeats_with_the_seed(section: str) -> None:
    runs = [judge(steering(**{section: {"probability": 0.3}}), 1_000) for _ in range(2)]
    assert runs[0] == runs[1]
    assert 230 < 1_000 - runs[0].count(ACCEPT) < 370


@pytest.mark.parametrize("accept", [True, False])
def test_silence_is_counted_down_and_may_accept_or_not(accept: bool) -> None:
    verdicts = judge(steering(silence={"next": 1, "accept": accept}), 2)
    assert verdicts == [Verdict(accepted=accept, command_status=None), ACCEPT]


def test_the_connection_drops_once_at_the_submit_that_was_named() -> None:
    verdicts = judge(steering(drop={"after": 3, "point": "after_accept"}), 5)
    dropped = Verdict(accepted=True, command_status=None, drops_connection=True)
    assert verdicts == [ACCEPT, ACCEPT, dropped, ACCEPT, ACCEPT]


def test_binds_are_refused_by_count_by_time_and_above_the_limit() -> None:
    by_count = steering(binds={"refuse_next": 1, "command_status": 0x08})
    assert [by_count.judge_bind(0, 0), by_count.judge_bind(0, 0)] == [0x08, 0]
    by_time = steering(binds={"refuse_for_ms": 100})
    assert [by_time.judge_bind(0, 99_999), by_time.judge_bind(0, 100_000)] == [CommandStatus.ESME_RBINDFAIL, 0]
    limited = steering(binds={"max_per_system_id": 2})
    assert [limited.judge_bind(1, 0), limited.judge_bind(2, 0)] == [0, CommandStatus.ESME_RALYBND]


def test_a_change_elsewhere_does_not_prolong_the_time_of_refused_binds() -> None:
    steered = steering(binds={"refuse_for_ms": 100})
    assert steered.shown(60_000).binds.refuse_for_ms == 40
    steered.set(steered.shown(60_000).with_fields({"responses": {"delay_ms": 5}}), 60_000)
    assert [steered.judge_bind(0, 99_999) > 0, steered.judge_bind(0, 100_000)] == [True, 0]


def test_countdowns_leave_the_initial_behaviour_alone() -> None:
    steered = steering(refusals={"next": 1})
    judge(steered, 1)
    steered.set(steered.initial, 0)
    assert steered.shown(0).refusals.next == 1


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"receipts": {"delay_ms": -1}}, "receipts.delay_ms"),
        ({"receipts": {"delay_ms": "soon"}}, "receipts.delay_ms"),
        ({"receipts": {"outcomes": {}}}, "receipts.outcomes"),
        ({"receipts": {"outcomes": {"LOST": 1}}}, "receipts.outcomes.LOST.[key]"),
        ({"responses": {"id_format": "roman"}}, "responses.id_format"),
        ({"silence": {"probability": 1.1}}, "silence.probability"),
        ({"refusals": {"command_status": 0}}, "refusals.command_status"),
        ({"drop": {"after": 0}}, "drop.after"),
        ({"binds": {"max": 1}}, "binds.max"),
        ({"reciepts": {}}, "reciepts"),
        ({"binds": 3}, "binds"),
    ],
)
def test_a_bad_field_is_named(changes: dict[str, Any], field: str) -> None:
    with pytest.raises(ValidationError) as caught:
        Behaviour().with_fields(changes)
    assert [".".join(map(str, error["loc"])) for error in caught.value.errors()] == [field]
