"""Who calls: API keys with tenant, scopes and a rate of requests."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Generator, Iterable
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from http import HTTPStatus

from libs.service_kit.config_file import ApiKey, Scope
from libs.service_kit.problems import ProblemError

REALM = 'Bearer realm="postrider"'


class TokenBucket:
    """A rate of requests per second, with a burst of one second's worth (at least one). Each replica counts by itself.

    Who has a token may take many more at once, as a debt: the next waits until that is paid.
    """

    def __init__(self, per_second: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._per_second = per_second
        self._clock = clock
        self._size = max(1.0, per_second)
        self._tokens = self._size
        self._at = clock()

    def take(self) -> float:
        """Take one token: 0, or the seconds until there is one."""
        self._fill()
        if self._tokens < 1:
            return self._wait()
        self._tokens -= 1
        return 0.0

    def take_more(self, tokens: int) -> float:
        """Take so many beside the one already taken, those that are not there as a debt: 0. If there is a debt already, nothing is taken:
        the seconds until there is a token again."""
        self._fill()
        if self._tokens < 0:
            return self._wait()
        self._tokens -= tokens
        return 0.0

    def give_back(self, tokens: int) -> None:
        self._tokens += tokens

    def _fill(self) -> None:
        now = self._clock()
        self._tokens = min(self._size, self._tokens + (now - self._at) * self._per_second)
        self._at = now

    def _wait(self) -> float:
        return (1 - self._tokens) / self._per_second


@dataclass(frozen=True, slots=True)
class Caller:
    """A known API key. `name` is what events and metrics may say of it."""

    name: str
    tenant: str
    scopes: frozenset[Scope]
    bucket: TokenBucket | None

    @contextmanager
    def charged(self, messages: int) -> Generator[None]:
        """A call was let in as one request. What is done within counts as one for each message, unless it ends with a problem. Raises the
        problem 429 if others have overdrawn the rate meanwhile."""
        if self.bucket is None:
            yield
            return
        if wait := self.bucket.take_more(messages - 1):
            raise _too_fast(wait)
        try:
            yield
        except ProblemError:
            self.bucket.give_back(messages - 1)
            raise


def _too_fast(wait: float) -> ProblemError:
    words = "the rate of requests of this API key is used up"
    return ProblemError(HTTPStatus.TOO_MANY_REQUESTS, words, retry_after=math.ceil(wait))


NOBODY = Caller("", "", frozenset(), None)
"""Whoever asks for what is open to all."""


class ApiKeys:
    """The keys of the configuration, by the SHA-256 of each: a key itself is not kept."""

    def __init__(self, keys: Iterable[ApiKey]) -> None:
        self._callers: dict[bytes, Caller] = {}
        for key in keys:
            bucket = TokenBucket(key.requests_per_second) if key.requests_per_second else None
            self._callers[key.sha256] = Caller(key.name, key.tenant, key.scopes, bucket)

    def authenticate(self, authorization: bytes | None, scope: Scope) -> Caller:
        """The caller of `Authorization: Bearer <key>`. Raises the problems 401, 403 (scope missing) and 429 (too fast)."""
        scheme, _, key = (authorization or b"").partition(b" ")
        if scheme.lower() != b"bearer" or not key:
            raise ProblemError(
                HTTPStatus.UNAUTHORIZED,
                "Authorization: an API key is needed, as in `Authorization: Bearer <key>`",
                headers={"WWW-Authenticate": REALM},
            )
        # What an attacker could learn from the time of this look-up is a digest's hash, from which no key follows.
        caller = self._callers.get(sha256(key.strip()).digest())
        if caller is None:
            raise ProblemError(
                HTTPStatus.UNAUTHORIZED,
                "Authorization: this API key is not known",
                headers={"WWW-Authenticate": f'{REALM}, error="invalid_token"'},
            )
        if caller.bucket is not None and (wait := caller.bucket.take()):
            raise _too_fast(wait)
        if scope not in caller.scopes:
            raise ProblemError(
                HTTPStatus.FORBIDDEN,
                f"this API key lacks the scope {scope}",
                headers={"WWW-Authenticate": f'{REALM}, error="insufficient_scope", scope="{scope}"'},
            )
        return caller
