"""What was asked about a message, as its fold keeps it: of each kind and cycle, the first time that it was."""

from __future__ import annotations

from datetime import datetime
from typing import NamedTuple

from libs.contracts.events import CommandKind, Reason, SmsCommand

CANCEL_TOO_LATE = Reason(
    "cancel-too-late", "its cancellation was asked for when the carrier had it, or may have had it"
)


class Asked(NamedTuple):
    cycle: int
    kind: CommandKind
    asked_at: datetime


def take_command(asked: list[Asked], command: SmsCommand) -> None:
    """Add a command. The list stays the same whatever the order and number of commands."""
    new = Asked(command.cycle, command.kind, command.asked_at)
    for place, known in enumerate(asked):
        if known[:2] == new[:2]:
            asked[place] = min(known, new)
            return
    asked.append(new)
    asked.sort()


def cancel_asked_at(asked: list[Asked], cycle: int) -> datetime | None:
    """When the cancellation of this cycle was first asked for."""
    return next((x.asked_at for x in asked if x.kind is CommandKind.CANCEL and x.cycle == cycle), None)
