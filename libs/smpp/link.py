"""Keeps one bind up for ever: connects, binds, and after every end does so again, later each time it fails."""

from __future__ import annotations

import asyncio
import enum
import random
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

import structlog

from libs.smpp.config import SessionConfig
from libs.smpp.connect import open_session
from libs.smpp.delivers import OnDeliver
from libs.smpp.errors import BindError
from libs.smpp.session import Session
from libs.smpp.submission import OnAnswers, Submission, Unsent, UnsentReason

_log: Final[structlog.typing.FilteringBoundLogger] = structlog.get_logger("smpp")


class LinkState(enum.Enum):
    """Where a link stands."""

    UNBOUND = "unbound"
    BINDING = "binding"
    BOUND = "bound"


_STEADY_SECONDS: Final = 10.0
"""A session that held as long counts as a success; a shorter one as one more failure."""


def wait_after_loss(failures: int, chance: float) -> float:
    """Seconds to wait after `failures` losses in a row (from 1): a share of a wait that doubles with each loss, up to a cap. The share,
    `chance` (0 to 1), is drawn so that replicas don't come back in step."""
    return chance * min(30.0, 0.2 * 2.0 ** min(failures - 1, 30))


def wait_after_refusal(failures: int, chance: float) -> float:
    """Seconds to wait after `failures` failed attempts in a row, the last of them refused: between half and the whole of a longer wait.

    A wrong password won't be right a second later, repeating it may lock the account, and "already bound" most often means that the
    SMSC has yet to notice the end of the last session.
    """
    return min(60.0, 5.0 * 2.0 ** min(failures - 1, 30)) * (1 + chance) / 2


class Link:
    """One bind that comes back by itself. `start` it once, `close` it once; it never ends on its own.

    `on_change` is told of each change of `state`, and must not block. A callback that raises is logged and does the link no harm.
    """

    def __init__(
        self,
        config: SessionConfig,
        on_answers: OnAnswers,
        on_deliver: OnDeliver,
        on_change: Callable[[], None] = lambda: None,
        *,
        monotonic: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        chance: Callable[[], float] = random.random,
        connect: Callable[[SessionConfig, OnAnswers, OnDeliver], Awaitable[Session]] = open_session,
    ) -> None:
        self.state = LinkState.UNBOUND
        self.last_error: str | None = None
        """Why the link last failed or ended, for an operator; kept after it is bound again."""
        self._closing = False
        self._config = config
        self._on_answers = on_answers
        self._on_deliver = on_deliver
        self._on_change = on_change
        self._monotonic = monotonic
        self._sleep = sleep
        self._chance = chance
        self._connect = connect
        self._session: Session | None = None
        self._failures = 0
        self._runner: asyncio.Task[None] | None = None

    @property
    def bound(self) -> bool:
        """Whether submits can be written now."""
        return self._session is not None and self._session.bound

    @property
    def free_window(self) -> int:
        """How many submits may be written now; 0 when not bound."""
        return self._session.free_window if self._session else 0

    def start(self) -> None:
        """Begin to connect; returns at once."""
        assert self._runner is None, "a link is started once"
        self._runner = asyncio.create_task(self._run())

    def submit_many(self, submissions: Sequence[Submission]) -> list[Unsent]:
        """See `Session.submit_many`; when there is no session, none is written."""
        if self._session is None:
            return [Unsent(s.token, UnsentReason.NOT_BOUND, "the link is not bound") for s in submissions]
        return self._session.submit_many(submissions)

    async def close(self, drain_seconds: float) -> None:
        """Connect no more; end the session in good order, with up to `drain_seconds` for what is open. Every token has its
        Answer when this returns."""
        if self._runner is None:
            return
        self._closing = True
        if self._session is not None:
            await self._session.unbind(drain_seconds)
        self._runner.cancel()
        await asyncio.wait([self._runner])
        self._set_state(LinkState.UNBOUND)

    async def _run(self) -> None:
        while True:
            try:
                delay = await self._one_session()
            except Exception as error:  # ours to mend, but no reason to leave the provider unbound
                _log.exception("smpp_link_failed")
                self.last_error = f"unexpected error: {type(error).__name__}"
                self._failures += 1
                delay = wait_after_loss(self._failures, self._chance())
            await self._sleep(delay)

    async def _one_session(self) -> float:
        """Connect, bind, hold until the end; how long to wait before the next."""
        self._set_state(LinkState.BINDING)
        try:
            session = await self._connect(self._config, self._on_answers, self._on_deliver)
        except BindError as failure:
            self._failures += 1
            self._ended(failure.words)
            wait = wait_after_loss if failure.command_status is None else wait_after_refusal
            return wait(self._failures, self._chance())
        self._session = session
        bound_at = self._monotonic()
        self._set_state(LinkState.BOUND)
        try:
            reason = await session.wait_closed()
        finally:
            self._session = None
        self._failures = 1 if self._monotonic() - bound_at >= _STEADY_SECONDS else self._failures + 1
        self._ended(reason)
        return wait_after_loss(self._failures, self._chance())

    def _ended(self, reason: str) -> None:
        self.last_error = reason
        log = _log.info if self._closing else _log.warning
        log("smpp_unbound", system_id=self._config.system_id, reason=reason, failures=self._failures)
        self._set_state(LinkState.UNBOUND)

    def _set_state(self, state: LinkState) -> None:
        if state is self.state:
            return
        self.state = state
        try:
            self._on_change()
        except Exception:
            _log.exception("state_handler_failed", state=state.value)
