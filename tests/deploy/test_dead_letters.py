"""What `make dead-letters` says where it can't do what it is asked; what it does is in tests/libs/bus/test_replay.py."""

import os
import subprocess
import sys

from deploy import REPOSITORY
from deploy.local.ports import free_port


def test_without_a_broker_it_says_so_in_one_line() -> None:
    port = free_port()
    command = (sys.executable, "-X", "dev", "-m", "deploy.dead_letters")
    environment = os.environ | {"KAFKA_BOOTSTRAP_SERVERS": f"127.0.0.1:{port}"}
    done = subprocess.run(
        command, cwd=REPOSITORY, env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stdout) == (1, "")
    [line] = done.stderr.splitlines()
    assert line.startswith("Kafka: KafkaConnectionError: ")
    assert str(port) in line
