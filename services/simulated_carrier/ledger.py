"""The record on disk of every submit the carrier saw: JSON lines, appended before the response leaves.

So whatever is killed, the carrier or its peer, the ledger holds all that was ever answered. It is handed to the
operating system, not to the disk: it outlives a process, not the machine.

One file at a time, named by the first sequence in it, so that sequences (and the provider ids made of them) go on
where they were after a restart, and after a new ledger was started.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO, Final, Literal

import msgspec

_TAIL_BYTES: Final = 1 << 20  # longer than any line: a message is at most 64 KiB


class Concatenation(msgspec.Struct, frozen=True, gc=False):
    """Where a part belongs, as its user data header or its SAR parameters say."""

    reference: int
    part: int
    of: int


class LedgerEntry(msgspec.Struct, frozen=True, gc=False):
    sequence: int
    """1 and up without gaps, refused submits included; goes on over restarts and new ledgers"""
    received_at: int
    """µs since the epoch, taken when the octets were read"""
    accepted: bool
    """False: the carrier did not take this message; the next field says what it answered"""
    command_status: int | Literal["silent"]
    """what the submit is answered with; "silent": nothing"""
    provider_id: str | None
    """as in the response; None when it was not accepted"""
    session: int
    """number of the connection since the carrier's start"""
    system_id: str
    source: str
    destination: str
    esm_class: int
    data_coding: int
    registered_delivery: int
    short_message: str
    """hex of the octets, user data header included; of message_payload when that was used"""
    concatenation: Concatenation | None
    user_message_reference: int | None


class Ledger:
    """The writer. One process at a time; not thread-safe."""

    def __init__(self, directory: Path) -> None:
        """Goes on with what is in `directory`; a line that a kill cut off is removed, since it was never answered."""
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._directory = directory
        self._encoder = msgspec.json.Encoder()
        path = current_file(directory)
        self.path = path or _file(directory, 1)
        self._descriptor = _open(self.path)
        self._size, self.next_sequence = _continue_at(self.path)
        os.ftruncate(self._descriptor, self._size)

    def append(self, entries: Sequence[LedgerEntry]) -> None:
        """Writes the entries, whose sequences must go on from `next_sequence`. When this returns, they outlive a kill
        of this process. OSError (a full disk, say): none of them was written.
        """
        lines = self._encoder.encode_lines(entries)
        written = 0
        try:
            while written < len(lines):
                written += os.pwrite(self._descriptor, lines[written:] if written else lines, self._size + written)
        except OSError:
            os.ftruncate(self._descriptor, self._size)
            raise
        self._size += written
        self.next_sequence += len(entries)

    def start_new(self) -> None:
        """Begins an empty ledger and removes the old one; the sequence goes on."""
        fresh = _file(self._directory, self.next_sequence)
        if fresh == self.path:
            return
        old_path, old_descriptor = self.path, self._descriptor
        self._descriptor = _open(fresh, os.O_EXCL)
        self.path, self._size = fresh, 0
        os.close(old_descriptor)
        old_path.unlink()

    def close(self) -> None:
        os.close(self._descriptor)


def current_file(directory: Path) -> Path | None:
    """The ledger's file in `directory`, also while a carrier writes to it; None when there is none."""
    return max(directory.glob("ledger-*.jsonl"), default=None)


def read_ledger(directory: Path, after: int = 0) -> Iterator[LedgerEntry]:
    """The entries with a sequence above `after`, up to what is written now; none when there is no ledger."""
    path = current_file(directory)
    if path is None:
        return
    decode = msgspec.json.Decoder(LedgerEntry).decode
    for line in read_lines(path, after):
        yield decode(line)


def read_lines(path: Path, after: int = 0) -> Iterator[bytes]:
    """The lines with a sequence above `after`; a last line without its end is still being written and left out."""
    with path.open("rb") as file:
        file.seek(_offset_after(file, after))
        for line in file:
            if not line.endswith(b"\n"):
                return  # and not on with its rest, should that be there by now
            yield line


class _Position(msgspec.Struct):
    sequence: int


def _offset_after(file: BinaryIO, after: int) -> int:
    """Where the first line with a sequence above `after` begins, by bisection: sequences rise with the offset."""
    low, high = 0, os.fstat(file.fileno()).st_size
    while low < high:  # what begins before `low`, itself the start of a line, is `after` or less; from `high` on, more
        middle = (low + high) // 2
        file.seek(middle - 1 if middle else 0)
        # the rest of the line before the first that begins at `middle` or later
        skipped = file.readline() if middle else b"\n"
        start = file.tell()
        line = file.readline() if skipped.endswith(b"\n") else b""
        if line.endswith(b"\n") and msgspec.json.decode(line, type=_Position).sequence <= after:
            low = start + len(line)
        else:
            high = middle
    return low


def _file(directory: Path, first_sequence: int) -> Path:
    return directory / f"ledger-{first_sequence:015d}.jsonl"


def _open(path: Path, flags: int = 0) -> int:
    """To write to; readable by its owner alone, since it has numbers and texts."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | flags, 0o600)
    os.fchmod(descriptor, 0o600)  # one that was there already may have been readable by all
    return descriptor


def _continue_at(path: Path) -> tuple[int, int]:
    """The size of the file up to its last whole line, and the sequence that comes next."""
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        start = max(0, size - _TAIL_BYTES)
        file.seek(start)
        tail = file.read()
    whole = tail[: tail.rfind(b"\n") + 1]
    if not whole:
        return 0, int(path.stem.removeprefix("ledger-"))
    last_line = whole[whole.rfind(b"\n", 0, -1) + 1 :]
    return start + len(whole), msgspec.json.decode(last_line, type=_Position).sequence + 1
