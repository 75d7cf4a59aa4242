"""The configuration file: gateways and API keys, for now from YAML. A mistake is told with its line and why."""

from __future__ import annotations

import os
from abc import abstractmethod
from collections.abc import Iterator, Mapping
from datetime import timedelta
from enum import StrEnum
from hashlib import sha256
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias, cast

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic.alias_generators import to_camel

from libs.contracts.events import SLUG, GatewayId
from libs.phone_numbers.parse import is_region
from libs.service_kit.tls import check_ca_file
from libs.service_kit.yaml_file import ConfigFileError, Loc, YamlFile
from libs.smpp.message_id import IdFormat
from libs.smpp.pdus import LONGEST_PASSWORD, c_octets
from libs.sms_text.segments import Alphabet

DEFAULT_TENANT = "default"


class InDoubt(StrEnum):
    """What to do with an attempt whose outcome nobody knows (docs/architecture.md, rule 3)."""

    HOLD = "hold"
    RESEND_ONCE = "resend_once"


class Receipts(StrEnum):
    """Which parts of a message the carrier is asked to report of."""

    EACH = "each"
    FIRST = "first"
    LAST = "last"
    NONE = "none"


class _Model(BaseModel):
    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, extra="forbid", frozen=True)


TenantId = Annotated[str, Field(pattern=SLUG)]


class Gateway(_Model):
    """What every gateway has, whatever it speaks."""

    id: GatewayId
    source_address: str | None = None
    default_alphabet: Alphabet = Field(
        Alphabet.GSM, description="what the provider takes data_coding 0 for; what it lacks goes as UCS-2"
    )
    segments_per_second: float = Field(
        0, ge=0, le=1_000_000, description="the provider's limit over all replicas; 0 = unlimited"
    )
    window: int = Field(100, ge=1, le=10_000, description="submitted segments without an answer, per replica")
    in_doubt: InDoubt = InDoubt.HOLD
    tries: int = Field(5, ge=1, le=100, description="tries of a part that the carrier refuses for now, before it fails")
    receipts: Receipts = Field(Receipts.EACH, description="of which parts of a message: that part then speaks for all")
    receipt_window_hours: float = Field(
        72, gt=0, le=14 * 24, description="submitted or in doubt for longer without a final receipt: it ends as unknown"
    )
    tenant: TenantId | None = Field(
        None,
        description="whose the messages are that come in here; default: the tenant of the API keys, if they have just one",
    )

    def reports(self, part: int, parts: int) -> bool:
        """Whether a receipt is asked for of this part of so many."""
        asked = self.receipts
        if asked is Receipts.EACH:
            return True
        if asked is Receipts.FIRST:
            return part == 1
        return asked is Receipts.LAST and part == parts

    @property
    @abstractmethod
    def replicas_allowed(self) -> int:
        """How many dispatchers may send at once; further ones stand by."""


def _latin1(longest: int) -> AfterValidator:
    """For a text that SMPP carries as a C-octet string of at most so many octets."""

    def check(given: str | SecretStr) -> str | SecretStr:
        c_octets(given.get_secret_value() if isinstance(given, SecretStr) else given, longest)
        return given

    return AfterValidator(check)


