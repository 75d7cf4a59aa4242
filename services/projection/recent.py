"""The rows that were last written of messages that go on, so that most batches need not read them back."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping

from libs.contracts.statuses import FINALS
from services.projection.store import Key, StoredFold


class RecentFolds:
    """At most `size` folds, the longest unused given up first. One that has become old costs a second fold, never a wrong row.

    They are kept as they are stored: to decode one costs less than to keep many small objects, and to free them in the end.
    """

    def __init__(self, size: int) -> None:
        self.generation = 0
        """Changes when what was taken from here before is not to be believed any more."""
        self._size = size
        self._folds: OrderedDict[Key, StoredFold] = OrderedDict()

    def take(self, key: Key) -> StoredFold | None:
        """What is known here of a message, which is forgotten: who folds it further puts it back."""
        return self._folds.pop(key, None)

    def put(self, folds: Mapping[Key, StoredFold]) -> None:
        """Remember what is being written, unless the message has ended: hardly anything comes after that."""
        for key, fold in folds.items():
            if fold.status in FINALS:
                self._folds.pop(key, None)
            else:
                self._folds[key] = fold
        while len(self._folds) > self._size:
            self._folds.popitem(last=False)

    def correct(self, folds: Mapping[Key, StoredFold]) -> None:
        """These are written, and not what was put for them before."""
        self.generation += 1
        self.put(folds)

    def forget(self) -> None:
        """Something that was to be written is not, or may not be: start over from what is stored."""
        self.generation += 1
        self._folds.clear()
