"""The driver's trust in the SMSC, which may change while it runs."""

import shutil
from pathlib import Path

from libs.service_kit.config_file import SmppGateway
from services.dispatcher.drivers.port import Callbacks, Report
from services.dispatcher.drivers.smpp import SmppDriver
from tests.certificates import made_certificate, needs_openssl
from tests.libs.smpp.scripted_smsc import scripted_smsc
from tests.waiting import until

pytestmark = needs_openssl


async def test_a_replaced_file_of_authorities_is_read_at_the_next_bind(tmp_path: Path) -> None:
    old, new = tmp_path / "old", tmp_path / "new"
    for directory in (old, new):
        directory.mkdir()
    old_certificate, server = made_certificate(old, "IP:127.0.0.1")
    new_certificate, _ = made_certificate(new, "IP:127.0.0.1")
    trusted = Path(shutil.copy(old_certificate, tmp_path / "trusted.pem"))

    async def ignore(_: list[Report]) -> None:
        pass

    async with scripted_smsc(tls=server) as smsc:
        gateway = SmppGateway(
            type="smpp", id="demo", host="127.0.0.1", port=smsc.port, system_id="demo", tls=True, tls_ca_file=trusted
        )
        driver = SmppDriver(gateway, Callbacks(lambda _: None, ignore, lambda: None))
        driver.start()
        await until(lambda: driver.missing is None)
        server.load_cert_chain(new_certificate, new / "key.pem")
        smsc.connections[0].transport.abort()
        await until(lambda: "certificate verify failed" in (driver.missing or ""))
        trusted.unlink()
        await until(lambda: "can't be read: [Errno 2]" in (driver.missing or ""))
        shutil.copy(new_certificate, trusted)
        await until(lambda: driver.missing is None)
        await driver.stop(1)


async def test_without_such_a_file_the_systems_authorities_are_trusted(tmp_path: Path) -> None:
    async def ignore(_: list[Report]) -> None:
        pass

    _, server = made_certificate(tmp_path, "IP:127.0.0.1")
    async with scripted_smsc(tls=server) as smsc:
        gateway = SmppGateway(type="smpp", id="demo", host="127.0.0.1", port=smsc.port, system_id="demo", tls=True)
        driver = SmppDriver(gateway, Callbacks(lambda _: None, ignore, lambda: None))
        driver.start()
        await until(lambda: "certificate verify failed" in (driver.missing or ""))
        await driver.stop(1)
