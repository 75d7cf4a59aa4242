"""The commands about a message, as its fold keeps them: of each kind and cycle, the first time that it was asked for."""

from __future__ import annotations

from datetime import datetime
from typing import NamedTuple

from libs.contracts.events import CommandKind, Reason, SmsCommand

CANCEL_TOO_LATE = Reason(
    "cancel-too-late", "its cancellation was asked for when the carrier had it, or may have had it"
)


class FoldedCommand(NamedTuple):
    cycle: int
    kind: CommandKind
    asked_at: datetime


def fold_command(known: list[FoldedCommand], command: SmsCommand) -> None:
    """Add a command. In whatever order and however often commands come, the list ends up the same."""
    new = FoldedCommand(command.cycle, command.kind, command.asked_at)
    for place, other in enumerate(known):
        if other[:2] == new[:2]:
            known[place] = min(other, new)
            return
    known.append(new)
    known.sort()


def cancel_asked_at(known: list[FoldedCommand], cycle: int) -> datetime | None:
    """When the cancellation of this cycle was first asked for."""
    return next((x.asked_at for x in known if x.kind is CommandKind.CANCEL and x.cycle == cycle), None)
