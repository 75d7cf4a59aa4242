"""Who holds a session, and what it is given to send."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from libs.smpp.config import SessionConfig
from libs.smpp.connect import open_session
from libs.smpp.delivers import Deliver
from libs.smpp.pdus import DeliverSm, Pdu, SubmitSm
from libs.smpp.session import Session
from libs.smpp.submission import Answer, AnswerKind, Submission
from tests.libs.smpp.scripted_smsc import Connection, ScriptedSmsc

ANSWERED, TIMED_OUT, SESSION_CLOSED = AnswerKind.ANSWERED, AnswerKind.TIMED_OUT, AnswerKind.SESSION_CLOSED


def submissions(*tokens: object) -> list[Submission]:
    return [Submission(token, SubmitSm("Postrider", "254711000001", b"Hello")) for token in tokens]


def deliver(number: int) -> DeliverSm:
    return DeliverSm("254711000001", "Postrider", str(number).encode())


def silent(_connection: Connection, _sequence: int, pdu: Pdu) -> bool:
    """The script that leaves submits unanswered."""
    return isinstance(pdu, SubmitSm)


class Owner:
    """Who holds a session: keeps what it is told."""

    def __init__(self) -> None:
        self.session: Session
        self.batches: list[list[Answer]] = []
        self.delivered: list[list[Deliver]] = []
        self.may_deliver = asyncio.Event()
        self.may_deliver.set()
        self.deliver_error: Exception | None = None

    @property
    def answers(self) -> list[Answer]:
        return [answer for batch in self.batches for answer in batch]

    @property
    def kinds(self) -> dict[object, AnswerKind]:
        return {answer.token: answer.kind for answer in self.answers}

    def on_answers(self, answers: list[Answer]) -> None:
        self.batches.append(answers)

    async def on_deliver(self, delivers: list[Deliver]) -> None:
        self.delivered.append(delivers)
        await self.may_deliver.wait()
        if self.deliver_error is not None:
            raise self.deliver_error

    async def open(self, config: SessionConfig) -> Session:
        self.session = await open_session(config, self.on_answers, self.on_deliver)
        return self.session


@asynccontextmanager
async def bound(smsc: ScriptedSmsc, **changes: Any) -> AsyncIterator[tuple[Owner, Session, Connection]]:
    """A bound session and the SMSC's side of it."""
    owner = Owner()
    session = await owner.open(smsc.config(**changes))
    try:
        yield owner, session, smsc.connections[-1]
    finally:
        session.end("the test is over", cut=True)
        await session.wait_closed()
