"""One connection: SMPP 3.4 as the SMSC speaks it, from the first octet to the last.

A session works in batches: what one read brings is judged, recorded and answered together.
"""

from __future__ import annotations

import time
from typing import Final, Protocol

from libs.smpp import pdus, tlv
from libs.smpp.codec import Framer, decode
from libs.smpp.errors import PduError
from libs.smpp.pdus import HEADER, BindType, DeliverSmResp, GenericNack, Pdu, SubmitSm
from libs.smpp.status import CommandStatus
from services.simulated_carrier.clock import clock_us
from services.simulated_carrier.connection import Connection
from services.simulated_carrier.delivery import Delivery, frame_of

_BIND_RESP_TLVS: Final = {tlv.SC_INTERFACE_VERSION: b"\x34"}
_LAST_SEQUENCE: Final = 0x7FFF_FFFF
_ANSWERS: Final = frozenset({DeliverSmResp.command_id, GenericNack.command_id})


class SessionOwner(Protocol):
    """What a session asks of the carrier. Nothing here may block."""

    def bytes_per_second(self) -> int | None:
        """How fast a session reads; None: as it comes; 0: not at all."""
        ...

    def bind(self, session: Session, request: pdus.Bind) -> int:
        """Judges a bind: ESME_ROK, and the session belongs to the system_id until it has ended, or a refusal."""
        ...

    def take(self, session: Session, submits: list[tuple[int, SubmitSm]], received_at: int) -> None:
        """Judges, records and answers submits read together (sequence number and PDU) at that time (epoch µs)."""
        ...

    def delivered(self, session: Session, acknowledged: int, refused: list[Delivery]) -> None:
        """What one read answered to what the session delivered: there is room in its window again."""
        ...

    def writable(self, session: Session) -> None:
        """The peer, which had stopped, reads again."""
        ...

    def ended(self, session: Session, unanswered: list[Delivery]) -> None:
        """The session serves its system_id no more; what it delivered last was not answered."""
        ...


