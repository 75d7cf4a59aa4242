"""The rows that were last written of messages that go on, so that most batches need not read them back."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Collection, Mapping

from libs.contracts.statuses import FINALS
from services.projection.store import Key, Stored

MET_SECONDS = 60.0
"""For how long another replica is believed to be there."""


class RecentFolds:
    """At most `size` folds, the longest unused given up first. One that has become old costs a second fold, never a wrong row.

    They are kept as they are stored: to decode one costs less than to keep many small objects, and to free them in the end.
    """

    def __init__(self, size: int, clock: Callable[[], float] = time.monotonic) -> None:
        self.generation = 0
        """Changes when what was taken from here before is not to be believed any more."""
        self._size = size
        # What was put for these was never stored: a batch that was folded onto it already is wrong.
        self._corrected: set[Key] = set()
        self._folds: OrderedDict[Key, Stored] = OrderedDict()
        self._clock = clock
        self._alone_from = clock()

    @property
    def alone(self) -> bool:
        """Nobody else seems to write: a message that is not known here has no row."""
        return self._clock() >= self._alone_from

    def meet(self) -> None:
        """Another replica was quicker to write something that we were to write."""
        self._alone_from = self._clock() + MET_SECONDS

    def take(self, key: Key) -> Stored | None:
        """What is known here of a message, which is forgotten: who folds it further puts it back."""
        return self._folds.pop(key, None)

    def put(self, folds: Mapping[Key, Stored]) -> None:
        """Remember what is being written, unless the message has ended, beginning and all: hardly anything comes after that."""
        for key, fold in folds.items():
            if fold.status in FINALS and fold.requested:
                self._folds.pop(key, None)
            else:
                self._folds[key] = fold
        while len(self._folds) > self._size:
            self._folds.popitem(last=False)

    def correct(self, folds: Mapping[Key, Stored]) -> None:
        """These are written, and not what was put for them before."""
        self._corrected.update(folds)
        self.put(folds)
        if len(self._corrected) > self._size:  # nothing was prepared for long
            self.forget()

    def still_hold(self, generation: int, keys: Collection[Key]) -> bool:
        """Whether what a batch was folded onto is what is stored: it was prepared in that generation, and has these messages.

        To be asked once of each batch that was prepared, before it is written. It lets the corrections go: at most one batch is prepared
        while another is written, so no other can rest on what they corrected.
        """
        held = generation == self.generation and self._corrected.isdisjoint(keys)
        self._corrected.clear()
        return held

    def forget(self) -> None:
        """Something that was to be written is not, or may not be: start over from what is stored."""
        self.generation += 1
        self._folds.clear()
        self._corrected.clear()
