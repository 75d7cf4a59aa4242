"""SMPP 3.4: submits parts over a bind, and turns what the SMSC brings into receipts and inbound messages."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import lru_cache, partial

from libs.contracts.events import LONGEST_PROVIDER_ID, Encoding, GatewayReceipt, Priority, ReceiptState, SmsInbound
from libs.service_kit.config_file import SmppGateway
from libs.service_kit.tls import tls_context
from libs.smpp import tlv
from libs.smpp.config import SessionConfig
from libs.smpp.delivers import Deliver
from libs.smpp.link import Link
from libs.smpp.message_id import normalise_id
from libs.smpp.pdus import BindType, SubmitSm
from libs.smpp.receipt import MessageState, read_receipt
from libs.smpp.status import CommandStatus, StatusClass
from libs.smpp.submission import Answer, UnsentReason
from libs.smpp.submission import Submission as SmppSubmission
from libs.sms_text.segments import Alphabet, segments
from services.dispatcher.drivers.port import Callbacks, Report, Result, Submission, Verdict

NO_RECEIPT = 0
FINAL_AND_FAILURE_RECEIPT = 1
"""registered_delivery (SMPP 3.4 §5.2.17): a receipt for success and for failure."""

DEFAULT_CODINGS = {Alphabet.GSM: 0, Alphabet.LATIN1: 3, Alphabet.ASCII: 1}
"""The data_coding that says each alphabet by name (SMPP 3.4 §5.2.19), for inbound messages whose data_coding only says the default's."""

_ALPHANUMERIC = 5
_SHORTEST_NUMBER = 8
"""Digits of an international number; what has fewer is a short code."""

VERDICTS: dict[StatusClass, Verdict] = {
    StatusClass.ACCEPTED: Verdict.ACCEPTED,
    StatusClass.THROTTLED: Verdict.THROTTLED,
    StatusClass.TEMPORARY: Verdict.TEMPORARY,
    StatusClass.PERMANENT: Verdict.FAILED,
    # A fault of the bind: the link binds anew, and the message waits for it.
    StatusClass.SESSION: Verdict.THROTTLED,
}

RECEIPT_STATES: dict[MessageState | None, ReceiptState] = {
    # A receipt without a state that is known may not be final: the carrier has the message, and may report it again.
    None: ReceiptState.ENROUTE,
    **{state: ReceiptState(state.name.lower()) for state in MessageState},
}
_WORD = re.compile(r"\w{1,16}", re.ASCII)


@lru_cache(maxsize=1000)
def _source(address: str, ton: int, npi: int, *, as_told: bool) -> tuple[str, int, int]:
    """The source address as it travels, with its TON and NPI (SMPP 3.4 §5.2.5, §5.2.6).

    The configuration's TON and NPI are those of the configured address (`as_told`). A message may bring an address of another kind: a name
    is alphanumeric (5), a number is international (1) if it is long enough, and a short code the network's own (3).
    """
    digits = address.lstrip("+")
    if as_told:
        return digits if digits.isdigit() else address, ton, npi
    if not digits.isdigit():
        return (address, ton, npi) if ton == _ALPHANUMERIC or not address else (address, _ALPHANUMERIC, 0)
    if ton != _ALPHANUMERIC:
        return digits, ton, npi
    return (digits, 1, 1) if address != digits or len(digits) >= _SHORTEST_NUMBER else (digits, 3, 0)


@lru_cache(maxsize=1000)
def _validity_period(days: int, seconds: int) -> str:
    """In SMPP's relative format (SMPP 3.4 §7.1.1.2), which needs no clock that agrees with ours: at least a second, at most a month."""
    if days < 0 or days == seconds == 0:  # what is over by our clock may not be by Postgres's, which decides
        return "000000000001000R"
    minutes, seconds = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    return f"0000{days:02}{hours:02}{minutes:02}{seconds:02}000R" if days < 30 else "000030000000000R"


def _integer(deliver: Deliver, tag: int, octets: int) -> int | None:
    """An optional parameter that has so many octets (SMPP 3.4 §5.3.2); None when it is missing or of another length."""
    value = deliver.tlvs.get(tag)
    return int.from_bytes(value) if value is not None and len(value) == octets else None


def _unencodable(token: object, words: str) -> Result:
    return Result(token, Verdict.FAILED, code="smpp.unencodable", words=words)


