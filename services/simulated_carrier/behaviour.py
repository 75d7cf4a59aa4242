"""What the carrier does with what it is sent: one object, shown and set over HTTP, in which every field has its unit.

Fields that count ("the next N") count down in place, so what is shown is what is left.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

IdFormat = Literal["decimal", "hex", "hex_padded_upper", "uuid"]
ReceiptState = Literal["ENROUTE", "DELIVRD", "EXPIRED", "DELETED", "UNDELIV", "ACCEPTD", "UNKNOWN", "REJECTD"]

Milliseconds = Annotated[int, Field(ge=0, le=7 * 24 * 3600 * 1000)]
Count = Annotated[int, Field(ge=0)]
Probability = Annotated[float, Field(ge=0, le=1)]
CommandStatus = Annotated[int, Field(ge=1, le=0xFFFF_FFFF)]
Suffix = Annotated[str, Field(min_length=1, pattern=r"^[0-9A-Za-z]+$")]
Weight = Annotated[float, Field(gt=0, le=1e9)]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class Responses(_Section):
    delay_ms: Milliseconds = 0
    """milliseconds between reading a submit_sm and answering it"""
    id_format: IdFormat = "decimal"
    """how submit_sm_resp writes the provider id"""


class Receipts(_Section):
    """Receipts are sent to whoever asked for one with registered_delivery (SMPP 3.4 §5.2.17)."""

    enabled: bool = True
    delay_ms: Milliseconds = 0
    """milliseconds between accepting a submit and its final receipt; 0: right behind the response"""
    jitter_ms: Milliseconds = 0
    """up to so many milliseconds more, drawn evenly for each message: receipts leave out of order"""
    before_response: bool = False
    """every receipt leaves at once, and before the response does"""
    outcomes: dict[ReceiptState, Weight] = Field(default={"DELIVRD": 1.0}, min_length=1)
    """final states by weight"""
    outcome_by_suffix: dict[Suffix, ReceiptState] = {}
    """the final state of destinations that end so; the longest suffix wins, and wins over `outcomes`"""
    intermediate: list[Literal["ENROUTE", "ACCEPTD"]] = Field(default=[], max_length=10)
    """states reported at once, in this order, ahead of the final one"""
    copies: Annotated[int, Field(ge=1, le=10)] = 1
    """how often each final receipt is sent"""
    content: Literal["text", "tlv", "both"] = "both"
    """`text`: the short message of SMPP 3.4 appendix B; `tlv`: receipted_message_id and message_state; or both"""
    id_format: IdFormat = "decimal"
    """how receipts write the provider id"""
    omit_id: bool = False
    """the text lacks its `id:` field and the TLV receipted_message_id is left out"""
    hex_error: bool = False
    """`err:` of a failure is written like 0A1 instead of as three decimal digits"""
    dates_with_seconds: bool = False
    """YYMMDDhhmmss instead of YYMMDDhhmm"""
    mark_esm_class: bool = True
    """esm_class says that this is a receipt (SMPP 3.4 §5.2.12); some carriers forget"""
    echo_user_message_reference: bool = True
    """a receipt repeats the TLV user_message_reference of its submit"""


class Deliveries(_Section):
    """deliver_sm of every kind: receipts and mobile-originated messages."""

    window: Annotated[int, Field(ge=1, le=100_000)] = 500
    """deliver_sm that a session may have unanswered; the rest wait"""
    response_timeout_ms: Annotated[int, Field(ge=10, le=3_600_000)] = 10_000
    """milliseconds after which an unanswered deliver_sm is sent again"""
    retry_ms: Milliseconds = 1_000
    """milliseconds until a refused deliver_sm is sent again"""


class Throttle(_Section):
    segments_per_second: Count = 0
    """per system_id, in any one second; what is above gets ESME_RTHROTTLED; 0: no limit"""


class Refusals(_Section):
    next: Count = 0
    """so many of the next submits are refused"""
    probability: Probability = 0.0
    """share of submits refused"""
    command_status: CommandStatus = 0x08
    """the answer to those two (0x08: ESME_RSYSERR)"""
    by_suffix: dict[Suffix, CommandStatus] = {}
    """command_status for destinations that end so; the longest suffix wins"""


class Silence(_Section):
    next: Count = 0
    """so many of the next submits are never answered"""
    probability: Probability = 0.0
    """share of submits never answered"""
    accept: bool = True
    """the unanswered submits are accepted (and reported on) all the same"""


class Drop(_Section):
    after: Annotated[int, Field(ge=1)] | None = None
    """the connection drops at the so-many-th submit from now, once; null: not at all"""
    point: Literal["before_accept", "after_accept", "after_response"] = "after_accept"
    """what has happened to that submit by then; `after_accept`: accepted, in the ledger, not answered"""
    reset: bool = False
    """by TCP reset instead of an orderly end"""


class Binds(_Section):
    max_per_system_id: Count = 0
    """simultaneous binds of one system_id; a further one is refused with ESME_RALYBND; 0: no limit"""
    refuse_next: Count = 0
    """so many of the next binds are refused"""
    refuse_for_ms: Milliseconds = 0
    """binds are refused for so many milliseconds from now; shown: what is left"""
    command_status: CommandStatus = 0x0D
    """the answer to those two (0x0D: ESME_RBINDFAIL)"""


class Reading(_Section):
    bytes_per_second: Count | None = None
    """how fast each connection is read; 0: not at all, like a peer that vanished; null: as fast as it comes"""


class Behaviour(_Section):
    responses: Responses = Responses()
    receipts: Receipts = Receipts()
    deliveries: Deliveries = Deliveries()
    throttle: Throttle = Throttle()
    refusals: Refusals = Refusals()
    silence: Silence = Silence()
    drop: Drop = Drop()
    binds: Binds = Binds()
    reading: Reading = Reading()

    def with_fields(self, changes: Mapping[str, object]) -> Behaviour:
        """A copy in which the named fields of the named sections are replaced, each as a whole.

        Raises `pydantic.ValidationError` when there is no such section or field, or a value doesn't fit.
        """
        whole: dict[str, object] = {**self.model_dump()}
        for name, fields in changes.items():
            section = getattr(self, name, None)
            if isinstance(section, _Section) and isinstance(fields, Mapping):
                whole[name] = {**section.model_dump(), **fields}
            else:
                whole[name] = fields
        return Behaviour.model_validate(whole)
