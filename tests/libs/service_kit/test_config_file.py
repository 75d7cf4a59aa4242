"""The configuration file: what it says, and how a mistake in it is told."""

import os
from hashlib import sha256
from pathlib import Path

import pytest

from libs.service_kit.config_file import ConfigFileError, load_configuration
from libs.service_kit.yaml_file import YamlFile
from libs.smpp.pdus import Bind, BindType
from tests.certificates import made_certificate, needs_openssl

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
ENVIRONMENT = {"PORT": "2775", "KEY": "a-key-of-16-char"}


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
    assert configuration.api_keys[0].sha256 == sha256(b"a-key-of-16-char").digest()
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
        ("host: localhost", "host: smsc..example", "5: gateways.0.host: is no host name"),
        ("host: localhost", 'host: ""', "5: gateways.0.host: String should have at least 1 character"),
        ("systemId: me", "sytemId: me", "gateways.0.sytemId: Extra inputs are not permitted"),
        ("password: secret", f"password: {'x' * 65}", "8: gateways.0.password: longer than 64 characters"),
        ("password: secret", "password: пароль", "8: gateways.0.password: has a character that is not in latin-1"),
        ("systemId: me", "systemId: я", "7: gateways.0.systemId: has a character that is not in latin-1"),
        (
            "systemId: me",
            "systemId: me\n    systemType: я",
            "8: gateways.0.systemType: has a character that is not in latin-1",
        ),
        (
            "systemId: me",
            "systemId: me\n    sourceAddress: Банк",
            "8: gateways.0.sourceAddress: has a character that is not in latin-1",
        ),
        ("systemId: me", 'systemId: me\n    sourceAddress: "a\\0"', "8: gateways.0.sourceAddress: has a NUL"),
        (
            "defaultGateway: demo",
            "defaultGateway: demo\ndefaultRegion: UK",
            "defaultRegion: no numbers are known of such a region",
        ),
        ("key: ${KEY}", 'key: "0123456789abcdef\\n"', "12: apiKeys.0.key: begins or ends with white space"),
        ("password: secret", "defaultAlphabet: latin9", "Input should be 'gsm', 'latin1' or 'ascii'"),
        (
            "password: secret",
            "validityPeriod: relative",
            "8: gateways.0.validityPeriod: Input should be a valid boolean",
        ),
        ("password: secret", "priorityFlag: 1.5", "8: gateways.0.priorityFlag: Input should be a valid boolean"),
        ("password: secret", "userMessageReference: 2", "8: gateways.0.userMessageReference: Input should be a valid"),
        ("password: secret", "receipts: all", "Input should be 'each', 'first', 'last' or 'none'"),
        ("password: secret", "bindType: transmitter", "3: gateways.0: receipts: must be none, since a transmitter"),
        ("password: secret", "serviceType: CMTTTT", "8: gateways.0.serviceType: longer than 5 characters"),
        ("password: secret", "serviceType: смс", "8: gateways.0.serviceType: has a character that is not in latin-1"),
        ("password: secret", f"addressRange: {'x' * 41}", "8: gateways.0.addressRange: longer than 40 characters"),
        ("password: secret", "addressTon: 7", "8: gateways.0.addressTon: Input should be less than or equal to 6"),
        ("password: secret", "window: 0", "8: gateways.0.window: Input should be greater than or equal to 1"),
        ("password: secret", "tries: 0", "8: gateways.0.tries: Input should be greater than or equal to 1"),
        (
            "password: secret",
            "enquireLinkSeconds: 0",
            "8: gateways.0.enquireLinkSeconds: Input should be greater than 0",
        ),
        (
            "password: secret",
            "segmentsPerSecond: -1",
            "8: gateways.0.segmentsPerSecond: Input should be greater than or",
        ),
        (
            "password: secret",
            "segmentsPerSecond: .inf",
            "8: gateways.0.segmentsPerSecond: Input should be less than or equal to 1000000",
        ),
        (  # no longer than receipts are kept for, and a message until its end
            "password: secret",
            "receiptWindowHours: 337",
            "8: gateways.0.receiptWindowHours: Input should be less than or equal to 336",
        ),
        (
            "defaultGateway: demo",
            "defaultGateway: demo\nvaliditySeconds: 604801",
            "2: validitySeconds: Input should be less than or equal to 604800",
        ),
        (
            "password: secret",
            "password: secret\n    inDoubt: resend_if_idempotent",
            "Input should be 'hold' or 'resend_once'",
        ),
        (
            "password: secret",
            "password: secret\n    bindType: transmitter_and_receiver",
            "bindsAllowed: a transmitter_and",
        ),
        ("scopes: [sms:send]", "scopes: [sms:fly]", "13: apiKeys.0.scopes"),
        ("defaultGateway: demo", "defaultGateway: other", "there is no gateway 'other'"),
        ("key: ${KEY}", "key: fifteen-letters", "12: apiKeys.0.key: at least 16 characters"),
        ("key: ${KEY}", "", "exactly one of key and keyHash"),
        ("key: ${KEY}", f"keyHash: {'0' * 63}x", "12: apiKeys.0.keyHash: String should match pattern"),
        ("key: ${KEY}", f"keyHash: {'a' * 66}", "12: apiKeys.0.keyHash: String should match pattern"),
        ("key: ${KEY}", "key: ${NOT_THERE}", "12: apiKeys.0.key: the environment has no NOT_THERE"),
        ("key: ${KEY}", 'key: "a key of enough length \\ud800"', "12: apiKeys.0.key: is not UTF-8"),
        ("gateways:", "gateways: [", "3:3: not YAML from here on"),
        ("port: ${PORT}", "port: ${PORT}\n    port: 1", "7: gateways.0.port: is there twice"),
        ("apiKeys:", "gateways: []\napiKeys:", "9: gateways: is there twice"),
        ("defaultGateway:", "default_gateway:", "1: default_gateway: Extra inputs are not permitted"),
    ],
)
def test_a_mistake_is_told_with_its_line_and_reason(tmp_path: Path, change: str, to: str, told: str):
    assert change in GOOD
    found = problems(tmp_path, GOOD.replace(change, to))
    assert any(told in line for line in found), found
    assert all(line.split(":", 1)[0].isdigit() for line in found), found