class SmppDriver:
    """One bind, or a transmitter and a receiver that belong together."""

    def __init__(self, gateway: SmppGateway, callbacks: Callbacks) -> None:
        self._gateway = gateway
        self._kind_told = not gateway.model_fields_set.isdisjoint({"source_ton", "source_npi"})
        self._callbacks = callbacks
        both = gateway.bind_type == "transmitter_and_receiver"
        first = BindType.TRANSMITTER if both else BindType[gateway.bind_type.upper()]
        self._link = self._make_link(first)
        self._receiver = self._make_link(BindType.RECEIVER) if both else None

    @property
    def free(self) -> int:
        return self._link.free_window

    @property
    def missing(self) -> str | None:
        for link in self._links():
            if not link.bound:
                return f"{link.state.value}: {link.last_error or 'no bind yet'}"
        return None

    def start(self) -> None:
        for link in self._links():
            link.start()

    async def stop(self, drain_seconds: float) -> None:
        await asyncio.gather(*(link.close(drain_seconds) for link in self._links()))

    def submit(self, submissions: Sequence[Submission]) -> None:
        batch: list[SmppSubmission] = []
        results: list[Result] = []  # of what is not written
        now = datetime.now(UTC)
        for submission in submissions:
            try:
                batch.append(SmppSubmission(submission.token, self._submit_sm(submission, now)))
            except ValueError as error:
                results.append(_unencodable(submission.token, str(error)))
        for unsent in self._link.submit_many(batch):
            if unsent.reason is UnsentReason.INVALID:
                results.append(_unencodable(unsent.token, unsent.words))
            else:
                results.append(Result(unsent.token, Verdict.NOT_SENT, words=unsent.words))
        if results:
            self._callbacks.on_results(results)

    def _submit_sm(self, submission: Submission, now: datetime) -> SubmitSm:
        dispatch, gateway = submission.dispatch, self._gateway
        message = dispatch.message
        remaining = message.valid_until - now
        segment = segments(
            message.text,
            submission.reference,
            ucs2=dispatch.encoding is Encoding.UCS2,
            alphabet=gateway.default_alphabet,
        )[submission.part - 1]
        source, source_ton, source_npi = _source(
            dispatch.source_address or "",
            gateway.source_ton,
            gateway.source_npi,
            as_told=self._kind_told and dispatch.source_address == gateway.source_address,
        )
        return SubmitSm(
            source_addr=source,
            source_addr_ton=source_ton,
            source_addr_npi=source_npi,
            destination_addr=dispatch.phone.lstrip("+"),
            dest_addr_ton=gateway.destination_ton,
            dest_addr_npi=gateway.destination_npi,
            service_type=gateway.service_type,
            priority_flag=int(gateway.priority_flag and message.priority is Priority.HIGH),
            validity_period=_validity_period(remaining.days, remaining.seconds) if gateway.validity_period else "",
            esm_class=segment.esm_class,
            data_coding=segment.data_coding,
            short_message=segment.short_message,
            registered_delivery=FINAL_AND_FAILURE_RECEIPT
            if gateway.reports(submission.part, dispatch.segments)
            else NO_RECEIPT,
            tlvs={tlv.USER_MESSAGE_REFERENCE: submission.attempt_reference.to_bytes(2)}
            if gateway.user_message_reference
            else {},
        )

    def _on_answers(self, answers: list[Answer]) -> None:
        self._callbacks.on_results([self._result(answer) for answer in answers])

    def _result(self, answer: Answer) -> Result:
        token, command_status = answer.token, answer.command_status
        if command_status == 0:
            provider_id = normalise_id(answer.message_id, self._gateway.response_id_format)
            return Result(token, Verdict.ACCEPTED, provider_id if 0 < len(provider_id) <= LONGEST_PROVIDER_ID else None)
        if command_status is None:
            kind = answer.kind
            return Result(token, Verdict.NO_ANSWER, code=f"smpp.{kind.name.lower()}", words=kind.value)
        status = CommandStatus(command_status)
        return Result(
            token,
            VERDICTS[status.status_class],
            code=f"smpp.{status.name}",
            words=status.words,
        )

    async def _on_deliver(self, delivers: list[Deliver]) -> None:
        observed_at = datetime.now(UTC)
        await self._callbacks.on_reports([self._report(deliver, observed_at) for deliver in delivers])

    def _report(self, deliver: Deliver, observed_at: datetime) -> Report:
        receipt = read_receipt(deliver)
        if receipt is None:
            return SmsInbound(
                gateway=self._gateway.id,
                source=deliver.source_addr,
                destination=deliver.destination_addr,
                data_coding=deliver.data_coding or DEFAULT_CODINGS[self._gateway.default_alphabet],
                esm_class=deliver.esm_class,
                content_hex=deliver.content.hex(),
                observed_at=observed_at,
                sar_reference=_integer(deliver, tlv.SAR_MSG_REF_NUM, 2),
                sar_total=_integer(deliver, tlv.SAR_TOTAL_SEGMENTS, 1),
                sar_part=_integer(deliver, tlv.SAR_SEGMENT_SEQNUM, 1),
            )
        swapped = self._gateway.receipt_addresses_swapped
        return GatewayReceipt(
            gateway=self._gateway.id,
            provider_id=normalise_id(receipt.message_id, self._gateway.receipt_id_format),
            state=RECEIPT_STATES[receipt.state],
            destination=deliver.source_addr if swapped else deliver.destination_addr,
            observed_at=observed_at,
            error=receipt.error or None,
            carrier_time=receipt.done_date or None,
            reference=_integer(deliver, tlv.USER_MESSAGE_REFERENCE, 2),
            word=receipt.stat if receipt.state is None and _WORD.fullmatch(receipt.stat) else None,
        )

    def _make_link(self, bind_type: BindType) -> Link:
        gateway = self._gateway
        config = SessionConfig(
            host=gateway.host,
            port=gateway.port,
            system_id=gateway.system_id,
            password=gateway.password.get_secret_value(),
            system_type=gateway.system_type,
            addr_ton=gateway.address_ton,
            addr_npi=gateway.address_npi,
            address_range=gateway.address_range,
            bind_type=bind_type,
            window=gateway.window,
            response_timeout_seconds=gateway.response_timeout_seconds,
            enquire_link_seconds=gateway.enquire_link_seconds,
            tls=partial(tls_context, gateway.tls_ca_file) if gateway.tls else None,
        )
        return Link(config, self._on_answers, self._on_deliver, self._callbacks.on_change)

    def _links(self) -> list[Link]:
        return [self._link] if self._receiver is None else [self._link, self._receiver]
