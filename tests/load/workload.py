"""What a load sends: messages that differ by a running number alone, so that their requests cost next to nothing to write."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

CLIENTS = 1_000
"""Messages go to clients `0000` to `0999` in turn."""
_NUMBER_AT, _NUMBER_DIGITS = 26, 12
PHONE = "+2547%08d"
"""A client's, to be filled with the client's number."""
TEXT = b"Dear client, your payment %012d was received. Thanks."
"""To be filled with the message's number."""


def client_id(number: int) -> str:
    return f"{number % CLIENTS:04}"


def text_of(number: int) -> bytes:
    return TEXT % number


def number_in(text: bytes) -> int:
    """The running number in a text. ValueError when it is none of ours."""
    return int(text[_NUMBER_AT : _NUMBER_AT + _NUMBER_DIGITS])


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """`messages` texts of 60 characters, no two alike: their numbers run from `first`. `bulk`: so many to a request of POST /sms/bulk;
    None: each by a POST /sms of its own. `scheduled_at`: RFC 3339."""

    messages: int
    first: int = 1
    bulk: int | None = None
    priority: Literal["normal", "high"] = "normal"
    scheduled_at: str | None = None

    @property
    def path(self) -> str:
        return "/sms" if self.bulk is None else "/sms/bulk"

    @property
    def requests(self) -> int:
        return -(-self.messages // (self.bulk or 1))

    @property
    def numbers(self) -> range:
        return range(self.first, self.first + self.messages)

    def template(self) -> bytes:
        """A message as JSON, to be filled with its number and the number of its client."""
        scheduled = f',"scheduledAt":"{self.scheduled_at}"' if self.scheduled_at else ""
        return b'{"message":"%b","clientId":"%%04d","priority":"%b"%b}' % (
            TEXT,
            self.priority.encode(),
            scheduled.encode(),
        )

    def bodies(self, requests: range) -> list[bytes]:
        """The bodies of these requests, counted from 0."""
        template, first = self.template(), self.first
        if self.bulk is None:
            return [template % (first + n, (first + n) % CLIENTS) for n in requests]
        return [self._bulk(template, n) for n in requests]

    def _bulk(self, template: bytes, request: int) -> bytes:
        assert self.bulk is not None
        of = self.numbers[request * self.bulk : (request + 1) * self.bulk]
        return b'{"messages":[%b]}' % b",".join([template % (n, n % CLIENTS) for n in of])