class SmppGateway(Gateway):
    """An SMSC to which dispatchers bind. TON and NPI as in SMPP 3.4 §5.2.5 and §5.2.6."""

    type: Literal["smpp"]
    host: str = Field(min_length=1)
    port: int = Field(ge=1, le=65535)
    system_id: Annotated[str, _latin1(15)]
    password: Annotated[SecretStr, _latin1(LONGEST_PASSWORD)] = SecretStr("")
    system_type: Annotated[str, _latin1(12)] = ""
    address_ton: int = Field(0, ge=0, le=6, description="of addressRange, as is addressNpi")
    address_npi: int = Field(0, ge=0, le=18)
    address_range: Annotated[str, _latin1(40)] = Field("", description="the addresses that the bind serves")
    service_type: Annotated[str, _latin1(5)] = Field("", description="of what is submitted")
    bind_type: Literal["transceiver", "transmitter", "transmitter_and_receiver"] = "transceiver"
    binds_allowed: int = Field(1, ge=1, le=100, description="binds that the provider allows at once, of whatever type")
    source_address: Annotated[str, _latin1(20)] | None = Field(
        None, description="shown to the person; a request's senderId goes first"
    )
    source_ton: int = Field(5, ge=0, le=6)
    source_npi: int = Field(0, ge=0, le=18)
    destination_ton: int = Field(1, ge=0, le=6)
    destination_npi: int = Field(1, ge=0, le=18)
    user_message_reference: bool = Field(
        True, description="submits carry it, so that a receipt can tell of one whose answer never came"
    )
    priority_flag: bool = Field(True, description="submits of high priority say so")
    validity_period: bool = Field(True, description="submits say for how much longer the message is valid")
    response_timeout_seconds: float = Field(10, gt=0, le=60)
    enquire_link_seconds: float = Field(30, gt=0)
    response_id_format: IdFormat = IdFormat.TEXT
    receipt_id_format: IdFormat = IdFormat.TEXT
    receipt_addresses_swapped: bool = Field(
        True, description="a receipt comes from the number that the message went to, and not from its sender"
    )
    tls: bool = False
    tls_ca_file: Path | None = None

    @property
    def replicas_allowed(self) -> int:
        return self.binds_allowed // (2 if self.bind_type == "transmitter_and_receiver" else 1)

    @field_validator("host")
    @classmethod
    def _is_a_name(cls, host: str) -> str:
        try:
            host.encode("idna")
        except UnicodeError:
            raise ValueError("is no host name: between dots are 1 to 63 characters") from None
        return host

    @field_validator("tls_ca_file")
    @classmethod
    def _readable(cls, file: Path | None) -> Path | None:
        if file is not None:
            check_ca_file(file)
        return file

    @model_validator(mode="after")
    def _check(self) -> SmppGateway:
        if not self.replicas_allowed:
            raise ValueError("bindsAllowed: a transmitter_and_receiver takes two binds")
        if self.bind_type == "transmitter" and self.receipts is not Receipts.NONE:
            raise ValueError("receipts: must be none, since a transmitter is brought no receipts")
        if self.tls_ca_file is not None and not self.tls:
            raise ValueError("tlsCaFile: is of no use without tls: true, and the password would leave in plain text")
        return self


AnyGateway: TypeAlias = SmppGateway
"""What an entry of the configuration file may be; of several types a union, told apart by `type`."""


class Scope(StrEnum):
    """What an API key may do."""

    SEND = "sms:send"
    READ = "sms:read"
    CANCEL = "sms:cancel"
    OUTCOME = "sms:outcome"
    CONTACTS = "contacts:write"
    CONTACTS_READ = "contacts:read"
    INBOUND_READ = "inbound:read"


def _sendable(given: SecretStr) -> SecretStr:
    """A key that can't be guessed, and that a caller can send over HTTP."""
    key = given.get_secret_value()
    if len(key) < 16:
        raise ValueError("at least 16 characters")
    if key != key.strip():  # what comes over HTTP never has any
        raise ValueError("begins or ends with white space")
    try:
        key.encode()
    except UnicodeEncodeError:
        raise ValueError("is not UTF-8") from None
    return given


class ApiKey(_Model):
    """A caller. The file holds either the key (`${NAME}` takes it from the environment) or its SHA-256 in hex."""

    name: str = Field(pattern=SLUG)
    tenant: TenantId
    key: Annotated[SecretStr, AfterValidator(_sendable)] | None = Field(None, description="at least 16 characters")
    key_hash: str | None = Field(None, pattern=r"^[0-9a-f]{64}$")
    scopes: frozenset[Scope]
    requests_per_second: float = Field(
        0, ge=0, description="at each replica; a bulk call counts as many as it has messages; 0 = unlimited"
    )

    @model_validator(mode="after")
    def _check(self) -> ApiKey:
        if (self.key is None) == (self.key_hash is None):
            raise ValueError("exactly one of key and keyHash is needed")
        return self

    @property
    def sha256(self) -> bytes:
        if self.key is not None:
            return sha256(self.key.get_secret_value().encode()).digest()
        return bytes.fromhex(self.key_hash or "")


