"""The carrier: what its sessions, its intake and its steering share, and the clock that drives what is due later."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Iterable
from typing import Final

import structlog

from libs.smpp import pdus
from libs.smpp.pdus import SubmitSm
from libs.smpp.status import CommandStatus
from services.simulated_carrier.accounts import Account, Redelivery
from services.simulated_carrier.behaviour import Behaviour
from services.simulated_carrier.delivery import Delivery
from services.simulated_carrier.intake import Intake, Later, Response
from services.simulated_carrier.ledger import Ledger
from services.simulated_carrier.receipts import Receipt, write_receipt
from services.simulated_carrier.session import Session
from services.simulated_carrier.settings import CarrierSettings
from services.simulated_carrier.statistics import Statistics
from services.simulated_carrier.steering import Steering, steady_us
from services.simulated_carrier.wheel import Wheel

_HOUSEKEEPING_SECONDS: Final = 0.1
_BUCKET_SECONDS: Final = 0.02  # how late a receipt may be: each bucket costs a turn of the loop and a write
_UNBIND_SECONDS: Final = 2

_log: Final[structlog.typing.FilteringBoundLogger] = structlog.get_logger()


class Carrier:
    """Made inside the running event loop. What is due later (responses, receipts) does not outlive the process."""

    def __init__(self, settings: CarrierSettings, ledger: Ledger) -> None:
        self._settings = settings
        self.ledger = ledger
        self.statistics = Statistics()
        self.steering = Steering(settings.behaviour, random.Random(settings.seed), steady_us())  # noqa: S311
        self.sessions: set[Session] = set()
        self.accounts: dict[str, Account] = {}
        self._later: Wheel[Later] = Wheel(self._due, _BUCKET_SECONDS)
        self._intake = Intake(ledger, self.steering, self.statistics, self._later, self.deliver_receipts)
        self._connections = 0
        self._server: asyncio.Server | None = None
        self._housekeeping: asyncio.Task[None] | None = None

    @property
    def listening(self) -> bool:
        return self._server is not None and self._server.is_serving()

    @property
    def due_later(self) -> int:
        """Responses, receipts and repetitions that are due later."""
        return len(self._later)

    async def start(self) -> int:
        """Listens for SMPP; gives the port. OSError when it is taken."""
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(self._connected, self._settings.host, self._settings.smpp_port)
        self._housekeeping = asyncio.create_task(self._keep_house())
        port: int = self._server.sockets[0].getsockname()[1]
        return port

    async def stop(self) -> None:
        """Takes no more connections, unbinds those there are, and waits, 2 s at most, until they are closed."""
        if self._server is not None:
            self._server.close()
        if self._housekeeping is not None:
            self._housekeeping.cancel()
        self._later.close()
        closed = [session.closed for session in self.sessions]
        for session in list(self.sessions):
            session.unbind()
        if closed:
            await asyncio.wait(closed, timeout=_UNBIND_SECONDS)

    # Steering

    def steer(self, behaviour: Behaviour) -> None:
        """Puts a behaviour in force at once, for connections that exist, too."""
        self.steering.set(behaviour, steady_us())
        for session in self.sessions:
            session.apply_reading_rate()
        self._pump(self.accounts.values())

    def drop_sessions(self, system_id: str | None, *, reset: bool) -> int:
        """Ends the connections of a system_id, or all; gives how many."""
        sessions = [session for session in self.sessions if system_id in (None, session.system_id)]
        for session in sessions:
            session.close(reset=reset)
        _log.info("sessions_dropped", count=len(sessions), reset=reset)
        return len(sessions)

    def deliver(self, system_id: str, messages: Iterable[Delivery]) -> None:
        """Sends messages to a system_id, as soon as it has a session that receives."""
        account = self._account(system_id)
        account.hold(messages)
        self._pump([account])

    def deliver_receipts(self, receipts: list[Receipt]) -> None:
        """Sends receipts whose time has come."""
        if not receipts:
            return
        behaviour = self.steering.behaviour.receipts
        touched: dict[str, list[Delivery]] = {}
        for receipt in receipts:
            touched.setdefault(receipt.system_id, []).append(write_receipt(receipt, behaviour))
        self.statistics.receipts_made += len(receipts)
        for system_id, messages in touched.items():
            self.deliver(system_id, messages)

    # What a session asks (SessionOwner)

    def bytes_per_second(self) -> int | None:
        return self.steering.behaviour.reading.bytes_per_second

    def bind(self, session: Session, request: pdus.Bind) -> int:
        account = self._account(request.system_id)
        status = self._judge_credentials(request) or self.steering.judge_bind(len(account.sessions), steady_us())
        if status:
            self.statistics.binds_refused[status] += 1
            _log.info("bind_refused", system_id=request.system_id, status=CommandStatus(status).name)
            return status
        account.sessions.append(session)
        self.statistics.binds_granted += 1
        peaks = self.statistics.peak_binds
        peaks[request.system_id] = max(peaks[request.system_id], len(account.sessions))
        bind_type = request.bind_type.name.lower()
        _log.info("bound", system_id=request.system_id, session=session.number, bind_type=bind_type)
        return CommandStatus.ESME_ROK

    def take(self, session: Session, submits: list[tuple[int, SubmitSm]], received_at: int) -> None:
        try:
            self._intake.take(session, submits, received_at)
        except OSError as error:
            _log.error("ledger_not_written", error=str(error), submits=len(submits))
            session.close()  # nothing of these submits was answered, and nothing may be

    def delivered(self, session: Session, acknowledged: int, refused: list[Delivery]) -> None:
        account = self._account(session.system_id)
        statistics = self.statistics
        statistics.deliveries_acknowledged += acknowledged
        if refused:
            statistics.deliveries_refused += len(refused)
            retry_seconds = self.steering.behaviour.deliveries.retry_ms / 1_000
            self._later.extend(retry_seconds, [Redelivery(account, message) for message in refused])
        self._pump([account])

    def writable(self, session: Session) -> None:
        if session.bind_type is not None:
            self._pump([self._account(session.system_id)])

    def ended(self, session: Session, unanswered: list[Delivery]) -> None:
        self.sessions.discard(session)
        if session.bind_type is None:
            return
        account = self._account(session.system_id)
        account.sessions.remove(session)
        account.hold_first(unanswered)
        self.statistics.deliveries_unanswered += len(unanswered)
        _log.info(
            "session_ended", system_id=session.system_id, session=session.number, unanswered_deliveries=len(unanswered)
        )
        self._pump([account])

    # Within

    def _connected(self) -> Session:
        self._connections += 1
        session = Session(self, self._connections)
        self.sessions.add(session)
        return session

    def _account(self, system_id: str) -> Account:
        account = self.accounts.get(system_id)
        if account is None:
            self.accounts[system_id] = account = Account(system_id)
        return account

    def _judge_credentials(self, request: pdus.Bind) -> int:
        accounts = self._settings.accounts
        if not accounts:
            return CommandStatus.ESME_ROK
        password = accounts.get(request.system_id)
        if password is None:
            return CommandStatus.ESME_RINVSYSID
        if password.get_secret_value() != request.password:
            return CommandStatus.ESME_RINVPASWD
        return CommandStatus.ESME_ROK

    def _pump(self, accounts: Iterable[Account]) -> None:
        window = self.steering.behaviour.deliveries.window
        for account in accounts:
            self.statistics.deliveries_sent += account.pump(window)

    def _due(self, items: list[Later]) -> None:
        answered: set[Session] = set()
        receipts: list[Receipt] = []
        redeliveries: dict[str, list[Delivery]] = {}
        for item in items:
            match item:
                case Receipt():
                    receipts.append(item)
                case Response(session, frame):
                    session.send(frame)
                    answered.add(session)
                case Redelivery(account, message):
                    redeliveries.setdefault(account.system_id, []).append(message)
        for session in answered:
            session.flush()
        self.deliver_receipts(receipts)
        for system_id, messages in redeliveries.items():
            self.deliver(system_id, messages)

    async def _keep_house(self) -> None:
        """Ends what never binds or no longer answers, and repeats what was never acknowledged."""
        while True:
            await asyncio.sleep(_HOUSEKEEPING_SECONDS)
            now = time.monotonic()
            for session in list(self.sessions):
                if not session.closing and not session.deaf:
                    self._check_life(session, now)
                    self._repeat_overdue(session, now)

    def _check_life(self, session: Session, now: float) -> None:
        settings = self._settings
        silent = now - session.last_heard
        if session.bind_type is None:
            if now - session.connected_at > settings.bind_timeout_seconds:
                session.close()
        elif silent > settings.enquire_link_seconds + settings.enquire_link_timeout_seconds and session.enquired:
            _log.info("session_silent", system_id=session.system_id, session=session.number)
            session.close()
        elif silent > settings.enquire_link_seconds and not session.enquired:
            session.enquire()

    def _repeat_overdue(self, session: Session, now: float) -> None:
        overdue = session.overdue(now - self.steering.behaviour.deliveries.response_timeout_ms / 1_000)
        if overdue:
            account = self._account(session.system_id)
            account.hold_first(overdue)
            self.statistics.deliveries_unanswered += len(overdue)
            self._pump([account])
            _log.info("deliveries_unanswered", system_id=session.system_id, session=session.number, count=len(overdue))
