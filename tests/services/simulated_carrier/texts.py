"""The texts that the ledger holds: parts joined and decoded, as a handset would show them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field

from libs.smpp.pdus import ESM_CLASS_UDHI
from libs.sms_text.parts import decode_text, read_part
from services.simulated_carrier.ledger import LedgerEntry


@dataclass(slots=True)
class JoinedText:
    of: int
    """parts that the message is made of"""
    parts: dict[int, LedgerEntry] = field(default_factory=dict[int, LedgerEntry])
    """those that came, by number"""

    @property
    def complete(self) -> bool:
        return len(self.parts) == self.of

    @property
    def first(self) -> LedgerEntry:
        """The part with the lowest number: who sent to whom is the same for all."""
        return self.parts[min(self.parts)]

    @property
    def provider_ids(self) -> list[str]:
        return [entry.provider_id for _, entry in sorted(self.parts.items()) if entry.provider_id is not None]

    @property
    def text(self) -> str:
        """What came of it, in the order of the parts."""
        octets = b"".join(_octets(entry) for _, entry in sorted(self.parts.items()))
        return decode_text(octets, self.first.data_coding)


def join_texts(entries: Iterable[LedgerEntry]) -> list[JoinedText]:
    """The texts that were accepted, in the order in which each began. What was refused is left out.

    Parts belong together by system_id, source, destination and reference. A part that comes twice begins a text of its
    own, mostly an incomplete one: so a double shows, also a double of one part, and a reference may be used again.
    """
    texts: list[JoinedText] = []
    incomplete: defaultdict[tuple[str, str, str, int, int], list[JoinedText]] = defaultdict(list)
    for entry in entries:
        if not entry.accepted:
            continue
        concatenation = entry.concatenation
        if concatenation is None:
            texts.append(JoinedText(1, {1: entry}))
            continue
        key = entry.system_id, entry.source, entry.destination, concatenation.reference, concatenation.of
        candidates = incomplete[key]
        joined = next((text for text in candidates if concatenation.part not in text.parts), None)
        if joined is None:
            joined = JoinedText(concatenation.of)
            texts.append(joined)
            candidates.append(joined)
        joined.parts[concatenation.part] = entry
        if joined.complete:
            candidates.remove(joined)
    return texts


def _octets(entry: LedgerEntry) -> bytes:
    octets = bytes.fromhex(entry.short_message)
    if not entry.esm_class & ESM_CLASS_UDHI:
        return octets
    try:
        return read_part(octets, entry.esm_class).octets
    except ValueError:
        return octets