class Configuration(_Model):
    """The whole file."""

    gateways: tuple[AnyGateway, ...]
    default_gateway: GatewayId
    api_keys: tuple[ApiKey, ...] = ()
    default_region: str | None = Field(None, description="for numbers without a country code: ISO 3166, as KE or GB")
    validity_seconds: int = Field(int(timedelta(hours=48).total_seconds()), ge=60, le=7 * 24 * 3600)

    @field_validator("default_region")
    @classmethod
    def _has_numbers(cls, region: str | None) -> str | None:
        if region is not None and not is_region(region):
            raise ValueError(
                "no numbers are known of such a region; ISO 3166 has two capital letters for each, as KE or GB"
            )
        return region

    def gateway(self, gateway_id: str) -> AnyGateway:
        """The gateway with this id. Raises KeyError."""
        for gateway in self.gateways:
            if gateway.id == gateway_id:
                return gateway
        raise KeyError(f"there is no gateway {gateway_id!r} in the configuration")

    def tenant_of(self, gateway_id: str) -> str:
        """Whose inbound messages this gateway's are: its `tenant`, else the only tenant that there is, else "default"."""
        named = next((g.tenant for g in self.gateways if g.id == gateway_id), None)
        tenants = {key.tenant for key in self.api_keys}
        return named or (tenants.pop() if len(tenants) == 1 else DEFAULT_TENANT)


def load_configuration(path: Path, environment: Mapping[str, str] = os.environ) -> Configuration:
    """Read and check the file; `${NAME}` is taken from `environment`. Raises ConfigFileError with every mistake, its line and why."""
    file = YamlFile(path, environment)
    problems = [*file.problems, *(file.at(loc, words) for loc, words in _clashes(file.values))]
    try:
        configuration = Configuration.model_validate(file.values, by_alias=True, by_name=False)
    except ValidationError as error:
        problems += [
            file.at(e["loc"], e["msg"].removeprefix("Value error, "), missing=e["type"] == "missing")
            for e in error.errors(include_input=False, include_url=False)
        ]
        raise ConfigFileError("\n".join(problems)) from None
    if problems:
        raise ConfigFileError("\n".join(problems))
    return configuration


def _clashes(values: Any) -> Iterator[tuple[Loc, str]]:
    """What is wrong between entries. Looked for in the file's own values, so that an entry that is wrong in itself hides none of it."""
    gateways, keys = _entries(values, "gateways"), _entries(values, "apiKeys")
    ids = [entry.get("id") for entry in gateways]
    for what, field, given in (
        ("gateways", "id", ids),
        ("apiKeys", "name", [entry.get("name") for entry in keys]),
        ("apiKeys", "key", [_digest(entry) for entry in keys]),
    ):
        for i, value in enumerate(given):
            if isinstance(value, str) and value in given[:i]:
                yield (what, i, field), f"an entry before it has the same {field}"
    match values:
        case {"defaultGateway": str(default)} if default not in ids:
            yield ("defaultGateway",), f"there is no gateway {default!r}"
        case _:
            pass


def _entries(values: Any, name: str) -> list[dict[str, Any]]:
    """The entries of one list; an empty one for each that has no fields."""
    found = cast(dict[str, Any], values).get(name) if isinstance(values, dict) else None
    entries = cast(list[Any], found) if isinstance(found, list) else []
    return [cast(dict[str, Any], entry) if isinstance(entry, dict) else {} for entry in entries]


def _digest(entry: dict[str, Any]) -> Any:
    key = entry.get("key")
    return sha256(key.encode(errors="replace")).hexdigest() if isinstance(key, str) else entry.get("keyHash")
