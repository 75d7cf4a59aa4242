"""The configuration file: what it says, and how a mistake in it is told."""

import os
from hashlib import sha256
from pathlib import Path

import pytest

from libs.service_kit.config_file import ConfigFileError, load_configuration

GOOD = """\
defaultGateway: demo
gateways:
  - id: demo
    type: smpp
    host: localhost
    port: ${PORT}
    systemId: me
    password: secret
apiKeys:
  - name: app
    tenant: bank
    key: ${KEY}
    scopes: [sms:send]
"""
ENVIRONMENT = {"PORT": "2775", "KEY": "a-key-of-enough-length"}


def problems(tmp_path: Path, text: str, environment: dict[str, str] = ENVIRONMENT) -> list[str]:
    file = tmp_path / "p.yaml"
    file.write_text(text)
    with pytest.raises(ConfigFileError) as raised:
        load_configuration(file, environment)
    return [line.removeprefix(f"{file}:") for line in str(raised.value).splitlines()]


def test_references_are_taken_from_the_environment(tmp_path: Path):
    file = tmp_path / "p.yaml"
    file.write_text(GOOD)
    configuration = load_configuration(file, ENVIRONMENT)
    assert configuration.gateway("demo").port == 2775
    assert configuration.api_keys[0].sha256 == sha256(b"a-key-of-enough-length").digest()
    with pytest.raises(KeyError, match="nowhere"):
        configuration.gateway("nowhere")


def test_the_default_file_of_the_local_stack_is_good():
    given = {"CARRIER_SMPP_PORT": "2775", "POSTRIDER_API_KEY": "x" * 20, **os.environ}
    assert load_configuration(Path("deploy/local/postrider.yaml"), given).default_gateway == "demo"


@pytest.mark.parametrize(
    ("change", "to", "told"),
    [
        ("port: ${PORT}", "port: 99999", "6: gateways.0.port: Input should be less than or equal to 65535"),
        ("id: demo", "id: Demo!", "3: gateways.0.id: String should match"),
        ("    host: localhost\n", "", "3: gateways.0.host: Field required"),
        ("systemId: me", "sytemId: me", "gateways.0.sytemId: Extra inputs are not permitted"),
        ("password: secret", "password: much-too-long", "8 octets at most"),
        ("password: secret", "password: secret\n    inDoubt: resend_if_idempotent", "takes no idempotency key"),
        (
            "password: secret",
            "password: secret\n    bindType: transmitter_and_receiver",
            "bindsAllowed: a transmitter_and",
        ),
        ("scopes: [sms:send]", "scopes: [sms:fly]", "13: apiKeys.0.scopes"),
        ("defaultGateway: demo", "defaultGateway: other", "there is no gateway 'other'"),
        ("key: ${KEY}", "key: short", "at least 16 characters"),
        ("key: ${KEY}", "", "exactly one of key and keyHash"),
        ("key: ${KEY}", "key: ${NOT_THERE}", "12: apiKeys.0.key: the environment has no NOT_THERE"),
        ("gateways:", "gateways: [", "while parsing"),
    ],
)
def test_a_mistake_is_told_with_its_line_and_reason(tmp_path: Path, change: str, to: str, told: str):
    assert change in GOOD
    found = problems(tmp_path, GOOD.replace(change, to))
    if told != "while parsing":
        assert any(told in line for line in found), found
    assert all(line.split(":", 1)[0].isdigit() for line in found), found


def test_every_mistake_is_told_at_once(tmp_path: Path):
    found = problems(tmp_path, GOOD.replace("host: localhost", "host: [5]").replace("${PORT}", "none"))
    assert [line.split(": ")[1] for line in found] == ["gateways.0.host", "gateways.0.port"]


@pytest.mark.parametrize(
    ("bind_type", "replicas"), [("transceiver", 5), ("transmitter", 5), ("transmitter_and_receiver", 2)]
)
def test_no_more_replicas_send_than_their_binds_are_allowed(tmp_path: Path, bind_type: str, replicas: int):
    file = tmp_path / "p.yaml"
    file.write_text(GOOD.replace("password: secret", f"bindsAllowed: 5\n    bindType: {bind_type}"))
    assert load_configuration(file, ENVIRONMENT).gateway("demo").replicas_allowed == replicas


def test_a_file_that_is_not_there_is_named(tmp_path: Path):
    with pytest.raises(ConfigFileError, match=r"nowhere\.yaml: No such file"):
        load_configuration(tmp_path / "nowhere.yaml")


def test_secrets_do_not_show_in_a_mistake(tmp_path: Path):
    told = problems(tmp_path, GOOD.replace("password: secret", "password: much-too-long"))
    assert not any("much-too-long" in line for line in told)


@pytest.mark.parametrize(
    "given", ["key: a-key-of-enough-length", f"keyHash: {sha256(b'a-key-of-enough-length').hexdigest()}"]
)
def test_a_key_opens_one_entry_alone(tmp_path: Path, given: str):
    another = f"\n  - {{name: b, tenant: clinic, {given}, scopes: []}}\n"
    (told,) = problems(tmp_path, GOOD.rstrip() + another)
    assert "apiKeys: 'app' and 'b' have the same key" in told
    assert given.split()[1] not in told


def test_inbound_messages_belong_to_the_gateways_tenant_or_the_only_one(tmp_path: Path):
    file = tmp_path / "p.yaml"
    another = "\n  - {name: b, tenant: clinic, key: another-key-of-enough, scopes: []}\n"
    for text, tenant in (
        (GOOD, "bank"),
        (GOOD.replace("password: secret", "password: secret\n    tenant: desk"), "desk"),
        (GOOD.rstrip() + another, "default"),
    ):
        file.write_text(text)
        assert load_configuration(file, ENVIRONMENT).tenant_of("demo") == tenant
    assert load_configuration(file, ENVIRONMENT).tenant_of("gone") == "default"
