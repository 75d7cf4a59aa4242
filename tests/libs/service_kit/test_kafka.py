"""How Kafka lets us in, told by the environment: what is missing, of no use or unreadable is named before anything connects."""

import ssl
import subprocess
from pathlib import Path

import pytest

from libs.service_kit.kafka import KafkaSettings
from libs.service_kit.settings import load_settings
from tests.certificates import made_certificate, needs_openssl

PASSWORD = "a secret"


def told(environment: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], **given: str | Path) -> list[str]:
    """The problems of it."""
    for name, value in given.items():
        environment.setenv(f"KAFKA_{name}", str(value))
    with pytest.raises(SystemExit) as ended:
        load_settings(KafkaSettings)
    assert ended.value.code == 2
    return [line.removeprefix("  KAFKA_") for line in capsys.readouterr().err.splitlines()[1:]]


@pytest.mark.parametrize("given", [{}, {name: "" for name in KafkaSettings.model_fields if "bootstrap" not in name}])
def test_nothing_said_is_nothing_secret(given: dict[str, str]) -> None:
    assert KafkaSettings.model_validate(given).kafka.options() == {"bootstrap_servers": "127.0.0.1:9092"}


@pytest.mark.parametrize("protocol", ["SASL_PLAINTEXT", "SASL_SSL"])
def test_a_login_is_asked_for(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], protocol: str
) -> None:
    words = f"must be set, since KAFKA_SECURITY_PROTOCOL is {protocol}"
    problems = told(monkeypatch, capsys, SECURITY_PROTOCOL=protocol)
    assert problems == [f"SASL_USERNAME: {words}", f"SASL_PASSWORD: {words}"]


@pytest.mark.parametrize("protocol", ["PLAINTEXT", "SSL"])
def test_a_login_that_nobody_asks_for_is_a_mistake(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], protocol: str
) -> None:
    words = f"is of no use, since KAFKA_SECURITY_PROTOCOL is {protocol}"
    problems = told(monkeypatch, capsys, SECURITY_PROTOCOL=protocol, SASL_USERNAME="me", SASL_PASSWORD=PASSWORD)
    assert problems == [f"SASL_USERNAME: {words}", f"SASL_PASSWORD: {words}"]
    assert PASSWORD not in str(problems)


def test_what_there_is_not_is_named(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    problems = told(monkeypatch, capsys, SECURITY_PROTOCOL="SASL", SASL_MECHANISM="GSSAPI")
    assert [problem.split(":")[0] for problem in problems] == ["SECURITY_PROTOCOL", "SASL_MECHANISM"]


@needs_openssl
@pytest.mark.parametrize("protocol", ["PLAINTEXT", "SASL_PLAINTEXT"])
def test_certificates_without_tls_are_a_mistake(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path, protocol: str
) -> None:
    file, _ = made_certificate(tmp_path, "DNS:kafka")
    problems = told(monkeypatch, capsys, SECURITY_PROTOCOL=protocol, CA_FILE=file, CERTIFICATE_FILE=file)
    words = f"is of no use, since KAFKA_SECURITY_PROTOCOL is {protocol}"
    assert problems[:2] == [f"CA_FILE: {words}", f"CERTIFICATE_FILE: {words}"]


@needs_openssl
def test_files_that_cannot_be_used_are_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    certificate, _ = made_certificate(tmp_path, "DNS:kafka")
    key, none, gone = tmp_path / "key.pem", tmp_path / "none.pem", tmp_path / "gone.pem"
    none.write_text("not a certificate")
    monkeypatch.setenv("KAFKA_SECURITY_PROTOCOL", "SSL")
    unfit = "no certificate with its key, unencrypted (PEM)"
    assert told(monkeypatch, capsys, CA_FILE=none, KEY_FILE=key) == [
        f"CA_FILE: {none}: it holds no certificate (PEM)",
        "CERTIFICATE_FILE: must be set, since KAFKA_KEY_FILE is",
    ]
    assert told(monkeypatch, capsys, CA_FILE=gone, CERTIFICATE_FILE=none) == [
        f"CA_FILE: {gone}: No such file or directory",
        f"CERTIFICATE_FILE: {none} and {key}: {unfit}",
    ]
    assert told(monkeypatch, capsys, CA_FILE=certificate, CERTIFICATE_FILE=gone) == [
        f"CERTIFICATE_FILE: {gone}: No such file or directory"
    ]
    assert told(monkeypatch, capsys, CERTIFICATE_FILE=certificate, KEY_FILE="") == [
        f"CERTIFICATE_FILE: {certificate}: {unfit}"
    ]
    assert told(monkeypatch, capsys, KEY_FILE=gone) == [f"CERTIFICATE_FILE: {gone}: No such file or directory"]
    encrypted = tmp_path / "encrypted.pem"
    command = ["openssl", "pkcs8", "-topk8", "-in", key, "-out", encrypted, "-passout", "pass:secret"]
    subprocess.run(command, check=True, capture_output=True, timeout=30)
    assert told(monkeypatch, capsys, KEY_FILE=encrypted) == [
        f"CERTIFICATE_FILE: {certificate} and {encrypted}: {unfit}"
    ]


@needs_openssl
def test_the_key_may_stand_in_the_certificates_file(tmp_path: Path) -> None:
    certificate, _ = made_certificate(tmp_path, "DNS:kafka")
    both = tmp_path / "both.pem"
    both.write_text(certificate.read_text() + (tmp_path / "key.pem").read_text())
    given = {"kafka_security_protocol": "SSL", "kafka_ca_file": certificate, "kafka_certificate_file": both}
    options = KafkaSettings.model_validate(given).kafka.options()
    assert options["security_protocol"] == "SSL"
    assert options["ssl_context"].verify_mode is ssl.CERT_REQUIRED
    assert options["ssl_context"].check_hostname


def test_a_password_is_never_shown() -> None:
    given = {"kafka_security_protocol": "SASL_SSL", "kafka_sasl_username": "me", "kafka_sasl_password": PASSWORD}
    settings = KafkaSettings.model_validate(given)
    assert settings.kafka.options()["sasl_plain_password"] == PASSWORD
    assert PASSWORD not in f"{settings!r} {settings.kafka!r}"
