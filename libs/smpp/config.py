"""What a session needs to know."""

from __future__ import annotations

import ssl
from collections.abc import Callable
from dataclasses import dataclass, field

from libs.smpp.pdus import BindType


@dataclass(frozen=True, kw_only=True)
class SessionConfig:
    """One bind. ValueError, naming the field, for a value that can't work."""

    host: str
    port: int
    system_id: str
    password: str = field(default="", repr=False)
    system_type: str = ""
    bind_type: BindType = BindType.TRANSCEIVER
    # The addresses that the bind serves (SMPP 3.4 §5.2.7); those of a message stand in its SubmitSm.
    addr_ton: int = 0
    addr_npi: int = 0
    address_range: str = ""
    window: int = 10
    """The most submit_sm without an answer at any time."""
    response_timeout_seconds: float = 10.0
    """How long an answer to a request may take before it is reported as timed out."""
    enquire_link_seconds: float = 30.0
    """How often to ask whether the other side is still there."""
    bind_timeout_seconds: float = 10.0
    """How long connecting, the TLS handshake and the bind may take together."""
    tls: Callable[[], ssl.SSLContext] | None = field(default=None, repr=False)
    """Called for each bind, in a thread. None: not encrypted."""
    max_waiting_delivers: int = 10_000
    """The most deliver_sm that wait for their handler; what comes above is refused for now, so the SMSC sends it again."""
    deliver_batch: int = 500
    """The most deliver_sm handed to the handler at once."""

    def __post_init__(self) -> None:
        for name in ("port", "window", "max_waiting_delivers", "deliver_batch"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}: must be at least 1")
        for name in ("response_timeout_seconds", "enquire_link_seconds", "bind_timeout_seconds"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name}: must be above 0")
