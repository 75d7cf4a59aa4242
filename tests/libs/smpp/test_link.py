"""The link: it comes back after every end, later each time, and nothing kills it."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from libs.smpp import pdus
from libs.smpp.config import SessionConfig
from libs.smpp.connect import open_session
from libs.smpp.delivers import Deliver
from libs.smpp.errors import BindError
from libs.smpp.link import Link, LinkState, wait_after_loss, wait_after_refusal
from libs.smpp.pdus import Pdu, SubmitSm
from libs.smpp.session import Session
from libs.smpp.status import CommandStatus
from libs.smpp.submission import Answer, AnswerKind, Submission, UnsentReason
from tests.libs.smpp.scripted_smsc import Connection, scripted_smsc
from tests.waiting import until

CONFIG = SessionConfig(host="192.0.2.1", port=2775, system_id="client")


class FakeClock:
    """Sleeps take no time and are written down; after `sleeps` of them the next never ends."""

    def __init__(self, sleeps: int) -> None:
        self.slept: list[float] = []
        self.now = 0.0
        self._sleeps = sleeps

    def monotonic(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        if len(self.slept) >= self._sleeps:
            await asyncio.Event().wait()
        self.now += seconds
        await asyncio.sleep(0)


def ignore_answers(_answers: list[Answer]) -> None:
    pass


async def ignore_delivers(_delivers: list[Deliver]) -> None:
    pass


@asynccontextmanager
async def started(link: Link) -> AsyncIterator[Link]:
    link.start()
    try:
        yield link
    finally:
        await link.close(drain_seconds=0.0)


def _timed_link(
    clock: FakeClock,
    config: SessionConfig,
    connect: Callable[..., Awaitable[Session]] = open_session,
    chance: float = 1.0,
) -> Link:
    return Link(
        config,
        ignore_answers,
        ignore_delivers,
        monotonic=clock.monotonic,
        sleep=clock.sleep,
        chance=lambda: chance,
        connect=connect,
    )


async def _waits_after(error: Exception, *, chance: float, attempts: int) -> tuple[Link, list[float]]:
    clock = FakeClock(attempts)

    async def fail(*_: object) -> Session:
        raise error

    link = _timed_link(clock, CONFIG, fail, chance)
    async with started(link):
        await until(lambda: len(clock.slept) == attempts)
    return link, clock.slept


async def test_waits_for_a_lost_connection_double_to_half_a_minute() -> None:
    link, waits = await _waits_after(BindError("no connection"), chance=1.0, attempts=10)
    assert waits == [0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 12.8, 25.6, 30.0, 30.0]
    assert link.last_error == "no connection"


async def test_waits_have_full_jitter() -> None:
    _, waits = await _waits_after(BindError("no connection"), chance=0.0, attempts=3)
    assert waits == [0.0, 0.0, 0.0]


async def test_a_refused_bind_waits_longer_and_never_nothing() -> None:
    refused = BindError("the password is wrong", CommandStatus.ESME_RINVPASWD)
    link, waits = await _waits_after(refused, chance=0.0, attempts=6)
    assert waits == [2.5, 5.0, 10.0, 20.0, 30.0, 30.0]
    assert link.last_error == "the password is wrong"


async def test_an_unexpected_error_does_not_end_the_link() -> None:
    link, waits = await _waits_after(RuntimeError("a bug"), chance=1.0, attempts=3)
    assert waits == [0.2, 0.4, 0.8]
    assert link.last_error == "unexpected error: RuntimeError"


def test_the_longest_waits_stay_within_their_caps() -> None:
    assert wait_after_loss(10_000, 1.0) == 30.0
    assert wait_after_refusal(10_000, 1.0) == 60.0


async def test_a_lost_session_is_bound_again_and_each_state_is_told() -> None:
    states: list[LinkState] = []
    async with scripted_smsc() as smsc:
        link = Link(
            smsc.config(), ignore_answers, ignore_delivers, lambda: states.append(link.state), chance=lambda: 0.0
        )
        async with started(link):
            await until(lambda: link.bound)
            assert link.bound
            assert link.free_window == 10
            smsc.connections[0].transport.abort()
            await until(lambda: link.bound and len(smsc.connections) == 2)
            assert link.bound
            assert link.last_error is not None
    bind = [LinkState.BINDING, LinkState.BOUND, LinkState.UNBOUND]
    assert states == bind * 2
    assert link.state is LinkState.UNBOUND


async def test_sessions_that_end_at_once_are_bound_ever_more_slowly() -> None:
    def hang_up_after_bind(connection: Connection, sequence: int, pdu: Pdu) -> bool:
        connection.answer(sequence, pdu)
        connection.transport.close()
        return True

    clock = FakeClock(4)
    async with scripted_smsc(hang_up_after_bind) as smsc:
        link = _timed_link(clock, smsc.config())
        async with started(link):
            await until(lambda: len(clock.slept) == 4)
    assert clock.slept == [0.2, 0.4, 0.8, 1.6]


async def test_a_session_that_held_makes_the_next_wait_short_again() -> None:
    clock = FakeClock(4)
    failures = 3

    async with scripted_smsc() as smsc:

        async def connect(config: SessionConfig, *_: object) -> Session:
            nonlocal failures
            failures -= 1
            if failures >= 0:
                raise BindError("no connection")
            return await open_session(smsc.config(), ignore_answers, ignore_delivers)

        link = _timed_link(clock, smsc.config(), connect)
        async with started(link):
            await until(lambda: link.bound)
            clock.now += 3600
            smsc.connections[0].transport.abort()
            await until(lambda: len(clock.slept) == 4)
    assert clock.slept == [0.2, 0.4, 0.8, 0.2]


async def test_a_link_without_a_session_writes_nothing_and_says_so() -> None:
    link = Link(CONFIG, ignore_answers, ignore_delivers)
    (unsent,) = link.submit_many([Submission("a", SubmitSm("Postrider", "1"))])
    assert (unsent.token, unsent.reason) == ("a", UnsentReason.NOT_BOUND)
    assert (link.bound, link.free_window) == (False, 0)


async def test_tokens_open_when_a_session_ends_are_told_and_new_ones_go_out_over_the_next() -> None:
    told: list[Answer] = []

    def lose_the_first(connection: Connection, sequence: int, pdu: Pdu) -> bool:
        if isinstance(pdu, SubmitSm) and connection is connection.smsc.connections[0]:
            connection.transport.abort()
            return True
        return False

    async with scripted_smsc(lose_the_first) as smsc:
        link = Link(smsc.config(), told.extend, ignore_delivers, chance=lambda: 0.0)
        async with started(link):
            await until(lambda: link.bound)
            assert link.submit_many([Submission("a", SubmitSm("Postrider", "1"))]) == []
            await until(lambda: link.bound and len(smsc.connections) == 2)
            assert told == [Answer("a", AnswerKind.SESSION_CLOSED)]
            assert link.submit_many([Submission("b", SubmitSm("Postrider", "1"))]) == []
            await until(lambda: len(told) == 2)
            assert told[1] == Answer("b", AnswerKind.ANSWERED, 0, "id-2")


async def test_closing_unbinds_and_tells_every_token() -> None:
    told: list[Answer] = []

    def never_answer(_connection: Connection, _sequence: int, pdu: Pdu) -> bool:
        return isinstance(pdu, SubmitSm)

    async with scripted_smsc(never_answer) as smsc:
        link = Link(smsc.config(), told.extend, ignore_delivers)
        link.start()
        await until(lambda: link.bound)
        link.submit_many([Submission("a", SubmitSm("Postrider", "1"))])
        await link.close(drain_seconds=0.05)
        assert told == [Answer("a", AnswerKind.SESSION_CLOSED)]
        assert smsc.connections[0].of(pdus.Unbind)
        assert link.state is LinkState.UNBOUND
        assert len(smsc.connections) == 1


async def test_closing_while_binding_leaves_no_connection() -> None:
    async with scripted_smsc(lambda *_: True) as smsc:
        link = Link(smsc.config(), ignore_answers, ignore_delivers)
        link.start()
        await until(lambda: smsc.connections and smsc.connections[0].received)
        await link.close(drain_seconds=1.0)
        assert link.state is LinkState.UNBOUND
        await until(lambda: smsc.connections[0].lost)


async def test_the_link_goes_on_when_callbacks_raise() -> None:
    states: list[LinkState] = []
    told: list[Answer] = []

    def raise_on_change() -> None:
        states.append(link.state)
        raise RuntimeError("a bug")

    def raise_on_answers(answers: list[Answer]) -> None:
        told.extend(answers)
        raise RuntimeError("a bug")

    async with scripted_smsc() as smsc:
        link = Link(smsc.config(), raise_on_answers, ignore_delivers, raise_on_change, chance=lambda: 0.0)
        async with started(link):
            await until(lambda: link.bound)
            link.submit_many([Submission("a", SubmitSm("Postrider", "1"))])
            await until(lambda: told)
            smsc.connections[0].transport.abort()
            await until(lambda: link.bound and len(smsc.connections) == 2)
            assert states == [LinkState.BINDING, LinkState.BOUND, LinkState.UNBOUND, LinkState.BINDING, LinkState.BOUND]


def test_a_configuration_shown_hides_its_password() -> None:
    assert "s3cret" not in repr(SessionConfig(host="h", port=1, system_id="x", password="s3cret"))
