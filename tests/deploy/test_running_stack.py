from pathlib import Path

import pytest

from deploy.running_stack import environment

KAFKA = "KAFKA_BOOTSTRAP_SERVERS"


def test_what_is_given_comes_before_what_the_local_stack_says_of_itself(tmp_path: Path) -> None:
    file = tmp_path / "env"
    with pytest.raises(SystemExit, match=r"make run.*POSTGRES_DSN and KAFKA"):
        environment({}, "POSTGRES_DSN", KAFKA, file=file)
    file.write_text("export POSTRIDER_API_KEY='a key'\nexport KAFKA_BOOTSTRAP_SERVERS=127.0.0.1:19092\n")
    assert environment({KAFKA: ""}, KAFKA, file=file) == {KAFKA: "127.0.0.1:19092", "POSTRIDER_API_KEY": "a key"}
    assert environment({KAFKA: "other:9092"}, KAFKA, file=file)[KAFKA] == "other:9092"
    with pytest.raises(SystemExit, match="set POSTGRES_DSN"):
        environment({KAFKA: "other:9092"}, "POSTGRES_DSN", KAFKA, file=file)
