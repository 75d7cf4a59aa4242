"""`make` alone changes nothing: it says what there is; and what there is can be run."""

import re
import subprocess
from importlib.util import find_spec

from deploy import REPOSITORY

MAKEFILE = (REPOSITORY / "Makefile").read_text()


def made(*words: str) -> str:
    command = ("make", "--no-print-directory", *words)
    return subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=True, timeout=30).stdout


def test_make_alone_lists_every_target() -> None:
    targets = re.findall(r"^([a-z-]+):", MAKEFILE, flags=re.MULTILINE)
    assert [line.split()[0] for line in made().splitlines()] == targets


def test_every_program_that_a_target_runs_is_there() -> None:
    programs = re.findall(r"^\t@\$\(PYTHON\) -m (\S+)", MAKEFILE, flags=re.MULTILINE)
    assert programs and all(find_spec(program) for program in programs)


def test_a_gateway_is_scaled_by_its_name_and_the_number() -> None:
    said = made("--just-print", "scale", "GATEWAY=demo", "REPLICAS=3")
    assert said.splitlines()[-1].endswith(" -m deploy.local.control scale demo 3")
