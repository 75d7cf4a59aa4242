from pathlib import Path

import pytest

from deploy.running_stack import environment

KAFKA = "KAFKA_BOOTSTRAP_SERVERS"


def test_it_is_that_of_the_local_stack_unless_another_is_named(tmp_path: Path) -> None:
    file = tmp_path / "env"
    with pytest.raises(SystemExit, match=r"make run.*POSTGRES_DSN and KAFKA"):
        environment({}, "POSTGRES_DSN", KAFKA, file=file)
    file.write_text("export POSTRIDER_API_KEY='a key'\nexport KAFKA_BOOTSTRAP_SERVERS=127.0.0.1:19092\n")
    here = {KAFKA: "127.0.0.1:19092", "POSTRIDER_API_KEY": "a key"}
    assert environment({KAFKA: ""}, KAFKA, file=file) == here
    assert environment({"REPLAY": "all"}, KAFKA, file=file) == {**here, "REPLAY": "all"}
    assert environment({"POSTRIDER_API_KEY": "mine"}, KAFKA, file=file) == {**here, "POSTRIDER_API_KEY": "mine"}
    assert environment({KAFKA: "other:9092"}, KAFKA, file=file) == {KAFKA: "other:9092"}


@pytest.mark.parametrize(("given", "lacks"), [(KAFKA, "POSTGRES_DSN"), ("POSTGRES_DSN", KAFKA)])
def test_the_databases_of_one_system_never_meet_the_topics_of_another(tmp_path: Path, given: str, lacks: str) -> None:
    file = tmp_path / "env"
    file.write_text("export POSTGRES_DSN=postgresql://here\nexport KAFKA_BOOTSTRAP_SERVERS=here:9092\n")
    with pytest.raises(SystemExit, match=f"set {lacks} too"):
        environment({given: "other"}, "POSTGRES_DSN", KAFKA, file=file)
