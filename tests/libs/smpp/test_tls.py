"""TLS: verified by default, against the host's name and the authority that is trusted."""

import ssl
from functools import partial
from pathlib import Path

import pytest

from libs.service_kit.tls import tls_context
from libs.smpp.connect import open_session
from libs.smpp.delivers import Deliver
from libs.smpp.errors import BindError
from libs.smpp.submission import Answer
from tests.certificates import made_certificate, needs_openssl
from tests.libs.smpp.scripted_smsc import scripted_smsc

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
