"""The auditor: lays three records of one run side by side and checks the promise, sentence by sentence. Pure.

The records are what clients were told, what the carrier accepted, and what Postrider stored: the outbox and the attempts.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from itertools import pairwise
from typing import NamedTuple
from uuid import UUID

from libs.contracts.statuses import Status

IN_DOUBT = frozenset("DP")
"""What an attempt says of itself when nobody knows whether it was accepted: by its owner's word, by a peer's."""
NOT_ACCEPTED = frozenset("TBNnf")
"""Proof that an attempt was not accepted, after which its part may be tried again."""
GONE_BACK = frozenset("ER")
"""The same, but in another leg: deferred after a refusal, returned unattempted."""


class Rule(StrEnum):
    ONE_ID = "one Idempotency-Key has one message"
    KNOWN = "the outbox holds no message that no client was told of"
    ENDS = "an accepted message is delivered or in doubt"
    CARRIED = "a delivered message was accepted by the carrier, every part of it"
    ONCE = "the carrier accepts nothing twice"
    PROMISED = "the carrier gets no text that no client sent"
    RECORDED = "what the carrier accepted is recorded as accepted, or in doubt"
    ACCEPTED = "what is recorded as accepted was accepted by the carrier, under that id"
    DOUBTED = "a message in doubt has an attempt in doubt"
    OPEN = "an attempt that a peer calls in doubt had no outcome when its owner was killed"
    SURPLUS = "what is in doubt and was not accepted is at most one window per instance"
    SETTLED = "no attempt is left without an outcome"
    PROOF = "a part is tried again only after proof that it was not accepted"


@dataclass(frozen=True, slots=True)
class Promise:
    """What one request was told. `text` names the text, which no other request has; `ids` came with each 202 for its key."""

    text: str
    parts: int
    ids: tuple[UUID, ...]


@dataclass(frozen=True, slots=True)
class Carried:
    """One part that the carrier accepted."""

    sequence: int
    text: str
    part: int
    provider_id: str | None


class AttemptKey(NamedTuple):
    message_id: UUID
    cycle: int
    leg: int
    part: int
    try_number: int


@dataclass(frozen=True, slots=True)
class Attempt:
    """A row of `dispatch.attempts`."""

    key: AttemptKey
    owner: UUID
    outcome: str | None
    provider_id: str | None = None

    @property
    def in_doubt(self) -> bool:
        return self.outcome in IN_DOUBT


@dataclass(frozen=True, slots=True, kw_only=True)
class Records:
    """All that is known of one run. `killed`: the attempts without outcome that each killed instance left behind."""

    promises: Sequence[Promise]
    outbox: Mapping[UUID, Status]
    carried: Sequence[Carried]
    attempts: Sequence[Attempt]
    killed: Mapping[UUID, frozenset[AttemptKey]]
    window: int


@dataclass(frozen=True, slots=True)
class Complaint:
    """A rule that was broken, about a message if it can be named."""

    rule: Rule
    words: str
    message_id: UUID | None = None

    def __str__(self) -> str:
        about = f" (message {self.message_id})" if self.message_id else ""
        return f"[{self.rule}] {self.words}{about}"


@dataclass(slots=True)
class _View:
    """The records, indexed by message, part and text."""

    records: Records
    id_of: dict[str, UUID] = field(init=False)
    text_of: dict[UUID, str] = field(init=False)
    of_message: dict[UUID, list[Attempt]] = field(init=False)
    carried: dict[tuple[str, int], list[Carried]] = field(init=False)

    def __post_init__(self) -> None:
        self.id_of = {p.text: p.ids[0] for p in self.records.promises if p.ids}
        self.text_of = {i: p.text for p in self.records.promises for i in p.ids}
        self.of_message = defaultdict(list)
        for attempt in self.records.attempts:
            self.of_message[attempt.key.message_id].append(attempt)
        self.carried = defaultdict(list)
        for entry in self.records.carried:
            self.carried[entry.text, entry.part].append(entry)

    def attempts(self, message_id: UUID, part: int) -> list[Attempt]:
        return [a for a in self.of_message.get(message_id, []) if a.key.part == part]

    def text(self, attempt: Attempt) -> str:
        return self.text_of.get(attempt.key.message_id, "a text unknown")

    def was_carried(self, attempt: Attempt) -> bool:
        return (self.text(attempt), attempt.key.part) in self.carried


def audit(records: Records) -> list[Complaint]:
    """Every way in which the records break the promise; none if they keep it."""
    view = _View(records)
    return [complaint for check in _CHECKS for complaint in check(view)]


def doubts(records: Records) -> tuple[list[Attempt], list[Attempt]]:
    """The attempts in doubt: those that the carrier accepted, as a kill before recording leaves them, and the surplus."""
    view = _View(records)
    in_doubt = [a for a in records.attempts if a.in_doubt]
    return [a for a in in_doubt if view.was_carried(a)], [a for a in in_doubt if not view.was_carried(a)]


def explain(records: Records, complaints: Sequence[Complaint], most: int = 10) -> str:
    """The complaints, with all that the records say of the messages they are about."""
    counts = Counter(complaint.rule for complaint in complaints)
    lines = [f"{len(complaints)} complaints"] + [f"{number:6} × {rule}" for rule, number in counts.most_common()]
    for complaint in complaints[:most]:
        lines.append(f"\n{complaint}")
        if complaint.message_id is not None:
            lines += [f"    {line}" for line in _story(records, complaint.message_id)]
    if len(complaints) > most:
        lines.append(f"\n… and {len(complaints) - most} more")
    return "\n".join(lines)


def _story(records: Records, message_id: UUID) -> Iterator[str]:
    texts = [p for p in records.promises if message_id in p.ids]
    for promise in texts:
        yield f"promised: {promise.text}, {promise.parts} part(s), told {', '.join(map(str, dict.fromkeys(promise.ids)))}"
    yield f"outbox:   {records.outbox.get(message_id, 'nothing')}"
    for a in sorted((a for a in records.attempts if a.key.message_id == message_id), key=lambda a: a.key):
        killed = " (killed)" if a.owner in records.killed else ""
        where = f"leg {a.key.leg} part {a.key.part} try {a.key.try_number}"
        yield f"attempt:  {where}: {a.outcome or 'no outcome'}, provider id {a.provider_id}, owner {a.owner}{killed}"
    for promise in texts:
        for entry in (e for e in records.carried if e.text == promise.text):
            yield f"ledger:   {entry.sequence}: part {entry.part}, provider id {entry.provider_id}"


def _ids(view: _View) -> Iterator[Complaint]:
    texts_of: defaultdict[UUID, set[str]] = defaultdict(set)
    for promise in view.records.promises:
        if len(set(promise.ids)) != 1:
            told = ", ".join(map(str, dict.fromkeys(promise.ids))) or "nothing"
            yield Complaint(Rule.ONE_ID, f"{promise.text} was told {told}", next(iter(promise.ids), None))
        for message_id in promise.ids:
            texts_of[message_id].add(promise.text)
    for message_id, texts in texts_of.items():
        if len(texts) > 1:
            yield Complaint(Rule.ONE_ID, f"{', '.join(sorted(texts))} were told the same id", message_id)
    for message_id in view.records.outbox:
        if message_id not in texts_of:
            yield Complaint(Rule.KNOWN, "no client was told of it", message_id)


def _ends(view: _View) -> Iterator[Complaint]:
    for promise in view.records.promises:
        for message_id in set(promise.ids):
            status = view.records.outbox.get(message_id)
            if status is Status.DELIVERED:
                for part in range(1, promise.parts + 1):
                    if (promise.text, part) not in view.carried:
                        words = f"{promise.text} is delivered, and its part {part} is not in the ledger"
                        yield Complaint(Rule.CARRIED, words, message_id)
            elif status is Status.IN_DOUBT:
                if not any(a.in_doubt for a in view.of_message.get(message_id, [])):
                    yield Complaint(Rule.DOUBTED, f"{promise.text} has no attempt in doubt", message_id)
            else:
                yield Complaint(Rule.ENDS, f"{promise.text} is {status or 'not in the outbox'}", message_id)


def _ledger(view: _View) -> Iterator[Complaint]:
    for (text, part), entries in view.carried.items():
        message_id = view.id_of.get(text)
        if message_id is None:
            yield Complaint(Rule.PROMISED, f"{text!r} is in the ledger")
            continue
        if len(entries) > 1:
            sequences = ", ".join(str(e.sequence) for e in entries)
            yield Complaint(Rule.ONCE, f"{text} part {part} is in the ledger at {sequences}", message_id)
        attempts = view.attempts(message_id, part)
        recorded = {a.provider_id for a in attempts if a.outcome == "A"}
        if not any(a.in_doubt for a in attempts):
            for entry in entries:
                if entry.provider_id not in recorded:
                    words = f"{text} part {part}, in the ledger at {entry.sequence}, is neither recorded nor in doubt"
                    yield Complaint(Rule.RECORDED, words, message_id)
        accepted = {e.provider_id for e in entries}
        for a in attempts:
            if a.outcome == "A" and a.provider_id not in accepted:
                words = f"{text} part {part} is recorded under {a.provider_id}, the ledger has {accepted}"
                yield Complaint(Rule.ACCEPTED, words, message_id)


def _attempts(view: _View) -> Iterator[Complaint]:
    tries: defaultdict[tuple[UUID, int, int], list[Attempt]] = defaultdict(list)
    for a in view.records.attempts:
        where = f"{view.text(a)} leg {a.key.leg} part {a.key.part} try {a.key.try_number}"
        if a.outcome is None:
            yield Complaint(Rule.SETTLED, f"{where} has none", a.key.message_id)
        if a.outcome == "A" and not view.was_carried(a):
            words = f"{where} is recorded under {a.provider_id}, and not in the ledger"
            yield Complaint(Rule.ACCEPTED, words, a.key.message_id)
        if a.outcome == "P" and a.key not in view.records.killed.get(a.owner, frozenset()):
            yield Complaint(Rule.OPEN, f"{where} of {a.owner} was not seen without one", a.key.message_id)
        tries[a.key.message_id, a.key.cycle, a.key.part].append(a)
    for of_part in tries.values():
        for a, following in pairwise(sorted(of_part, key=lambda a: a.key)):
            again_in_leg = following.key.leg == a.key.leg
            if a.outcome not in (NOT_ACCEPTED if again_in_leg else NOT_ACCEPTED | GONE_BACK):
                words = f"{view.text(a)} part {a.key.part} was tried again after {a.outcome or 'no outcome'}"
                yield Complaint(Rule.PROOF, words, a.key.message_id)


def _surplus(view: _View) -> Iterator[Complaint]:
    _, not_carried = doubts(view.records)
    for owner, number in Counter(a.owner for a in not_carried).items():
        if number > view.records.window:
            yield Complaint(Rule.SURPLUS, f"instance {owner} left {number}, its window is {view.records.window}")


_CHECKS = (_ids, _ends, _ledger, _attempts, _surplus)