class Session(Connection):
    """`system_id`, `bind_type` and `bound_at` (epoch µs) say nothing before a bind was granted."""

    def __init__(self, owner: SessionOwner, number: int) -> None:
        super().__init__(owner.bytes_per_second)
        self.number = number
        self.system_id = ""
        self.bind_type: BindType | None = None
        self.bound_at = 0
        self.connected_at = self.last_heard = time.monotonic()
        self.enquired = False
        self._owner = owner
        self._framer = Framer()
        self._sequence = 0
        self._unanswered: dict[int, tuple[Delivery, float]] = {}
        self._submits: list[tuple[int, SubmitSm]] = []
        self._acknowledged = 0
        self._refused: list[Delivery] = []
        self._received_at = 0
        self._ended = False

    @property
    def receives(self) -> bool:
        return self.bind_type in (BindType.RECEIVER, BindType.TRANSCEIVER)

    @property
    def transmits(self) -> bool:
        return self.bind_type in (BindType.TRANSMITTER, BindType.TRANSCEIVER)

    @property
    def unanswered(self) -> int:
        """deliver_sm sent and not answered yet."""
        return len(self._unanswered)

    def room(self, window: int) -> int:
        """How many deliver_sm may be sent now."""
        if not self.writable or not self.receives:
            return 0
        return max(0, window - len(self._unanswered))

    def deliver(self, messages: list[Delivery]) -> None:
        """Sends deliver_sm, and writes whatever is queued."""
        now = time.monotonic()
        for message in messages:
            sequence = self._next_sequence()
            self._unanswered[sequence] = message, now
            self.send(frame_of(message, sequence))
        self.flush()

    def overdue(self, sent_before: float) -> list[Delivery]:
        """Takes out what was delivered before then (monotonic seconds) and is unanswered; a late answer is ignored."""
        sequences: list[int] = []
        for sequence, (_, sent_at) in self._unanswered.items():
            if sent_at >= sent_before:
                break
            sequences.append(sequence)
        return [self._unanswered.pop(sequence)[0] for sequence in sequences]

    def enquire(self) -> None:
        """Asks the peer whether it is there; whatever it says next is the answer."""
        self.enquired = True
        self.send(pdus.EnquireLink().encode(self._next_sequence()))
        self.flush()

    def unbind(self) -> None:
        """Says goodbye and closes."""
        if self.bind_type is not None:
            self.send(pdus.Unbind().encode(self._next_sequence()))
        self.close()

    def close(self, *, reset: bool = False) -> None:
        super().close(reset=reset)
        self._end()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._end()

    def resume_writing(self) -> None:
        super().resume_writing()
        self._owner.writable(self)

    def data_received(self, data: bytes) -> None:
        self._received_at = clock_us()
        self.last_heard = time.monotonic()
        self.enquired = False
        try:
            for frame in self._framer.feed(data):
                self._read(frame)
                if self.closing:
                    return
        except PduError as error:  # the stream can't be cut into PDUs any further
            self._settle()
            self._refuse(error)
            self.close()
            return
        self._settle()
        self.flush()
        self.slow_down(len(data))

    def _read(self, frame: bytes) -> None:
        _, command_id, command_status, sequence = HEADER.unpack_from(frame)
        if command_id in _ANSWERS:  # the header says it all, and they are half of what comes
            self._answered(sequence, command_status)
            return
        try:
            sequence, pdu = decode(frame)
        except PduError as error:
            self._refuse(error)
            return
        if isinstance(pdu, SubmitSm):
            if self.transmits:
                self._submits.append((sequence, pdu))
            else:
                self.send(pdus.SubmitSmResp(CommandStatus.ESME_RINVBNDSTS).encode(sequence))
        else:
            self._settle()
            if not self.closing:
                self._handle(sequence, pdu)

    def _answered(self, sequence: int, command_status: int) -> None:
        answered = self._unanswered.pop(sequence, None)
        if answered is None:
            return  # late, or to nothing of ours
        if command_status:
            self._refused.append(answered[0])
        else:
            self._acknowledged += 1

    def _settle(self) -> None:
        """Has the carrier deal with what was collected so far."""
        if self._acknowledged or self._refused:
            acknowledged, refused = self._acknowledged, self._refused
            self._acknowledged, self._refused = 0, []
            self._owner.delivered(self, acknowledged, refused)
        if self._submits:
            submits, self._submits = self._submits, []
            self._owner.take(self, submits, self._received_at)

    def _handle(self, sequence: int, pdu: Pdu) -> None:
        match pdu:
            case pdus.EnquireLink():
                self.send(pdus.EnquireLinkResp().encode(sequence))
            case pdus.Bind():
                self._bind(sequence, pdu)
            case pdus.Unbind():
                self.send(pdus.UnbindResp().encode(sequence))
                self.close()
            case pdus.EnquireLinkResp() | pdus.UnbindResp():
                pass  # that something was heard is all it says
            case _:
                self.send(GenericNack(CommandStatus.ESME_RINVCMDID).encode(sequence))

    def _bind(self, sequence: int, request: pdus.Bind) -> None:
        if self.bind_type is not None:
            status = int(CommandStatus.ESME_RALYBND)
        else:
            status = self._owner.bind(self, request)
            if not status:
                self.system_id, self.bind_type, self.bound_at = request.system_id, request.bind_type, self._received_at
        self.send(pdus.BindResp(request.bind_type, status, request.system_id, _BIND_RESP_TLVS).encode(sequence))
        self.flush()
        if not status:
            self._owner.writable(self)

    def _refuse(self, error: PduError) -> None:
        """A submit that can't be read is refused as one, anything else by generic_nack; a response by neither."""
        if error.command_id == SubmitSm.command_id:
            self.send(pdus.SubmitSmResp(error.command_status).encode(error.sequence))
        elif not error.command_id & pdus.RESPONSE_BIT:
            self.send(GenericNack(error.command_status).encode(error.sequence))

    def _next_sequence(self) -> int:
        self._sequence = self._sequence % _LAST_SEQUENCE + 1
        return self._sequence

    def _end(self) -> None:
        if self._ended:
            return
        self._ended = True
        unanswered = [message for message, _ in self._unanswered.values()]
        self._unanswered.clear()
        self._owner.ended(self, unanswered)
