"""Which offsets may be committed while work finishes in any order: up to the lowest unfinished record of each partition."""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterable, Mapping, Sequence

from aiokafka.structs import TopicPartition

from libs.bus.port import Offsets


class _Progress:
    __slots__ = ("committed", "delivered", "finished", "next_offset")

    def __init__(self, first: int) -> None:
        self.delivered: deque[int] = deque()  # in order; its head is the lowest unfinished one
        self.finished: set[int] = set()  # those of `delivered` that wait for a lower one
        self.next_offset = first
        self.committed = first


class Watermarks:
    """Delivered and finished offsets per partition. Every call costs O(1) a record, amortised."""

    def __init__(self) -> None:
        self._partitions: dict[TopicPartition, _Progress] = {}

    def delivered(self, partition: TopicPartition, offsets: Sequence[int], next_offset: int | None = None) -> None:
        """Records that were handed out, in the partition's order; gaps (as compaction leaves them) are fine.

        `next_offset` is the one after all that was passed, where the last of it was not handed out.
        """
        if next_offset is None:
            if not offsets:
                return
            next_offset = offsets[-1] + 1
        progress = self._partitions.get(partition)
        if progress is None:
            progress = self._partitions[partition] = _Progress(offsets[0] if offsets else next_offset - 1)
        progress.delivered.extend(offsets)
        progress.next_offset = next_offset

    def finished(self, partition: TopicPartition, offsets: Sequence[int]) -> None:
        """Work on these records is durable. Ignored for a partition that was reset, and for what is finished already."""
        progress = self._partitions.get(partition)
        if progress is None or not progress.delivered:
            return
        delivered, done = progress.delivered, progress.finished
        if not done and len(offsets) == len(delivered) and deque(offsets) == delivered:
            delivered.clear()
            return
        low, high = delivered[0], progress.next_offset
        done.update(offset for offset in offsets if low <= offset < high)
        while delivered and delivered[0] in done:
            done.remove(delivered.popleft())

    def committable(self) -> dict[TopicPartition, int]:
        """The next offset to read of each partition that has moved since it was last committed."""
        return {
            partition: offset
            for partition, progress in self._partitions.items()
            if (offset := self._low(progress)) > progress.committed
        }

    def once_finished(self, offsets: Mapping[TopicPartition, Collection[int]]) -> dict[TopicPartition, int]:
        """The next offset to read of each of these partitions when these are finished too."""
        found: dict[TopicPartition, int] = {}
        for partition, these in offsets.items():
            if (progress := self._partitions.get(partition)) is not None:
                done = progress.finished
                left = (offset for offset in progress.delivered if offset not in these and offset not in done)
                found[partition] = next(left, progress.next_offset)
        return found

    def committed(self, offsets: Offsets) -> None:
        """These offsets are stored."""
        for partition, offset in offsets.items():
            progress = self._partitions.get(partition)
            if progress is not None:
                progress.committed = max(progress.committed, offset)

    def low(self, partition: TopicPartition) -> int | None:
        """The lowest offset that is not finished; None before anything was delivered."""
        progress = self._partitions.get(partition)
        return None if progress is None else self._low(progress)

    def unfinished(self) -> int:
        """How many records are delivered and not finished."""
        return sum(len(each.delivered) - len(each.finished) for each in self._partitions.values())

    def reset(self, partitions: Iterable[TopicPartition]) -> None:
        """Forget these: they belong to another member now, or will be read again from what was committed."""
        for partition in partitions:
            self._partitions.pop(partition, None)

    @staticmethod
    def _low(progress: _Progress) -> int:
        return progress.delivered[0] if progress.delivered else progress.next_offset
