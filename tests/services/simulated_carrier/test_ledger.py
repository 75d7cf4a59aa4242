from __future__ import annotations

import errno
import os
import threading
from pathlib import Path

import msgspec
import pytest

from services.simulated_carrier.ledger import Ledger, LedgerEntry, current_file, read_ledger, read_lines


def entry(sequence: int, **fields: object) -> LedgerEntry:
    values: dict[str, object] = {
        "sequence": sequence,
        "received_at": 1_700_000_000_000_000 + sequence,
        "accepted": True,
        "command_status": 0,
        "provider_id": str(sequence),
        "session": 1,
        "system_id": "demo",
        "source": "bank",
        "destination": "4917012345678",
        "esm_class": 0,
        "data_coding": 0,
        "registered_delivery": 1,
        "short_message": "68" * (sequence % 40),
        "concatenation": None,
        "user_message_reference": None,
    }
    return LedgerEntry(**{**values, **fields})


def test_what_was_appended_is_read_back_before_the_ledger_is_closed(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    entries = [
        entry(1),
        entry(2, command_status="silent"),
        entry(3, accepted=False, command_status=88, provider_id=None),
    ]
    ledger.append(entries[:2])
    ledger.append(entries[2:])
    assert list(read_ledger(tmp_path)) == entries
    ledger.close()


def test_nobody_else_on_the_machine_can_read_it(tmp_path: Path) -> None:
    directory = tmp_path / "ledger"
    ledger = Ledger(directory)
    assert directory.stat().st_mode & 0o777 == 0o700
    assert ledger.path.stat().st_mode & 0o777 == 0o600
    ledger.append([entry(1)])
    ledger.start_new()
    assert ledger.path.stat().st_mode & 0o777 == 0o600
    ledger.path.chmod(0o644)  # as an older release left it
    ledger.close()
    ledger = Ledger(directory)
    assert ledger.path.stat().st_mode & 0o777 == 0o600
    ledger.close()


def test_a_directory_without_a_ledger_has_no_entries(tmp_path: Path) -> None:
    assert list(read_ledger(tmp_path)) == []


@pytest.mark.parametrize("count", [0, 1, 2, 3, 57])
def test_reading_after_a_sequence_gives_what_is_above_it(tmp_path: Path, count: int) -> None:
    ledger = Ledger(tmp_path)
    ledger.append([entry(sequence) for sequence in range(1, count + 1)])
    for after in range(count + 2):
        assert [e.sequence for e in read_ledger(tmp_path, after)] == list(range(after + 1, count + 1))
    ledger.close()


def test_a_restart_goes_on_with_the_same_ledger(tmp_path: Path) -> None:
    for sequence in (1, 2):
        ledger = Ledger(tmp_path)
        assert ledger.next_sequence == sequence
        ledger.append([entry(sequence)])
        ledger.close()
    assert [e.sequence for e in read_ledger(tmp_path)] == [1, 2]


def test_a_line_that_a_kill_cut_off_is_neither_read_nor_kept(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    ledger.append([entry(1), entry(2)])
    ledger.close()
    with ledger.path.open("r+b") as file:
        file.truncate(ledger.path.stat().st_size - 5)
    assert [e.sequence for e in read_ledger(tmp_path)] == [1]
    ledger = Ledger(tmp_path)
    assert ledger.next_sequence == 2
    assert ledger.path.read_bytes().endswith(b"}\n")
    ledger.append([entry(2)])
    assert [e.sequence for e in read_ledger(tmp_path)] == [1, 2]
    ledger.close()


def test_reading_beside_the_writer_gives_whole_lines(tmp_path: Path) -> None:
    lines = msgspec.json.Encoder().encode_lines([entry(sequence) for sequence in range(1, 2_001)])

    def write_in_pieces() -> None:
        with (tmp_path / "ledger-000000000000001.jsonl").open("ab", buffering=0) as file:
            for start in range(0, len(lines), 50):
                file.write(lines[start : start + 50])

    writer = threading.Thread(target=write_in_pieces)
    writer.start()
    found: list[int] = []
    while len(found) < 2_000:
        alive = writer.is_alive()
        found += [e.sequence for e in read_ledger(tmp_path, after=len(found))]
        assert found == list(range(1, len(found) + 1))
        assert alive or len(found) == 2_000
    writer.join()


def test_a_new_ledger_is_empty_and_its_sequences_go_on_also_over_a_restart(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    ledger.append([entry(1), entry(2)])
    ledger.start_new()
    assert list(read_ledger(tmp_path)) == []
    ledger.close()
    ledger = Ledger(tmp_path)
    assert ledger.next_sequence == 3
    ledger.start_new()  # of an empty one: nothing changes
    ledger.append([entry(3)])
    assert [e.sequence for e in read_ledger(tmp_path)] == [3]
    assert len(list(tmp_path.iterdir())) == 1
    ledger.close()


def test_a_write_that_fails_halfway_leaves_nothing_of_the_batch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger = Ledger(tmp_path)
    ledger.append([entry(1)])
    real_pwrite = os.pwrite
    writes: list[int] = []

    def full_disk(descriptor: int, data: bytes, offset: int) -> int:
        if writes:
            raise OSError(errno.ENOSPC, "no space")
        writes.append(real_pwrite(descriptor, data[:300], offset))
        return writes[0]

    monkeypatch.setattr(os, "pwrite", full_disk)
    with pytest.raises(OSError, match="no space"):
        ledger.append([entry(2), entry(3)])
    monkeypatch.setattr(os, "pwrite", real_pwrite)
    ledger.append([entry(2)])
    assert [e.sequence for e in read_ledger(tmp_path)] == [1, 2]
    ledger.close()


def test_many_entries_are_read_as_lines_without_being_held(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    for start in range(1, 50_001, 1_000):
        ledger.append([entry(sequence) for sequence in range(start, start + 1_000)])
    path = current_file(tmp_path)
    assert path is not None
    assert sum(1 for _ in read_lines(path, after=49_000)) == 1_000
    assert sum(1 for _ in read_lines(path)) == 50_000
    ledger.close()
