"""The folds of the messages that were last written and go on, so that most batches need not read them back."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from libs.contracts.fold import MessageFold
from services.projection.store import Key, StoredFold


class KnownFold(NamedTuple):
    """A message's fold, and what its row has of it."""

    fold: MessageFold
    stored: StoredFold


class RecentFolds:
    """At most `size` folds, the longest unused given up first. One that has become old costs a second fold, never a wrong row."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._folds: OrderedDict[Key, KnownFold] = OrderedDict()

    def take(self, keys: Iterable[Key]) -> dict[Key, KnownFold]:
        """Those of the keys that are known here, which are forgotten: who folds them further puts them back when that is committed."""
        take = self._folds.pop
        return {key: found for key in keys if (found := take(key, None)) is not None}

    def put(self, folds: Mapping[Key, KnownFold]) -> None:
        """Remember what is committed."""
        self._folds.update(folds)
        while len(self._folds) > self._size:
            self._folds.popitem(last=False)
