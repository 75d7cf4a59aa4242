"""What the carrier is started with; each setting is the environment variable CARRIER_<NAME>."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

from pydantic import BeforeValidator, Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict

from services.simulated_carrier.behaviour import Behaviour

Port = Annotated[int, Field(ge=0, le=65_535)]
Seconds = Annotated[float, Field(gt=0, le=3_600)]


def _decoded(value: object) -> object:
    """Decoded here and not by pydantic, which would stop at it with the text in its traceback, and tell nothing of what else is wrong."""
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except ValueError:
        raise ValueError("is not JSON") from None


class CarrierSettings(BaseSettings):
    model_config = SettingsConfigDict(env_prefix="CARRIER_", extra="forbid", enable_decoding=False)

    host: str = "127.0.0.1"
    """the address that both ports listen on"""
    smpp_port: Port = 2775
    """TCP port; 0: a free one, named in the log line"""
    http_port: Port = 2780
    """TCP port of steering, reading and health; 0: a free one, named in the log line"""
    ledger_directory: Path = Path("carrier-ledger")
    """created when missing; what is in it is continued"""
    accounts: Annotated[dict[str, SecretStr], BeforeValidator(_decoded)] = {}
    """JSON object of system_id to password; empty: any system_id with any password may bind"""
    behaviour: Annotated[Behaviour, BeforeValidator(_decoded)] = Behaviour()
    """JSON object: the behaviour to start with, and to which DELETE /behaviour returns"""
    seed: int = 1
    """of everything left to chance; the same seed and the same submits give the same answers"""
    bind_timeout_seconds: Seconds = 10
    """seconds that a connection may stay without a bind"""
    enquire_link_seconds: Seconds = 30
    """seconds of silence after which a bound peer is asked whether it is there"""
    enquire_link_timeout_seconds: Seconds = 10
    """seconds of further silence after which its connection is closed"""
