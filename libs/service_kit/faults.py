"""What is said of an unforeseen exception: its class and where it arose. Not its text, which may hold a number or a message."""

from __future__ import annotations

from pathlib import PurePath
from traceback import extract_tb, format_tb

_OURS = ("libs.", "services.")


def fault(error: BaseException) -> str:
    """Its class and where in our code it arose."""
    ours = [frame for frame in extract_tb(error.__traceback__) if "site-packages" not in frame.filename]
    return type(error).__name__ + (f" in {PurePath(ours[-1].filename).name}:{ours[-1].lineno}" if ours else "")


def trace(error: BaseException | None) -> str:
    """The way that it took, after those of its causes. Exceptions of our own classes say no content, so these show their text."""
    causes: list[BaseException] = []
    while error is not None and error not in causes:
        causes.append(error)
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    return "\n".join("".join(format_tb(each.__traceback__)) + _words(each) for each in reversed(causes))


def _words(error: BaseException) -> str:
    kind = type(error)
    return f"{kind.__qualname__}: {error}" if kind.__module__.startswith(_OURS) else kind.__qualname__
