"""What a dispatcher asks of a gateway type. A driver translates between events and the provider's words; it knows no Kafka and no database.

One file per gateway type, listed in `table.py`. Nothing is done per message but the translation: everything goes in batches.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

import msgspec

from libs.contracts.events import GatewayReceipt, SmsDispatch, SmsInbound


class Verdict(StrEnum):
    """What became of one submit. The closed vocabulary of every gateway type."""

    ACCEPTED = "accepted"
    TEMPORARY = "temporary"
    """Proof that it was not accepted; the same message may be later."""
    THROTTLED = "throttled"
    """Proof that it was not accepted, for a reason of the gateway: pause, keep the message, send it again in place."""
    FAILED = "failed"
    """Proof that it was not accepted and never will be."""
    NOT_SENT = "not_sent"
    """Not one byte of it left."""
    NO_ANSWER = "no_answer"
    """It may or may not have been accepted. A later answer may still follow, once."""


class Submission(msgspec.Struct, gc=False):
    """One part to send.

    `reference` (16 bits) joins the parts of a message, `attempt_reference` (16 bits) comes back in the receipts of some providers.
    """

    token: object
    dispatch: SmsDispatch
    part: int
    reference: int
    attempt_reference: int


class Result(msgspec.Struct, gc=False):
    """What became of a token. `code` is stable, for programs; `words` are for operators and hold no number and no text."""

    token: object
    verdict: Verdict
    provider_id: str | None = None
    code: str | None = None
    words: str | None = None


Report = GatewayReceipt | SmsInbound
"""What a provider brings on its own: a delivery receipt, or a message from a person."""


@dataclass(frozen=True, slots=True)
class Callbacks:
    """How a driver tells what happens. `on_reports` returns when the reports are safe: only then they are answered; if it raises, the
    provider is asked to bring them again. `on_change` says that `missing` or `free` may have changed."""

    on_results: Callable[[Sequence[Result]], None]
    on_reports: Callable[[Sequence[Report]], Awaitable[None]]
    on_change: Callable[[], None]


class Driver(Protocol):
    """A connection to one provider."""

    @property
    def free(self) -> int:
        """How many parts may be submitted now: 0 while there is no connection."""
        ...

    @property
    def missing(self) -> str | None:
        """What keeps it from sending, in words for an operator; None when it can send."""
        ...

    def start(self) -> None:
        """Begin to connect, and to reconnect whenever the connection ends. Returns at once."""
        ...

    def submit(self, submissions: Sequence[Submission]) -> None:
        """Send parts, at most `free` of them. Each token gets its Result through `on_results`, at once if it was not sent."""
        ...

    async def stop(self, drain_seconds: float) -> None:
        """Submit nothing more, wait for open answers up to the budget, end the connection. Afterwards every token has its Result."""
        ...
