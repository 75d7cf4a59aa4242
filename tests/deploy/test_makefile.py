"""`make` alone changes nothing: it says what there is."""

import re
import subprocess

from deploy import REPOSITORY


def test_make_alone_lists_every_target() -> None:
    made = subprocess.run(
        ("make", "--no-print-directory"), cwd=REPOSITORY, capture_output=True, text=True, check=True, timeout=30
    )
    targets = re.findall(r"^([a-z-]+):", (REPOSITORY / "Makefile").read_text(), flags=re.MULTILINE)
    assert [line.split()[0] for line in made.stdout.splitlines()] == targets
