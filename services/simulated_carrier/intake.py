"""Submits, a read's worth at a time: judge each, record them all, and only then answer."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from typing import Final, NamedTuple

from libs.smpp import tlv
from libs.smpp.pdus import ESM_CLASS_UDHI, HEADER, SubmitSm, SubmitSmResp
from libs.smpp.status import CommandStatus
from libs.sms_text.parts import read_part
from services.simulated_carrier.accounts import Redelivery
from services.simulated_carrier.ledger import Concatenation, Ledger, LedgerEntry
from services.simulated_carrier.provider_ids import provider_id
from services.simulated_carrier.receipts import Receipt, wants_receipt
from services.simulated_carrier.session import Session
from services.simulated_carrier.statistics import Statistics
from services.simulated_carrier.steering import Steering, Verdict, steady_us
from services.simulated_carrier.wheel import Wheel

_ADDRESS_LIMIT: Final = 20  # characters, SMPP 3.4 §4.4.1


class Response(NamedTuple):
    """A submit_sm_resp that is due later."""

    session: Session
    frame: bytes


Later = Response | Receipt | Redelivery


_Accepted = tuple[SubmitSm, int, str]
"""With its sequence in the ledger and its provider id as the response writes it."""


class _Judged(NamedTuple):
    """What becomes of the submits of one read; those behind one that drops the connection are never looked at."""

    entries: list[LedgerEntry]
    responses: list[bytes]
    accepted: list[_Accepted]
    drops_connection: bool


class Intake:
    """`deliver` takes receipts that are due now."""

    def __init__(
        self,
        ledger: Ledger,
        steering: Steering,
        statistics: Statistics,
        later: Wheel[Later],
        deliver: Callable[[list[Receipt]], None],
    ) -> None:
        self._ledger = ledger
        self._steering = steering
        self._statistics = statistics
        self._later = later
        self._deliver = deliver

    def take(self, session: Session, submits: list[tuple[int, SubmitSm]], received_at: int) -> None:
        """OSError when the ledger can't be written: nothing was answered then."""
        judged = self._judged(session, submits, received_at)
        self._ledger.append(judged.entries)
        self._statistics.count_arrivals(received_at, len(judged.entries), len(judged.accepted))
        self._answer(session, judged, received_at)

    def _judged(self, session: Session, submits: list[tuple[int, SubmitSm]], received_at: int) -> _Judged:
        id_format = self._steering.behaviour.responses.id_format
        now = steady_us()
        entries: list[LedgerEntry] = []
        responses: list[bytes] = []
        accepted: list[_Accepted] = []
        drops_connection = False
        for ledger_sequence, (sequence, submit) in enumerate(submits, start=self._ledger.next_sequence):
            verdict = _judge_form(submit) or self._steering.judge_submit(
                session.system_id, submit.destination_addr, now
            )
            message_id = None
            if verdict.accepted:
                message_id = provider_id(ledger_sequence, id_format)
                accepted.append((submit, ledger_sequence, message_id))
            status = verdict.command_status
            entries.append(_entry(ledger_sequence, received_at, verdict, message_id, session, submit))
            if status is None:
                self._statistics.unanswered += 1
            else:
                responses.append(_response(sequence, status, message_id))
                if status:
                    self._statistics.refused[status] += 1
            if verdict.drops_connection:
                drops_connection = True
                break
        return _Judged(entries, responses, accepted, drops_connection)

    def _answer(self, session: Session, judged: _Judged, received_at: int) -> None:
        """Responses and receipts, now or later, each in its place."""
        response_delay = self._steering.behaviour.responses.delay_ms / 1_000
        early, at_once, in_the_end = self._receipts(session.system_id, judged.accepted, received_at)
        self._deliver(early)
        if response_delay:
            self._later.extend(response_delay, [Response(session, frame) for frame in judged.responses])
            self._later.extend(response_delay, at_once)
        else:
            for frame in judged.responses:
                session.send(frame)
        if judged.drops_connection:
            session.close(reset=self._steering.behaviour.drop.reset)
        if not response_delay:
            self._deliver(at_once)
        for delay, receipts in in_the_end.items():
            self._later.extend(response_delay + delay, receipts)

    def _receipts(
        self, system_id: str, accepted: list[_Accepted], received_at: int
    ) -> tuple[list[Receipt], list[Receipt], dict[float, list[Receipt]]]:
        """What is to be reported of these submits before the responses, right behind them, and seconds after them."""
        behaviour = self._steering.behaviour.receipts
        at_once: list[Receipt] = []
        in_the_end: defaultdict[float, list[Receipt]] = defaultdict(list)
        if not behaviour.enabled:
            return [], [], {}
        same_format = behaviour.id_format == self._steering.behaviour.responses.id_format
        for submit, sequence, message_id in accepted:
            if not submit.registered_delivery & 0x03:
                continue
            outcome = self._steering.outcome(submit.destination_addr)
            as_written = message_id if same_format else provider_id(sequence, behaviour.id_format)
            final = Receipt(system_id, submit, as_written, received_at, outcome)
            for state in behaviour.intermediate:
                if wants_receipt(submit, state):
                    at_once.append(final._replace(state=state))
            if not wants_receipt(submit, outcome):
                continue
            delay = 0.0 if behaviour.before_response else self._steering.receipt_delay()
            for _ in range(behaviour.copies):
                if delay:
                    in_the_end[delay].append(final)
                else:
                    at_once.append(final)
        return (at_once, [], {}) if behaviour.before_response else ([], at_once, in_the_end)


