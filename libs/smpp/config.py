"""What a session needs to know of its provider."""

from __future__ import annotations

import ssl
from collections.abc import Callable
from dataclasses import dataclass, field

from libs.smpp.pdus import BindType


@dataclass(frozen=True, kw_only=True)
class SessionConfig:
    """One bind. Whoever reads the values bounds them: port and window are 1 or more, times above 0."""

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
    tls: Callable[[], ssl.SSLContext] | None = field(default=None, repr=False)
    """Called for each bind, in a thread. None: not encrypted."""
