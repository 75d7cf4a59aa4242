"""Our records made straight from the bytes of a fetch: by way of aiokafka's own, each costs a microsecond more, and more memory.

    consumer = AIOKafkaConsumer(..., value_deserializer=as_records)     # its `getmany` brings `Record`, without events

aiokafka can't be told which class its records are to have. So the class that makes them is replaced here; consumers that don't name
`as_records` still get aiokafka's own records.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from aiokafka.consumer import fetcher
from aiokafka.consumer.fetcher import PartitionRecords
from aiokafka.structs import TopicPartition

from libs.bus.record import CLOUDEVENTS, Record


def as_records(value: bytes) -> bytes:
    """A mark, never called: it tells those whose records are ours from all other consumers of this process."""
    return value


class _OurRecords(PartitionRecords):
    def __iter__(self) -> Iterator[Record]:
        return self._records_iterator  # else aiokafka's `__next__` would be called for each record

    def _consumer_record(self, tp: TopicPartition, record: Any) -> Record:
        headers = record.headers
        return Record(tp, record.offset, record.key, record.value, CLOUDEVENTS if headers == CLOUDEVENTS else headers)


def _partition_records(*given: Any) -> PartitionRecords:
    return (_OurRecords if as_records in given else PartitionRecords)(*given)


_fetcher: Any = fetcher
_fetcher.PartitionRecords = _partition_records
