"""What can go wrong on the bus."""

from __future__ import annotations

from libs.contracts.events import Reason
from libs.service_kit.transient import Away


class PublishFailed(Away):
    """Not every record was acknowledged in time. Some may have been: publish all of them again, under the same ids."""


class RecordTooLarge(ValueError):
    """A record is larger than its topic takes. Publishing it again can't help."""


HANDLER_ERROR = "handler-error"
UNDECODABLE = "undecodable"
INVALID = "invalid"
"""An event of one of our own services that breaks our own rules."""

PERHAPS_OURS = frozenset({HANDLER_ERROR, UNDECODABLE, INVALID})
"""Codes of dead letters that may well be our fault: a run of them stops the consumer."""


class BadRecord(Exception):
    """A record can never be handled, and why: it goes to the dead letters with that reason.

    It is the data's fault, and carriers and phones can write what they like: so any number of such records stops no consumer, unless the
    code is in `PERHAPS_OURS`. Anything else that a handler raises (and that is not transient) has the reason `handler-error`.
    """

    def __init__(self, reason: Reason) -> None:
        super().__init__(f"{reason.code}: {reason.words}")
        self.reason = reason


class Undecodable(BadRecord):
    """A record's value is not the event that its topic carries. The words name field and fault, never the content."""

    def __init__(self, words: str) -> None:
        super().__init__(Reason(UNDECODABLE, words))


class TooManyDeadLetters(Exception):
    """A run of records went to the dead letters with no success between: the fault is likely ours. Nothing is committed past."""
