"""One ESME session (SMPP 3.4 §2) over one connection: bind, submit, answers, delivers, enquire_link, unbind.

Nothing is done per message but encoding and one entry in the window: bytes leave in one write per batch, answers are told
in one call per read, and one periodic sweep watches all timers. `libs.smpp.link` opens the next session when one has ended.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Sequence
from typing import Final, cast

import structlog

from libs.smpp import pdus
from libs.smpp.codec import Framer, decode
from libs.smpp.config import SessionConfig
from libs.smpp.delivers import Delivers, OnDeliver
from libs.smpp.errors import BindError, PduError
from libs.smpp.pdus import DataSm, DeliverSm, Pdu, SubmitSmResp
from libs.smpp.status import CommandStatus, StatusClass
from libs.smpp.submission import Answer, AnswerKind, OnAnswers, Submission, Unsent, UnsentReason
from libs.smpp.window import Window

_MAX_SEQUENCE: Final = 0x7FFF_FFFF
_SPARE_SEQUENCES: Final = 1_000  # left for enquire_link and unbind when submits have used up the rest
_UNBIND_SECONDS: Final = 2.0  # how long an unbind may stay unanswered
_LINGER_SECONDS: Final = 1.0  # how long the last bytes may take to leave before the connection is cut

_log: Final[structlog.typing.FilteringBoundLogger] = structlog.get_logger("smpp")


class Session(asyncio.Protocol):
    """Made by `connect.open_session`. Its methods belong to the loop it was made in."""

    def __init__(self, config: SessionConfig, on_answers: OnAnswers, on_deliver: OnDeliver) -> None:
        self.bound = False
        self.close_reason: str | None = None
        """Why the session ended or is ending, for an operator."""
        self._config = config
        self._on_answers = on_answers
        self._loop = asyncio.get_running_loop()
        self._window = Window(config.window, config.response_timeout_seconds)
        self._delivers = Delivers(on_deliver, self._write)
        self._framer = Framer()
        self._transport: asyncio.Transport | None = None
        self._next_sequence = 1
        self._draining = False
        self._writing_paused = False
        self._bind_sequence = self._unbind_sequence = 0  # none yet: ours begin with 1
        self._bind_answer: asyncio.Future[tuple[str, CommandStatus | None] | None] = self._loop.create_future()
        """None once bound, else what the BindError says. An exception kept here would hold the frames that hold the session."""
        self._settled = asyncio.Event()  # nothing is in flight
        self._settled.set()
        self._unbound = asyncio.Event()
        self._closed = asyncio.Event()
        self._enquire_sequence = 0  # 0: none is open
        self._enquire_at = self._loop.time() + config.enquire_link_seconds  # when to ask, or to have the answer
        self._endings: list[asyncio.Task[None]] = []
        self._sweep_seconds = min(1.0, config.response_timeout_seconds / 10, config.enquire_link_seconds / 10)
        self._sweep_timer: asyncio.TimerHandle | None = None
        self._swept_at = self._loop.time()

    # What the owner calls.

    @property
    def free_window(self) -> int:
        """How many submits may be written now; 0 when not bound, draining or the peer has stopped reading."""
        return self._window.free if self.bound and not self._draining and not self._writing_paused else 0

    def submit_many(self, submissions: Sequence[Submission]) -> list[Unsent]:
        """Write `submissions`, in order, in one go. Those returned were not written, no byte of them; every other one was
        handed to the connection, and will have its Answer."""
        transport = self._transport
        if transport is None or transport.is_closing() or not self.bound or self._draining:
            return [Unsent(s.token, UnsentReason.NOT_BOUND, "the session is not bound") for s in submissions]
        unsent: list[Unsent] = []
        frames: list[bytes] = []
        free, now = self.free_window, self._loop.time()
        for submission in submissions:
            token = submission.token
            if len(frames) >= free:
                unsent.append(Unsent(token, UnsentReason.WINDOW_FULL, "the window is full"))
                continue
            try:
                frame = submission.message.encode(self._next_sequence)
            except ValueError as error:
                unsent.append(Unsent(token, UnsentReason.INVALID, str(error)))
                continue
            self._window.add(self._next_sequence, token, now)
            self._next_sequence += 1
            frames.append(frame)
        if frames:
            self._settled.clear()
            try:
                transport.write(b"".join(frames))
            except Exception:  # some bytes may have left: they count as written, and end with the session
                _log.exception("smpp_write_failed", count=len(frames))
                self.end("writing to the connection failed", cut=True)
        if self._next_sequence > _MAX_SEQUENCE - _SPARE_SEQUENCES - self._config.window:
            # No number is used twice: a late answer could meet the wrong token.
            self._renew("its sequence numbers are used up")
        return unsent

    async def unbind(self, drain_seconds: float) -> None:
        """End the session in good order: submit no more, wait up to `drain_seconds` for the answers that are open and for
        the delivers that are here, unbind, close. Returns when the connection is closed; never raises."""
        self._draining = True
        if self.bound:
            await self._finish_open(self._loop.time() + drain_seconds)
        if self.bound:
            self._unbind_sequence = self._take_sequence()
            self._write(pdus.Unbind().encode(self._unbind_sequence))
            await self._until(self._unbound.wait(), self._loop.time() + _UNBIND_SECONDS)
        self._delivers.stop(cancel=True)
        self.end("unbound by us")
        await self._closed.wait()

    def end(self, reason: str, *, cut: bool = False) -> None:
        """Close the connection without an unbind; `cut` without waiting for the last bytes to leave."""
        if self.close_reason is None:
            self.close_reason = reason
        self.bound = False
        if self._transport is None:
            self._delivers.stop(cancel=False)
            self._closed.set()
        elif cut:
            self._transport.abort()
        elif not self._transport.is_closing():
            self._transport.close()
            self._loop.call_later(_LINGER_SECONDS, self._transport.abort)

    async def wait_closed(self) -> str:
        """Wait for the connection's end; why it ended."""
        await self._closed.wait()
        return self.close_reason or "closed"

    async def bind(self) -> None:
        """Bind and wait for the answer; `open_session` gives it its time. BindError when it is refused."""
        config = self._config
        bind = pdus.Bind(
            config.bind_type,
            config.system_id,
            config.password,
            config.system_type,
            addr_ton=config.addr_ton,
            addr_npi=config.addr_npi,
            address_range=config.address_range,
        )
        self._bind_sequence = self._take_sequence()
        self._write(bind.encode(self._bind_sequence))
        if refusal := await self._bind_answer:
            raise BindError(*refusal)

    # What the event loop calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's has the methods but not the base class
        self._sweep_timer = self._loop.call_later(self._sweep_seconds, self._sweep)

    def data_received(self, data: bytes) -> None:
        answers: list[Answer] = []
        try:
            for frame in self._framer.feed(data):
                self._read_frame(frame, answers)
        except PduError as error:
            self._write(pdus.GenericNack(error.command_status).encode(0))
            self.end(f"the provider sent no SMPP: {error.reason}")
        self._report(answers)

    def eof_received(self) -> None:
        # `end` limits the time: by itself the transport waits for ever to write to a peer that does not read.
        self.end("the provider closed the connection")

    def pause_writing(self) -> None:
        self._writing_paused = True

    def resume_writing(self) -> None:
        self._writing_paused = False

    def connection_lost(self, exc: Exception | None) -> None:
        self.bound = False
        if self.close_reason is None:
            self.close_reason = f"the connection was lost: {exc}" if exc else "the provider closed the connection"
        if self._sweep_timer is not None:
            self._sweep_timer.cancel()
        if not self._bind_answer.done():
            self._bind_answer.set_result((self.close_reason, None))
        self._delivers.stop(cancel=False)
        self._report([Answer(token, AnswerKind.SESSION_CLOSED) for token in self._window.close()])
        self._closed.set()

    # Reading.

    def _read_frame(self, frame: bytes, answers: list[Answer]) -> None:
        try:
            sequence, pdu = decode(frame)
        except PduError as error:
            self._refuse(error)
            return
        # The type itself for the usual ones: isinstance takes longer with the classes of msgspec.
        if type(pdu) is SubmitSmResp:
            self._answered(sequence, pdu.command_status, pdu.message_id, answers)
        elif type(pdu) is DeliverSm or type(pdu) is DataSm:
            if self.bound:
                self._delivers.put(sequence, pdu)
            else:
                self._refuse(PduError(CommandStatus.ESME_RINVBNDSTS, "not bound", pdu.command_id, sequence))
        elif isinstance(pdu, pdus.GenericNack):
            # One without a code is a refusal all the same, and must not read as ESME_ROK.
            status = pdu.command_status or CommandStatus.ESME_RUNKNOWNERR
            self._answered(sequence, status, "", answers)
            self._control(sequence, pdus.GenericNack(status))
        else:
            self._control(sequence, pdu)

    def _answered(self, sequence: int, status: int, message_id: str, answers: list[Answer]) -> None:
        try:
            token = self._window.take(sequence)
        except KeyError:
            return  # nobody asked, or it was answered before
        if status:
            self._check_bind(status)
        answers.append(Answer(token, AnswerKind.ANSWERED, status, message_id))

    def _control(self, sequence: int, pdu: Pdu) -> None:
        """The PDUs that are about the session itself."""
        match pdu:
            case pdus.EnquireLink():
                self._write(pdus.EnquireLinkResp().encode(sequence))
            case pdus.EnquireLinkResp(command_status=status) | pdus.GenericNack(command_status=status) if (
                sequence == self._enquire_sequence
            ):
                self._check_bind(status)
                self._enquire_sequence = 0
                self._enquire_at = self._loop.time() + self._config.enquire_link_seconds
            case pdus.BindResp(command_status=status) | pdus.GenericNack(command_status=status) if (
                sequence == self._bind_sequence and not self._bind_answer.done()
            ):
                self._bind_answered(CommandStatus(status))
            case pdus.UnbindResp() | pdus.GenericNack() if 0 < sequence == self._unbind_sequence:
                self._unbound.set()
            case pdus.Unbind():
                self._draining = True
                self._endings.append(self._loop.create_task(self._unbound_by_provider(sequence)))
            case pdus.SubmitSm() | pdus.Bind():
                self._write(pdus.GenericNack(CommandStatus.ESME_RINVCMDID).encode(sequence))
            case _:
                pass  # an outbind, or a response to nothing

    def _check_bind(self, status: int) -> None:
        """A peer that answers so has lost the bind, though not the connection: nothing will be accepted until there is a new one."""
        if CommandStatus(status).status_class is StatusClass.SESSION:
            self._renew(f"the provider knows no such bind any more ({CommandStatus(status).name})")

    def _renew(self, reason: str) -> None:
        """Submit nothing more, and end in good order, so that the link binds anew."""
        if not self._draining:
            self._draining = True
            self.close_reason = reason
            self._endings.append(self._loop.create_task(self.unbind(self._config.response_timeout_seconds)))

    def _bind_answered(self, status: CommandStatus) -> None:
        if status == CommandStatus.ESME_ROK:
            self.bound = True
            self._bind_answer.set_result(None)
        else:
            self._bind_answer.set_result((f"the provider refused the bind: {status.words} ({status.name})", status))

    def _refuse(self, error: PduError) -> None:
        """Answer a request that can't be read; a response that can't be read is as good as none."""
        if error.command_id & pdus.RESPONSE_BIT:
            return
        if error.command_id == DeliverSm.command_id:
            answer: Pdu = pdus.DeliverSmResp(error.command_status)
        elif error.command_id == DataSm.command_id:
            answer = pdus.DataSmResp(error.command_status)
        else:
            answer = pdus.GenericNack(error.command_status)
        _log.warning("pdu_refused", command_id=f"0x{error.command_id:08X}", reason=error.reason)
        self._write(answer.encode(error.sequence))

    # Telling, writing, watching.

    def _report(self, answers: list[Answer]) -> None:
        if not self._window.in_flight:
            self._settled.set()
        if not answers:
            return
        try:
            self._on_answers(answers)
        except Exception:
            _log.exception("answer_handler_failed", count=len(answers))

    def _write(self, data: bytes) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(data)

    def _take_sequence(self) -> int:
        sequence = self._next_sequence
        self._next_sequence += 1
        return sequence

    async def _unbound_by_provider(self, sequence: int) -> None:
        """What is open is finished before the provider has its answer: after it, nothing more need come."""
        await self._finish_open(self._loop.time() + self._config.response_timeout_seconds)
        self._write(pdus.UnbindResp().encode(sequence))
        self.end("the provider unbound")

    async def _finish_open(self, deadline: float) -> None:
        """Wait for the answers that are open and for the delivers that are here. Nothing is submitted any more."""
        await self._until(self._settled.wait(), deadline)
        await self._until(self._delivers.finish(), deadline)

    async def _until(self, condition: Coroutine[object, None, object], deadline: float) -> None:
        """Wait for `condition`, but not beyond `deadline` nor for a connection that has ended."""
        waiting = [asyncio.create_task(condition), asyncio.create_task(self._closed.wait())]
        remaining = max(0.0, deadline - self._loop.time())
        try:
            await asyncio.wait(waiting, timeout=remaining, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in waiting:
                task.cancel()

    def _sweep(self) -> None:
        # Judged as of the sweep before: in a process that stood still, timers may run before what has come meanwhile is read.
        before, self._swept_at = self._swept_at, self._loop.time()
        self._sweep_timer = self._loop.call_later(self._sweep_seconds, self._sweep)
        self._report([Answer(token, AnswerKind.TIMED_OUT) for token in self._window.expire(before)])
        if not self.bound or before < self._enquire_at:
            return
        if self._enquire_sequence:
            self.end("the provider left an enquire_link unanswered", cut=True)
            return
        self._enquire_sequence = self._take_sequence()
        self._enquire_at = self._swept_at + self._config.response_timeout_seconds
        self._write(pdus.EnquireLink().encode(self._enquire_sequence))
