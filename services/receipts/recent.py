"""The registrations that were stored here last, so that their receipts, which mostly follow within seconds, need no look-up."""

from __future__ import annotations

from collections.abc import Iterable

from aiokafka.structs import TopicPartition

from libs.bus.stream import RecordStream
from libs.contracts.topics import PARTITIONS, STATUS
from services.receipts.matching import Key, Registration

Known = dict[Key, list[Registration]]

_ALL_STATUSES = frozenset(TopicPartition(STATUS.name, number) for number in range(PARTITIONS))


class RecentRegistrations:
    """At least `size` ids, if so many were registered, and all that is known of each.

    Another replica may register one of them for a further attempt: so all is forgotten unless every status comes here.
    """

    def __init__(self, size: int = 10_000) -> None:
        self._size = size
        self._epoch = -1
        self._newer: Known = {}
        self._older: Known = {}

    def renew(self, stream: RecordStream | None) -> None:
        """To be called with each batch, before anything is asked: forgets what is not to be believed any more."""
        if stream is None or stream.epoch != self._epoch or not stream.assignment() >= _ALL_STATUSES:
            self._newer, self._older = {}, {}
            self._epoch = stream.epoch if stream is not None else -1

    def put(self, registered: Known) -> None:
        """These ids are registered, each for the first time."""
        if len(self._newer) + len(registered) > self._size:
            self._newer, self._older = {}, self._newer
        self._newer.update(registered)

    def forget(self, keys: Iterable[Key]) -> None:
        """These may be registered for something else too."""
        for key in keys:
            self._newer.pop(key, None)
            self._older.pop(key, None)

    def known(self, keys: Iterable[Key]) -> Known:
        """What is known of these ids; nothing of those that have to be looked up."""
        newer, older = self._newer, self._older
        return {key: found for key in keys if (found := newer.get(key) or older.get(key)) is not None}