def test_every_field_that_a_bind_could_not_carry_is_told_with_its_line(tmp_path: Path):
    bad = f"systemId: {'x' * 16}\n    systemType: {'x' * 13}\n    sourceAddress: {'x' * 21}\n    password: пароль"
    assert problems(tmp_path, GOOD.replace("systemId: me\n    password: secret", bad)) == [
        "9: gateways.0.sourceAddress: longer than 20 characters",
        "7: gateways.0.systemId: longer than 15 characters",
        "10: gateways.0.password: has a character that is not in latin-1",
        "8: gateways.0.systemType: longer than 12 characters",
    ]


def test_a_bad_key_is_told_beside_what_else_is_wrong_with_its_entry(tmp_path: Path):
    assert [
        line.split(": ")[1] for line in problems(tmp_path, GOOD.replace("${KEY}", "short").replace("sms:send", "x"))
    ] == ["apiKeys.0.key", "apiKeys.0.scopes.0"]


def test_every_mistake_is_told_at_once(tmp_path: Path):
    found = problems(tmp_path, GOOD.replace("host: localhost", "host: [5]").replace("${PORT}", "none"))
    assert [line.split(": ")[1] for line in found] == ["gateways.0.host", "gateways.0.port"]


@pytest.mark.parametrize(
    ("named", "told"), [("nowhere.pem", "No such file or directory"), ("p.yaml", "it holds no certificate (PEM)")]
)
def test_a_file_of_authorities_that_can_not_be_used_is_told_at_load(tmp_path: Path, named: str, told: str):
    text = GOOD.replace("password: secret", f"tls: true\n    tlsCaFile: {tmp_path / named}")
    assert problems(tmp_path, text) == [f"9: gateways.0.tlsCaFile: {tmp_path / named}: {told}"]


@needs_openssl
def test_a_file_of_authorities_is_refused_where_nothing_is_encrypted(tmp_path: Path):
    certificate, _ = made_certificate(tmp_path, "IP:127.0.0.1")
    text = GOOD.replace("password: secret", f"password: secret\n    tlsCaFile: {certificate}")
    words = "tlsCaFile: is of no use without tls: true, and the password would leave in plain text"
    assert problems(tmp_path, text) == [f"3: gateways.0: {words}"]


