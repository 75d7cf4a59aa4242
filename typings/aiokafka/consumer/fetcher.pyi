from collections.abc import Iterator
from typing import Any

from aiokafka.structs import TopicPartition

class PartitionRecords:
    _records_iterator: Iterator[Any]
    def __init__(self, *given: Any) -> None: ...
    def __iter__(self) -> Iterator[Any]: ...
    def _consumer_record(self, tp: TopicPartition, record: Any) -> Any: ...
