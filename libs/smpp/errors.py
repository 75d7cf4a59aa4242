"""The two errors of SMPP: bytes that are no PDU, and a bind that did not come about."""

from __future__ import annotations

from libs.smpp.status import CommandStatus


class PduError(ValueError):
    """Bytes that are no valid PDU.

    `command_status` is what to answer with; `command_id` and `sequence` name the PDU that it answers, both 0 when not
    even the header could be read.
    """

    def __init__(self, command_status: CommandStatus, reason: str, command_id: int = 0, sequence: int = 0) -> None:
        super().__init__(reason)
        self.command_status = command_status
        self.reason = reason
        self.command_id = command_id
        self.sequence = sequence


class BindError(Exception):
    """No session came about. `words` say why; `command_status` is the SMSC's refusal, None when it gave no answer."""

    def __init__(self, words: str, command_status: CommandStatus | None = None) -> None:
        super().__init__(words)
        self.words = words
        self.command_status = command_status
