"""What the environment must say, and how every problem of it is told before the service ends."""

from pathlib import Path

import pytest

from libs.service_kit.settings import (
    ConfiguredSettings,
    DatabaseSettings,
    ServiceSettings,
    load_configured,
    load_settings,
)

GOOD = {"OPS_PORT": "0", "INTERNAL_TOKEN": "x" * 16, "POSTGRES_DSN": "postgres://localhost/postrider"}


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    for name, value in GOOD.items():
        monkeypatch.setenv(name, value)
    return monkeypatch


def told(settings: type[ServiceSettings], capsys: pytest.CaptureFixture[str]) -> list[str]:
    with pytest.raises(SystemExit) as ended:
        load_settings(settings)
    assert ended.value.code == 2
    return [line.strip() for line in capsys.readouterr().err.splitlines()[1:]]


def test_every_problem_of_the_environment_is_listed(
    environment: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    wrong = {
        "OPS_PORT": "99999",
        "INTERNAL_TOKEN": "fifteen-letters",
        "LOG_LEVEL": "info",
        "DRAIN_BUDGET_SECONDS": "0",
        "POSTGRES_DSN": "mysql://x",
    }
    for name, value in wrong.items():
        environment.setenv(name, value)
    assert [line.split(":")[0] for line in told(DatabaseSettings, capsys)] == list(wrong)


def test_problems_of_the_environment_and_of_the_configuration_file_are_told_together(
    environment: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
):
    file = tmp_path / "p.yaml"
    file.write_text("gateways: []\n")
    environment.setenv("POSTRIDER_CONFIG", str(file))
    environment.setenv("OPS_PORT", "abc")
    with pytest.raises(SystemExit) as ended:
        load_configured(ConfiguredSettings)
    assert ended.value.code == 2
    _, first, second = capsys.readouterr().err.splitlines()
    assert first.startswith("  OPS_PORT: Input should be a valid integer")
    assert second == f"  {file}:1: defaultGateway: Field required"


@pytest.mark.parametrize("token", ["0123456789abcdef ", "0123456789abcdef\n", "0123456789\nabcdef", "0123456789abcdéf"])
def test_a_token_that_no_header_carries_as_it_is_is_refused(
    environment: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], token: str
):
    environment.setenv("INTERNAL_TOKEN", token)
    assert told(ServiceSettings, capsys) == [
        "INTERNAL_TOKEN: must be of printable ASCII characters, without blanks at its ends"
    ]


def test_an_empty_address_is_not_taken_for_every_address(
    environment: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    environment.setenv("OPS_HOST", "")
    assert told(ServiceSettings, capsys) == ["OPS_HOST: String should have at least 1 character"]


@pytest.mark.parametrize("servers", ["kafka:9092", "a:1,b:2", "a:1, 10.0.0.1:65535", "[::1]:9092"])
def test_brokers_are_hosts_with_ports(environment: pytest.MonkeyPatch, servers: str):
    environment.setenv("KAFKA_BOOTSTRAP_SERVERS", servers)
    assert load_settings(ServiceSettings).kafka_bootstrap_servers == servers


@pytest.mark.parametrize(
    "servers", ["", "kafka", "nope:abc", "a:1;b:2", "a:1,", "a:0", "a:99999", "kafka://a:1", "::1:9"]
)
def test_other_brokers_are_refused(environment: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], servers: str):
    environment.setenv("KAFKA_BOOTSTRAP_SERVERS", servers)
    words = "KAFKA_BOOTSTRAP_SERVERS: must be host:port of one or more brokers, comma-separated"
    assert told(ServiceSettings, capsys) == [words]


@pytest.mark.parametrize("scheme", ["mysql", "postgresql+asyncpg", "postgresql+psycopg"])
def test_a_dsn_has_the_scheme_that_the_database_is_opened_with(
    environment: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], scheme: str
):
    environment.setenv("POSTGRES_DSN", f"{scheme}://me:secret@host/postrider")
    assert told(DatabaseSettings, capsys) == ["POSTGRES_DSN: URL scheme should be 'postgres' or 'postgresql'"]


def test_a_dsn_has_a_host(environment: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    environment.setenv("POSTGRES_DSN", "postgresql:///postrider")
    assert told(DatabaseSettings, capsys) == ["POSTGRES_DSN: Input should be a valid URL, empty host"]
