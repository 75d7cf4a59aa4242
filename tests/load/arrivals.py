"""What the carrier's ledger says of a load."""

from __future__ import annotations

from collections.abc import Set
from pathlib import Path

from services.simulated_carrier.ledger import read_ledger
from tests.load.workload import number_in


def last_entry(ledger: Path) -> int:
    """The sequence of the newest; 0 when there is none."""
    return max((entry.sequence for entry in read_ledger(ledger)), default=0)


def arrivals(ledger: Path, after: int, sent: Set[int], system_id: str) -> dict[int, float]:
    """When the carrier read each message from this account, after that entry. It accepted each exactly once, or this fails."""
    entries = [entry for entry in read_ledger(ledger, after) if entry.accepted and entry.system_id == system_id]
    arrived = {number_in(bytes.fromhex(entry.short_message)): entry.received_at / 1e6 for entry in entries}
    assert arrived.keys() == sent, (
        f"{len(sent - arrived.keys())} messages never reached the carrier, {len(arrived.keys() - sent)} others did"
    )
    assert len(entries) == len(sent), f"the carrier accepted {len(entries)} instead of {len(sent)} messages"
    return arrived