def _response(sequence: int, status: int, message_id: str | None) -> bytes:
    body = b"%b\0" % (message_id or "").encode()
    return HEADER.pack(HEADER.size + len(body), SubmitSmResp.command_id, status, sequence) + body


def _judge_form(submit: SubmitSm) -> Verdict | None:
    if not 0 < len(submit.destination_addr) <= _ADDRESS_LIMIT:
        return Verdict(accepted=False, command_status=CommandStatus.ESME_RINVDSTADR)
    if len(submit.source_addr) > _ADDRESS_LIMIT:
        return Verdict(accepted=False, command_status=CommandStatus.ESME_RINVSRCADR)
    return None


def _entry(
    ledger_sequence: int,
    received_at: int,
    verdict: Verdict,
    message_id: str | None,
    session: Session,
    submit: SubmitSm,
) -> LedgerEntry:
    reference = submit.tlvs.get(tlv.USER_MESSAGE_REFERENCE)
    return LedgerEntry(
        ledger_sequence,
        received_at,
        verdict.accepted,
        "silent" if verdict.command_status is None else verdict.command_status,
        message_id,
        session.number,
        session.system_id,
        submit.source_addr,
        submit.destination_addr,
        submit.esm_class,
        submit.data_coding,
        submit.registered_delivery,
        submit.content.hex(),
        _concatenation(submit),
        None if reference is None else int.from_bytes(reference),
    )


def _concatenation(submit: SubmitSm) -> Concatenation | None:
    """By user data header (3GPP TS 23.040 §9.2.3.24.1) or by SAR parameters (SMPP 3.4 §5.3.2.22); None: stands alone."""
    if submit.esm_class & ESM_CLASS_UDHI:
        try:
            part = read_part(submit.content, submit.esm_class)
        except ValueError:
            return None  # the ledger keeps the octets as they came
        return Concatenation(part.reference, part.number, part.total) if part.total > 1 else None
    if tlv.SAR_MSG_REF_NUM in submit.tlvs:
        values = (tlv.SAR_MSG_REF_NUM, tlv.SAR_SEGMENT_SEQNUM, tlv.SAR_TOTAL_SEGMENTS)
        return Concatenation(*(int.from_bytes(submit.tlvs.get(tag, b"\1")) for tag in values))
    return None
