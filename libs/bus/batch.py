"""What a handler is given: records that were fetched together."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass

from libs.bus.port import Offsets
from libs.bus.record import Record
from libs.bus.stream import RecordStream
from libs.contracts.topics import Topic


@dataclass(frozen=True, slots=True)
class Batch:
    """Records grouped by partition, each in order unless gathered. A handler may see any of them again, and in another grouping."""

    records: Sequence[Record]
    prepared: object = None
    """What `prepare` made of exactly these records, if there was time for it."""
    stream: RecordStream | None = None
    """Where they come from; None where a test makes the batch of a handler that does not ask."""

    def __len__(self) -> int:
        return len(self.records)

    def __iter__(self) -> Iterator[Record]:
        return iter(self.records)

    def next_offsets(self) -> Offsets:
        """Up to where all is done when this batch is: for a handler that stores offsets with its work."""
        assert self.stream is not None
        return self.stream.once_finished(self.records)

    def of(self, *topics: Topic) -> list[Record]:
        """Those of these topics."""
        names = {topic.name for topic in topics}
        return [record for record in self.records if record.topic in names]


Handler = Callable[[Batch], Awaitable[Sequence[Record] | None]]
"""Returns the records of the batch that it holds: those it has done nothing about and wants to see again soon."""

Prepare = Callable[[Batch], Awaitable[object]]
"""What can be done for a batch while the one before it is still at work. It changes nothing: its batch may never be handled."""
