"""Whether Kafka and Postgres answered when last asked: what readiness says, and what callers are told."""

from __future__ import annotations

import time
from collections.abc import Generator
from contextlib import contextmanager

import structlog

from libs.service_kit.transient import is_transient
from services.api_gateway.problems import unavailable

log = structlog.get_logger()

REMEMBER_SECONDS = 5.0


class Neighbour:
    """Remembers a failure until the next success, but for `REMEMBER_SECONDS` at most: only traffic can show a success."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._lost_at: float | None = None

    def answered(self) -> None:
        self._lost_at = None

    def failed(self) -> None:
        self._lost_at = time.monotonic()

    @contextmanager
    def needed(self, words: str) -> Generator[None]:
        """For what is asked of the neighbour within: that it answered is remembered; that it is away becomes the problem 503, in these
        words."""
        try:
            yield
        except Exception as error:
            if not is_transient(error):
                raise
            self.failed()
            log.warning("neighbour did not answer", neighbour=self._name, reason=type(error).__name__)
            raise unavailable(words) from error
        self.answered()

    def missing(self) -> str | None:
        """A readiness check."""
        if self._lost_at is None or time.monotonic() - self._lost_at > REMEMBER_SECONDS:
            return None
        return f"{self._name} did not answer"
