"""Every command_status of SMPP 3.4 (§5.1.3): its name, words for an operator, and what it proves about the message.

The rule behind the classes: any answer other than ESME_ROK says that the message was *not* accepted (§4.4.2), so a new
attempt can't double it. What differs is what a new attempt is good for, and whose condition it is.
"""

from __future__ import annotations

import enum
from typing import Self


class StatusClass(enum.Enum):
    """What the sender of a request concludes from the command_status of its response."""

    ACCEPTED = "accepted"
    THROTTLED = "throttled"  # a condition of the gateway: pause, keep the message, send it again in place
    TEMPORARY = "temporary"  # of the message: not accepted now, a later attempt may succeed
    PERMANENT = "permanent"  # of the message: not accepted, and the same request would be refused again
    SESSION = "session"  # of the bind: not accepted, and nothing will be until the session is bound anew


_ACCEPTED, _THROTTLED, _TEMPORARY = StatusClass.ACCEPTED, StatusClass.THROTTLED, StatusClass.TEMPORARY
_PERMANENT, _SESSION = StatusClass.PERMANENT, StatusClass.SESSION

_VENDOR_RANGE = range(0x400, 0x500)


class CommandStatus(enum.IntEnum):
    """A command_status. `CommandStatus(code)` works for any 32-bit code: one that SMPP 3.4 doesn't define gets a name
    made of its digits and the class TEMPORARY. (It proves a refusal, but not that a later attempt is useless, and the
    message's validity bounds the attempts.)
    """

    words: str
    status_class: StatusClass

    def __new__(cls, code: int, words: str, status_class: StatusClass) -> Self:
        member = int.__new__(cls, code)
        member._value_ = code
        member.words = words
        member.status_class = status_class
        return member

    @classmethod
    def _missing_(cls, value: object) -> Self | None:
        if not isinstance(value, int) or not 0 <= value <= 0xFFFFFFFF:
            return None
        vendor = value in _VENDOR_RANGE
        member = int.__new__(cls, value)
        member._name_ = f"VENDOR_0x{value:03X}" if vendor else f"RESERVED_0x{value:08X}"
        member._value_ = value
        member.words = f"refused with the {'provider’s own' if vendor else 'undefined'} code 0x{value:X}"
        member.status_class = _TEMPORARY
        return member

    ESME_ROK = 0x00, "accepted", _ACCEPTED
    ESME_RINVMSGLEN = 0x01, "the message length is invalid", _PERMANENT
    # The peer could not read our request: it would not read it any better a second time.
    ESME_RINVCMDLEN = 0x02, "the command length is invalid", _PERMANENT
    ESME_RINVCMDID = 0x03, "the command is unknown to the provider", _PERMANENT
    ESME_RINVBNDSTS = 0x04, "the command does not fit the state of the bind", _SESSION
    ESME_RALYBND = 0x05, "this system id is already bound", _SESSION
    ESME_RINVPRTFLG = 0x06, "the priority is invalid", _PERMANENT
    ESME_RINVREGDLVFLG = 0x07, "the registered-delivery flag is invalid", _PERMANENT
    # "System error" may be the whole SMSC or this one message: taken as the message's, since a gateway that is down
    # shows itself by a run of these, which the dispatcher's breaker counts.
    ESME_RSYSERR = 0x08, "the provider reports a system error", _TEMPORARY
    ESME_RINVSRCADR = 0x0A, "the sender address is invalid", _PERMANENT
    ESME_RINVDSTADR = 0x0B, "the destination number is invalid", _PERMANENT
    ESME_RINVMSGID = 0x0C, "the message id is invalid", _PERMANENT
    ESME_RBINDFAIL = 0x0D, "the bind failed", _SESSION
    ESME_RINVPASWD = 0x0E, "the password is wrong", _SESSION
    ESME_RINVSYSID = 0x0F, "the system id is unknown", _SESSION
    ESME_RCANCELFAIL = 0x11, "the cancel request failed", _PERMANENT
    ESME_RREPLACEFAIL = 0x13, "the replace request failed", _PERMANENT
    # The SMSC's queue, or its queue for this one number: taken as the message's, like a system error.
    ESME_RMSGQFUL = 0x14, "the provider's message queue is full", _TEMPORARY
    ESME_RINVSERTYP = 0x15, "the service type is invalid", _PERMANENT
    ESME_RINVNUMDESTS = 0x33, "the number of destinations is invalid", _PERMANENT
    ESME_RINVDLNAME = 0x34, "the distribution list is unknown", _PERMANENT
    ESME_RINVDESTFLAG = 0x40, "the destination flag is invalid", _PERMANENT
    ESME_RINVSUBREP = 0x42, "submitting with replacement is not supported", _PERMANENT
    ESME_RINVESMCLASS = 0x43, "the esm_class is invalid", _PERMANENT
    ESME_RCNTSUBDL = 0x44, "the distribution list can't be submitted to", _PERMANENT
    # The catch-all of many SMSCs ("could not be stored", a passing routing fault): the words promise no permanence.
    ESME_RSUBMITFAIL = 0x45, "the provider could not take the message", _TEMPORARY
    ESME_RINVSRCTON = 0x48, "the sender's type of number is invalid", _PERMANENT
    ESME_RINVSRCNPI = 0x49, "the sender's numbering plan is invalid", _PERMANENT
    ESME_RINVDSTTON = 0x50, "the destination's type of number is invalid", _PERMANENT
    ESME_RINVDSTNPI = 0x51, "the destination's numbering plan is invalid", _PERMANENT
    ESME_RINVSYSTYP = 0x53, "the system type is invalid", _SESSION  # a field of the bind alone
    ESME_RINVREPFLAG = 0x54, "the replace-if-present flag is invalid", _PERMANENT
    ESME_RINVNUMMSGS = 0x55, "the number of messages is invalid", _PERMANENT
    ESME_RTHROTTLED = 0x58, "the provider's rate limit is exceeded", _THROTTLED
    ESME_RINVSCHED = 0x61, "the scheduled delivery time is invalid", _PERMANENT
    ESME_RINVEXPIRY = 0x62, "the validity period is invalid", _PERMANENT
    ESME_RINVDFTMSGID = 0x63, "the predefined message is unknown", _PERMANENT
    # The three "receiver application" errors are meant for deliver_sm_resp; SMSCs also pass on what a next hop said.
    ESME_RX_T_APPN = 0x64, "the receiving application has a temporary error", _TEMPORARY
    ESME_RX_P_APPN = 0x65, "the receiving application has a permanent error", _PERMANENT
    ESME_RX_R_APPN = 0x66, "the receiving application rejected the message", _PERMANENT
    ESME_RQUERYFAIL = 0x67, "the query request failed", _PERMANENT
    ESME_RINVOPTPARSTREAM = 0xC0, "the optional parameters can't be read", _PERMANENT
    ESME_ROPTPARNOTALLWD = 0xC1, "an optional parameter is not allowed", _PERMANENT
    ESME_RINVPARLEN = 0xC2, "the length of a parameter is invalid", _PERMANENT
    ESME_RMISSINGOPTPARAM = 0xC3, "an expected optional parameter is missing", _PERMANENT
    ESME_RINVOPTPARAMVAL = 0xC4, "the value of an optional parameter is invalid", _PERMANENT
    # Transaction mode: delivery was tried and failed. Proven undelivered, and most often the handset was off.
    ESME_RDELIVERYFAILURE = 0xFE, "the delivery failed", _TEMPORARY
    # "Unknown error" is still an answer other than ESME_ROK, hence no acceptance.
    ESME_RUNKNOWNERR = 0xFF, "the provider reports an unknown error", _TEMPORARY