def test_a_password_may_be_as_long_as_a_bind_can_carry(tmp_path: Path):
    file = tmp_path / "p.yaml"
    file.write_text(GOOD.replace("password: secret", f"password: {'x' * 64}"))
    gateway = load_configuration(file, ENVIRONMENT).gateway("demo")
    assert len(Bind(BindType.TRANSCEIVER, "me", gateway.password.get_secret_value()).encode(1)) > 64


@pytest.mark.parametrize(("told", "reported"), [("each", [1, 2, 3]), ("first", [1]), ("last", [3]), ("none", [])])
def test_a_gateway_is_told_which_parts_are_reported(tmp_path: Path, told: str, reported: list[int]):
    file = tmp_path / "p.yaml"
    file.write_text(GOOD.replace("password: secret", f"receipts: {told}"))
    gateway = load_configuration(file, ENVIRONMENT).gateway("demo")
    assert [part for part in (1, 2, 3) if gateway.reports(part, 3)] == reported
    assert gateway.reports(1, 1) is (told != "none")


@pytest.mark.parametrize(
    ("bind_type", "replicas"), [("transceiver", 5), ("transmitter", 5), ("transmitter_and_receiver", 2)]
)
def test_no_more_replicas_send_than_their_binds_are_allowed(tmp_path: Path, bind_type: str, replicas: int):
    file = tmp_path / "p.yaml"
    file.write_text(GOOD.replace("password: secret", f"bindsAllowed: 5\n    receipts: none\n    bindType: {bind_type}"))
    assert load_configuration(file, ENVIRONMENT).gateway("demo").replicas_allowed == replicas


def test_a_file_that_is_not_there_is_named(tmp_path: Path):
    with pytest.raises(ConfigFileError, match=r"nowhere\.yaml: No such file"):
        load_configuration(tmp_path / "nowhere.yaml")


def test_what_is_wrong_between_entries_is_told_beside_what_is_wrong_within_one(tmp_path: Path):
    another = "  - {id: demo, type: smpp, host: h, port: 0, systemId: me}\n"
    more = "  - {name: app, tenant: bank, key: '${KEY}', scopes: [sms:fly]}\n"
    text = (
        GOOD.replace("defaultGateway: demo", "defaultGateway: other").replace("apiKeys:", f"{another}apiKeys:") + more
    )
    assert [line.rsplit(": ", 2)[1] for line in problems(tmp_path, text)] == [
        "gateways.1.id",
        "apiKeys.1.name",
        "apiKeys.1.key",
        "defaultGateway",
        "gateways.1.port",
        "apiKeys.1.scopes.0",
    ]


@pytest.mark.parametrize(
    "reference", ["live-${KEY}", "${key}", "$KEY", '"${KEY} "', '" $KEY"', "${KEY}${KEY}", "'${}'"]
)
def test_a_misspelt_reference_is_refused_and_not_taken_for_the_key(tmp_path: Path, reference: str):
    (told,) = problems(tmp_path, GOOD.replace("${KEY}", f"{reference} # of at least 16 characters"))[:1]
    assert (
        told
        == "12: apiKeys.0.key: a reference to the environment is the whole value, with its name in capitals: ${NAME}"
    )


def test_what_the_environment_says_is_no_reference(tmp_path: Path):
    file = tmp_path / "p.yaml"
    file.write_text(
        GOOD.replace("${KEY}", "&key ${KEY}") + "  - {name: b, tenant: *key, key: '${OTHER}', scopes: []}\n"
    )
    with pytest.raises(
        ConfigFileError, match="tenant: String should match pattern"
    ):  # the alias is no reference once more
        load_configuration(file, {"PORT": "1", "KEY": "${OTHER}-and-16-characters", "OTHER": "$SIXTEEN_CHARACTERS"})


