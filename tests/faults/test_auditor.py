"""A kept promise is no complaint, and each way of breaking it is one, under its own rule."""

from collections.abc import Callable
from dataclasses import replace
from uuid import UUID

import pytest

from libs.contracts.statuses import Status
from tests.faults.auditor import Attempt, AttemptKey, Carried, Promise, Records, Rule, audit, doubts, explain

OWNER, KILLED = UUID(int=1), UUID(int=2)
ONE, TWO_PARTS, LOST, DOUBTED = (UUID(int=n) for n in (11, 12, 13, 14))
UNKNOWN = UUID(int=99)


def key(message_id: UUID, part: int = 1, try_number: int = 1, leg: int = 1) -> AttemptKey:
    return AttemptKey(message_id, 1, leg, part, try_number)


def a_good_run() -> Records:
    """One message delivered, one of two parts that was deferred and returned before, one in doubt that never left, one in doubt that a
    receipt settled."""
    return Records(
        promises=[
            Promise("one", 1, (ONE, ONE)),
            Promise("two", 2, (TWO_PARTS,)),
            Promise("lost", 1, (LOST,)),
            Promise("doubted", 1, (DOUBTED,)),
        ],
        outbox={
            ONE: Status.DELIVERED,
            TWO_PARTS: Status.DELIVERED,
            LOST: Status.IN_DOUBT,
            DOUBTED: Status.DELIVERED,
        },
        carried=[
            Carried(1, "one", 1, "a"),
            Carried(2, "two", 1, "b"),
            Carried(3, "two", 2, "c"),
            Carried(4, "doubted", 1, "d"),
        ],
        attempts=[
            Attempt(key(ONE), OWNER, "B"),
            Attempt(key(ONE, try_number=2), OWNER, "A", "a"),
            Attempt(key(TWO_PARTS, 1), OWNER, "E"),
            Attempt(key(TWO_PARTS, 2), OWNER, "T"),
            Attempt(key(TWO_PARTS, 1, leg=2), OWNER, "R"),
            Attempt(key(TWO_PARTS, 1, leg=3), OWNER, "A", "b"),
            Attempt(key(TWO_PARTS, 2, leg=3), OWNER, "A", "c"),
            Attempt(key(LOST), KILLED, "P"),
            Attempt(key(DOUBTED), KILLED, "P"),
        ],
        killed={KILLED: frozenset({key(LOST), key(DOUBTED), key(UNKNOWN)})},
        window=1,
    )


def with_attempt(run: Records, changed: Attempt) -> Records:
    return replace(run, attempts=[a for a in run.attempts if a.key != changed.key] + [changed])


def without_attempts(run: Records, message_id: UUID) -> Records:
    return replace(run, attempts=[a for a in run.attempts if a.key.message_id != message_id])


def carried(run: Records, *more: Carried) -> Records:
    return replace(run, carried=[*run.carried, *more])


def not_carried(run: Records, *texts: str) -> Records:
    return replace(run, carried=[entry for entry in run.carried if entry.text not in texts])


def shown(run: Records, message_id: UUID, status: Status) -> Records:
    return replace(run, outbox={**run.outbox, message_id: status})


def told(run: Records, text: str, *ids: UUID) -> Records:
    return replace(run, promises=[replace(p, ids=ids) if p.text == text else p for p in run.promises])


def not_shown(run: Records, message_id: UUID) -> Records:
    return replace(run, outbox={i: status for i, status in run.outbox.items() if i != message_id})


