"""The folds of the messages that were last written, so that most batches need not read them back."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Mapping

from services.projection.store import Key, StoredFold


class RecentFolds:
    """At most `size` folds, the longest unused given up first. One that has become old costs a second fold, never a wrong row."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._folds: OrderedDict[Key, StoredFold] = OrderedDict()

    def get(self, keys: Iterable[Key]) -> dict[Key, StoredFold]:
        """Those of the keys that are known here."""
        known: dict[Key, StoredFold] = {}
        for key in keys:
            fold = self._folds.get(key)
            if fold is not None:
                self._folds.move_to_end(key)
                known[key] = fold
        return known

    def put(self, folds: Mapping[Key, StoredFold]) -> None:
        """Remember what is committed."""
        for key, fold in folds.items():
            self._folds[key] = fold
            self._folds.move_to_end(key)
        while len(self._folds) > self._size:
            self._folds.popitem(last=False)