@pytest.mark.parametrize(
    ("change", "to", "told"),
    [
        ("password: secret", f"password: much-too-Secret-{'1' * 64}", "8: gateways.0.password: longer"),
        ("password: secret", "password: Secret-пароль", "8: gateways.0.password: has a character"),
        ("password: secret", "password: !much-too-Secret-1", "8:15: a tag (!)"),
        ("password: secret", "password: !much!Secret-1", "8:15: not YAML"),
        ("password: secret", "password: *Secret-1", "8:15: an alias (*)"),
        ("password: secret", "password: '\\Secret-1", "not YAML"),
        ("password: secret", 'password: "Secret-1\\q"', "8:25: not YAML"),
        ("password: secret", "password:Secret-1", "not YAML"),
        ("password: secret", "? {Secret-1: 1}", "a tag (!) or value that can't be read"),
        (
            "  - id: demo",
            "  - {id: demo, type: smpp, password:Secret-1}\n  - id: demo2",
            "3: gateways.0.password: Extra inputs",
        ),
        ("scopes: [sms:send]", "scopes: [Secret-1]", "13: apiKeys.0.scopes"),
    ],
)
def test_secrets_do_not_show_in_a_mistake(tmp_path: Path, change: str, to: str, told: str):
    found = problems(tmp_path, GOOD.replace(change, to))
    assert any(told in line for line in found), found
    assert not any("Secret" in line for line in found)


@pytest.mark.parametrize(
    ("octets", "told"),
    [
        (b"a: 1\nb: \xe9", "2: not UTF-8"),
        (b"a: 1\nb: \0", "2: a character that YAML does not allow"),
        (b"a: 2026-13-45", "1:4: a tag (!) or value that can't be read"),
        (b"a: !!timestamp x", "1:4: a tag (!) or value that can't be read"),
        (b"a: !!bool x", "1:4: a tag (!) or value that can't be read"),
        (b"a: 1\n---\na: 1", "2:1: an alias (*) of nothing, an anchor (&) that is there twice, or a second document"),
        (b"&a [*a]", "1: Input should be a valid dictionary"),
        (b"[" * 10_000, "1: nested too deeply"),
        (b"", "1: Input should be a valid dictionary"),
        (b"gateways: 5\napiKeys: [5]\ndefaultGateway: {}", "1: gateways: Input should be a valid tuple"),
    ],
)
def test_what_no_file_should_hold_is_told_with_its_place(tmp_path: Path, octets: bytes, told: str):
    file = tmp_path / "p.yaml"
    file.write_bytes(octets)
    with pytest.raises(ConfigFileError) as raised:
        load_configuration(file)
    assert str(raised.value).startswith(f"{file}:{told}")


def test_a_field_is_named_as_the_file_has_it(tmp_path: Path):
    path = tmp_path / "p.yaml"
    path.write_text("base: &base\n  port: 1\ngateways:\n  - <<: *base\n    id: demo\n")
    file = YamlFile(path, {})
    assert file.at(("gateways", 0, "smpp", "port"), "wrong") == f"{path}:2: gateways.0.port: wrong"
    assert (
        file.at(("gateways", 0, "smpp", "host"), "is missing", missing=True) == f"{path}:4: gateways.0.host: is missing"
    )
    assert file.at(("gateways", 0, "smpp"), "port: wrong") == f"{path}:4: gateways.0: port: wrong"


@pytest.mark.parametrize("given", ["key: a-key-of-16-char", f"keyHash: {sha256(b'a-key-of-16-char').hexdigest()}"])
def test_a_key_opens_one_entry_alone(tmp_path: Path, given: str):
    another = f"\n  - {{name: b, tenant: clinic, {given}, scopes: []}}\n"
    (told,) = problems(tmp_path, GOOD.rstrip() + another)
    assert "apiKeys.1" in told
    assert "an entry before it has the same key" in told
    assert given.split()[1] not in told


def test_what_the_environment_has_as_a_key_that_is_no_text_is_told_beside_all_else(tmp_path: Path):
    environment = ENVIRONMENT | {"KEY": os.fsdecode(b"\xff\xfe of enough length"), "PORT": "none"}
    assert [line.split(": ")[1] for line in problems(tmp_path, GOOD, environment)] == [
        "gateways.0.port",
        "apiKeys.0.key",
    ]


def test_ids_that_are_made_of_themselves_are_told(tmp_path: Path):
    twice = GOOD.replace("apiKeys:", "  - id: &b [*b]\napiKeys:").replace("id: demo", "id: &a [*a]")
    assert any("gateways.1.id" in line for line in problems(tmp_path, twice))


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
