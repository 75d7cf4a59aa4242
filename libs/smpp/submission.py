"""What goes into a session and what comes out of it, part by part."""

from __future__ import annotations

import enum
from collections.abc import Callable
from typing import NamedTuple

import msgspec

from libs.smpp.pdus import SubmitSm


class Submission(msgspec.Struct, gc=False):
    """One part to send; the token comes back with its answer."""

    token: object
    message: SubmitSm


class UnsentReason(enum.Enum):
    """Why a submission was not written."""

    NOT_BOUND = "not bound"
    WINDOW_FULL = "window full"
    INVALID = "invalid"  # its fields fit no PDU: it never will be sent as it is


class Unsent(NamedTuple):
    """A submission of which no byte was written."""

    token: object
    reason: UnsentReason
    words: str


class AnswerKind(enum.Enum):
    """How a written submission came out."""

    ANSWERED = "answered"
    TIMED_OUT = "timed out"
    SESSION_CLOSED = "session closed"


class Answer(msgspec.Struct, gc=False):
    """What became of a token. Each written token gets one Answer; after TIMED_OUT an ANSWERED may follow, once, while the
    session lives. TIMED_OUT and SESSION_CLOSED prove neither acceptance nor refusal."""

    token: object
    kind: AnswerKind
    command_status: int | None = None  # of ANSWERED alone
    message_id: str = ""  # the provider's, as written; may be empty


OnAnswers = Callable[[list[Answer]], None]
"""Told of answers in the order of their coming, at most once per read of the socket. It must not block."""
