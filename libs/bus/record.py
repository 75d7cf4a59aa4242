"""One record as handlers see it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
from aiokafka.structs import TopicPartition

Headers = Sequence[tuple[str, bytes]]
CLOUDEVENTS: list[tuple[str, bytes]] = [("content-type", b"application/cloudevents+json")]
"""The headers of nearly every record: one list for all of them."""


class Record(msgspec.Struct, gc=False):
    """A source makes it without its event; the stream that delivers it fills in the rest, and nobody changes it from then on.

    `event` is the envelope of the topic's declared type; None if it can't be, or is not to be, decoded.

    It is untyped because a batch may hold records of several topics: annotate it where it is taken, as in
    `event: MessageEvent[SmsStatus] = record.event`.
    """

    source: TopicPartition
    offset: int
    key: bytes | None
    raw: bytes | None
    headers: Headers
    event: Any = None
    epoch: int = 0
    """Of the assignment under which it was delivered; see `RecordStream.epoch`."""
    delivered_at: float = 0.0
    """When it came here, in seconds of `time.monotonic`."""

    @property
    def topic(self) -> str:
        return self.source.topic

    @property
    def partition(self) -> int:
        return self.source.partition
