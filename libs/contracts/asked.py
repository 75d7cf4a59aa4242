"""What was asked about a message, as its fold keeps it: of each kind and cycle, the first time that it was."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from libs.contracts.events import CommandKind, Reason, SmsCommand

CANCEL_TOO_LATE = Reason(
    "cancel-too-late", "its cancellation was asked for when the carrier had it, or may have had it"
)


@dataclass(slots=True)
class Asked:
    cycle: int
    kind: CommandKind
    asked_at: datetime


def take_command(asked: list[Asked], command: SmsCommand) -> None:
    """Add a command. The list stays the same whatever the order and number of commands."""
    for known in asked:
        if (known.cycle, known.kind) == (command.cycle, command.kind):
            known.asked_at = min(known.asked_at, command.asked_at)
            return
    asked.append(Asked(command.cycle, command.kind, command.asked_at))
    asked.sort(key=lambda x: (x.cycle, x.kind))


def cancel_asked_at(asked: list[Asked], cycle: int) -> datetime | None:
    """When the cancellation of this cycle was first asked for."""
    return next((x.asked_at for x in asked if x.kind is CommandKind.CANCEL and x.cycle == cycle), None)
