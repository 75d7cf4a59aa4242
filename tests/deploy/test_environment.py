"""A shell in which `. .run/env` was said is one to test in, too."""

import os
import subprocess
import sys

from deploy import REPOSITORY
from deploy.local import topology

SAID = dict.fromkeys(topology.KAFKA, "") | {
    "KAFKA_BOOTSTRAP_SERVERS": "127.0.0.1:19092",
    "POSTGRES_DSN": "postgresql://postrider:secret@127.0.0.1:15432/postrider",
}


def test_the_tests_know_nothing_of_servers_that_the_environment_names() -> None:
    program = "import os, tests.conftest; print(*os.environ)"
    done = subprocess.run(
        (sys.executable, "-c", program),
        cwd=REPOSITORY,
        env={**os.environ, **SAID},
        capture_output=True,
        text=True,
        check=True,
    )
    assert SAID.keys() & set(done.stdout.split()) == set()
