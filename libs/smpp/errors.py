"""The one error that undecodable bytes cause."""

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
