"""TLS: verified by default, against the host's name and the authority that is trusted."""

import asyncio
import contextlib
import ssl
import weakref
from functools import partial
from pathlib import Path

import pytest
import uvloop

from deploy.local.ports import free_port
from libs.service_kit.tls import tls_context
from libs.smpp.connect import open_session
from libs.smpp.delivers import Deliver
from libs.smpp.errors import BindError
from libs.smpp.pdus import Bind, BindResp, Pdu
from libs.smpp.session import Session
from libs.smpp.status import CommandStatus
from libs.smpp.submission import Answer
from tests.certificates import made_certificate, needs_openssl
from tests.garbage import no_garbage_collection
from tests.libs.smpp.scripted_smsc import Connection, plainly, scripted_smsc
from tests.waiting import until

pytestmark = needs_openssl


def _ignore_answers(_answers: list[Answer]) -> None:
    pass


async def _ignore_delivers(_delivers: list[Deliver]) -> None:
    pass


async def test_a_certificate_of_a_trusted_authority_for_the_right_name_is_taken(tmp_path: Path) -> None:
    certificate, server = made_certificate(tmp_path, "IP:127.0.0.1")
    async with scripted_smsc(tls=server) as smsc:
        config = smsc.config(tls=partial(tls_context, certificate))
        session = await open_session(config, _ignore_answers, _ignore_delivers)
        assert session.bound
        await session.unbind(1.0)


async def test_a_certificate_of_nobody_we_trust_is_refused(tmp_path: Path) -> None:
    _, server = made_certificate(tmp_path, "IP:127.0.0.1")
    async with scripted_smsc(tls=server) as smsc:
        with pytest.raises(BindError, match="self-signed certificate"):
            await open_session(smsc.config(tls=tls_context), _ignore_answers, _ignore_delivers)


async def test_a_certificate_for_another_name_is_refused(tmp_path: Path) -> None:
    certificate, server = made_certificate(tmp_path, "IP:127.0.0.2")
    async with scripted_smsc(tls=server) as smsc:
        with pytest.raises(BindError, match="IP address mismatch"):
            await open_session(smsc.config(tls=partial(tls_context, certificate)), _ignore_answers, _ignore_delivers)


def test_old_versions_of_tls_are_not_spoken() -> None:
    context = tls_context()
    assert context.minimum_version is ssl.TLSVersion.TLSv1_2
    assert context.verify_mode is ssl.CERT_REQUIRED
    assert context.check_hostname


def _refusing(connection: Connection, sequence: int, pdu: Pdu) -> bool:
    if isinstance(pdu, Bind):
        connection.send(sequence, BindResp(pdu.bind_type, CommandStatus.ESME_RBINDFAIL, ""))
    return isinstance(pdu, Bind)


@pytest.mark.parametrize("way", ["lost", "refused", "not trusted", "nobody listens"])
def test_what_a_bind_took_is_given_back_at_its_end_and_waits_for_no_garbage_collection(
    way: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A context with the system's authorities has most of a megabyte, and few objects by which a collection would become due."""
    contexts: list[weakref.ref[ssl.SSLContext]] = []
    sessions: list[weakref.ref[Session]] = []
    certificate, server = made_certificate(tmp_path, "IP:127.0.0.1")

    def context() -> ssl.SSLContext:
        made = tls_context(None if way == "not trusted" else certificate)
        contexts.append(weakref.ref(made))
        return made

    def session(*arguments: object) -> Session:
        made = Session(*arguments)  # pyright: ignore[reportArgumentType]
        sessions.append(weakref.ref(made))
        return made

    async def bind_once() -> None:
        async with scripted_smsc(_refusing if way == "refused" else plainly, tls=server) as smsc:
            port = free_port() if way == "nobody listens" else smsc.port
            config = smsc.config(tls=context, port=port)
            with contextlib.suppress(BindError):
                bound = await open_session(config, _ignore_answers, _ignore_delivers)
                smsc.connections[0].transport.abort()
                await bound.wait_closed()
                del bound
            await until(lambda: all(kept() is None for kept in (*contexts, *sessions)))

    monkeypatch.setattr("libs.smpp.connect.Session", session)
    with no_garbage_collection(), asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(bind_once())
    assert len(contexts) == len(sessions) == 1