BROKEN: dict[str, tuple[Callable[[Records], Records], set[Rule]]] = {
    "a repeat was told another id": (
        lambda run: shown(told(run, "one", ONE, UNKNOWN), UNKNOWN, Status.DELIVERED),
        {Rule.ONE_ID},
    ),
    "a request was never answered": (
        lambda run: told(run, "lost"),
        {Rule.ONE_ID, Rule.KNOWN},
    ),
    "two requests were told one id": (
        lambda run: not_shown(without_attempts(told(run, "lost", ONE), LOST), LOST),
        {Rule.ONE_ID, Rule.CARRIED, Rule.ACCEPTED},
    ),
    "the outbox has a message more": (lambda run: shown(run, UNKNOWN, Status.QUEUED), {Rule.KNOWN}),
    "an accepted message has vanished": (lambda run: not_shown(run, TWO_PARTS), {Rule.ENDS}),
    "an accepted message stays submitted": (lambda run: shown(run, ONE, Status.SUBMITTED), {Rule.ENDS}),
    "an accepted message failed though the carrier refuses none": (
        lambda run: shown(run, ONE, Status.FAILED),
        {Rule.ENDS},
    ),
    "a message is delivered that nobody sent": (lambda run: shown(run, LOST, Status.DELIVERED), {Rule.CARRIED}),
    "one of two parts never left": (
        lambda run: replace(run, carried=[e for e in run.carried if e.provider_id != "c"]),
        {Rule.CARRIED, Rule.ACCEPTED},
    ),
    "a recorded message went out twice": (
        lambda run: carried(run, Carried(5, "one", 1, "e")),
        {Rule.ONCE, Rule.RECORDED},
    ),
    "a message in doubt went out twice": (lambda run: carried(run, Carried(5, "doubted", 1, "e")), {Rule.ONCE}),
    "the carrier got a text of nobody": (lambda run: carried(run, Carried(5, "alien", 1, "e")), {Rule.PROMISED}),
    "an accepted message has no attempt": (lambda run: without_attempts(run, ONE), {Rule.RECORDED}),
    "an accepted message is recorded as not sent": (
        lambda run: with_attempt(run, Attempt(key(ONE, try_number=2), OWNER, "N")),
        {Rule.RECORDED},
    ),
    "an acceptance is recorded under another message's id": (
        lambda run: with_attempt(run, Attempt(key(ONE, try_number=2), OWNER, "A", "b")),
        {Rule.RECORDED, Rule.ACCEPTED},
    ),
    "an acceptance is recorded that never was": (
        lambda run: shown(not_carried(run, "one"), ONE, Status.DELIVERED),
        {Rule.CARRIED, Rule.ACCEPTED},
    ),
    "a message is in doubt though all its attempts are known": (
        lambda run: shown(run, ONE, Status.IN_DOUBT),
        {Rule.DOUBTED},
    ),
    "a peer doubts what was recorded": (
        lambda run: with_attempt(run, Attempt(key(TWO_PARTS, 1, leg=3), KILLED, "P", "b")),
        {Rule.OPEN},
    ),
    "a peer doubts what a living instance sends": (lambda run: replace(run, killed={}), {Rule.OPEN}),
    "a kill left more than a window": (
        lambda run: not_carried(shown(run, DOUBTED, Status.IN_DOUBT), "doubted"),
        {Rule.SURPLUS},
    ),
    "an attempt is left open": (
        lambda run: with_attempt(shown(run, LOST, Status.QUEUED), Attempt(key(LOST), KILLED, None)),
        {Rule.SETTLED, Rule.ENDS},
    ),
    "what is in doubt was tried again": (
        lambda run: with_attempt(run, Attempt(key(LOST, try_number=2), OWNER, "N")),
        {Rule.PROOF},
    ),
    "what is in doubt was tried again in another leg": (
        lambda run: with_attempt(run, Attempt(key(LOST, leg=2), OWNER, "N")),
        {Rule.PROOF},
    ),
    "what was deferred was tried again in its leg": (
        lambda run: with_attempt(run, Attempt(key(TWO_PARTS, 1, try_number=2), OWNER, "N")),
        {Rule.PROOF},
    ),
    "what was accepted was tried again": (
        lambda run: with_attempt(run, Attempt(key(ONE, try_number=3), OWNER, "N")),
        {Rule.PROOF},
    ),
}


def test_a_kept_promise_is_no_complaint() -> None:
    assert audit(a_good_run()) == []


@pytest.mark.parametrize("name", BROKEN)
def test_each_way_to_break_the_promise_is_seen(name: str) -> None:
    change, rules = BROKEN[name]
    assert {complaint.rule for complaint in audit(change(a_good_run()))} == rules


def test_every_rule_can_be_broken() -> None:
    assert set[Rule]().union(*(rules for _, rules in BROKEN.values())) == set(Rule)


def test_what_is_in_doubt_is_told_apart_by_whether_the_carrier_accepted_it() -> None:
    accepted, surplus = doubts(a_good_run())
    assert [a.key.message_id for a in accepted] == [DOUBTED]
    assert [a.key.message_id for a in surplus] == [LOST]


def test_a_complaint_comes_with_all_that_is_known_of_its_message() -> None:
    run = carried(a_good_run(), Carried(5, "doubted", 1, "e"))
    words = explain(run, audit(run))
    assert "1 × the carrier accepts nothing twice" in words
    for line in ("promised: doubted", "outbox:   delivered", "P, provider id None", "ledger:   4:", "ledger:   5:"):
        assert line in words
