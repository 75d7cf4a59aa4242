"""From a configuration to a bound session."""

from __future__ import annotations

import asyncio

from libs.smpp.config import SessionConfig
from libs.smpp.delivers import OnDeliver
from libs.smpp.errors import BindError
from libs.smpp.session import Session
from libs.smpp.submission import OnAnswers


async def open_session(config: SessionConfig, on_answers: OnAnswers, on_deliver: OnDeliver) -> Session:
    """Connect and bind within the configured time. BindError says in words why it did not work."""
    loop = asyncio.get_running_loop()
    session = Session(config, on_answers, on_deliver)
    try:
        async with asyncio.timeout(config.bind_timeout_seconds):
            await loop.create_connection(lambda: session, config.host, config.port, ssl=config.tls)
            await session.bind()
    except TimeoutError:
        session.end("no answer to the bind", cut=True)
        raise BindError(f"no answer to the bind within {config.bind_timeout_seconds:g} s") from None
    except OSError as error:
        session.end("no connection", cut=True)
        raise BindError(f"no connection to the provider: {error}") from error
    except BaseException:
        session.end("the bind failed", cut=True)
        raise
    return session
