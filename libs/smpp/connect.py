"""From a configuration to a bound session."""

from __future__ import annotations

import asyncio
import ssl
from socket import SOCK_STREAM

from aiohappyeyeballs import start_connection  # pyright: ignore[reportUnknownVariableType]

from libs.smpp.config import SessionConfig
from libs.smpp.delivers import OnDeliver
from libs.smpp.errors import BindError
from libs.smpp.session import Session
from libs.smpp.submission import OnAnswers

BIND_SECONDS = 10.0
"""How long connecting, the TLS handshake and the bind may take together."""
NEXT_ADDRESS_SECONDS = 0.25
"""How long one address of a name may take before the next is tried beside it (RFC 8305 §5)."""


async def open_session(config: SessionConfig, on_answers: OnAnswers, on_deliver: OnDeliver) -> Session:
    """Connect and bind within `BIND_SECONDS`. BindError says in words why it did not work."""
    loop = asyncio.get_running_loop()
    session = Session(config, on_answers, on_deliver)
    try:
        async with asyncio.timeout(BIND_SECONDS):
            tls = await _tls(config)
            addresses = await loop.getaddrinfo(config.host, config.port, type=SOCK_STREAM)
            # asyncio, like uvloop, waits for the first of a name's addresses for as long as there is time, and one may be dead.
            connected = await start_connection(addresses, happy_eyeballs_delay=NEXT_ADDRESS_SECONDS)
            host = config.host if tls else None
            await loop.create_connection(lambda: session, sock=connected, ssl=tls, server_hostname=host)
            await session.bind()
    except TimeoutError:
        session.end("no answer to the bind", cut=True)
        raise BindError(f"no answer to the bind within {BIND_SECONDS:g} s") from None
    except OSError as error:
        session.end("no connection", cut=True)
        # One of the frames that its traceback holds, ours with the TLS context among them, may hold the error.
        raise BindError(f"no connection to the provider: {error}") from error.with_traceback(None)
    except BaseException:
        session.end("the bind failed", cut=True)
        raise
    return session


async def _tls(config: SessionConfig) -> ssl.SSLContext | None:
    """Made for each bind, since the file of authorities may have been replaced; in a thread, since it takes long to read the system's."""
    if config.tls is None:
        return None
    try:
        return await asyncio.to_thread(config.tls)
    except OSError as error:
        raise BindError(f"the trusted certificates can't be read: {error}") from error
