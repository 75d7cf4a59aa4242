"""The driver's binds, as the SMSC sees them."""

from typing import cast

import pytest

from libs.service_kit.config_file import SmppGateway
from libs.smpp import pdus
from libs.smpp.pdus import BindType
from services.dispatcher.drivers.port import Callbacks, Submission, Verdict
from services.dispatcher.drivers.smpp import SmppDriver
from tests.libs.smpp.scripted_smsc import Connection, ScriptedSmsc, scripted_smsc
from tests.services.dispatcher.builders import dispatch_event
from tests.services.dispatcher.test_smpp_driver import Ground, bound
from tests.waiting import until


def bind_of(connection: Connection) -> pdus.Bind:
    return cast(pdus.Bind, connection.received[0][1])


async def connection_of(smsc: ScriptedSmsc, bind_type: BindType) -> Connection:
    """The connection whose bind is of this type."""
    found: list[Connection] = []

    def there() -> bool:
        found[:] = [c for c in smsc.connections if c.received and bind_of(c).bind_type is bind_type]
        return bool(found)

    await until(there, bind_type.name)
    return found[0]


async def test_a_transmitter_and_a_receiver_are_both_needed_and_both_given_back() -> None:
    late = [BindType.RECEIVER]

    def script(_: Connection, __: int, pdu: pdus.Pdu) -> bool:
        return isinstance(pdu, pdus.Bind) and pdu.bind_type in late

    ground = Ground()
    changes: list[str | None] = []
    async with scripted_smsc(script) as smsc:
        gateway = SmppGateway(
            id="demo",
            type="smpp",
            host="127.0.0.1",
            port=smsc.port,
            system_id="demo",
            bind_type="transmitter_and_receiver",
            binds_allowed=2,
        )
        callbacks = Callbacks(ground.results.extend, ground.take, lambda: changes.append(driver.missing))
        driver = SmppDriver(gateway, callbacks)
        driver.start()
        sending, receiving = [await connection_of(smsc, t) for t in (BindType.TRANSMITTER, BindType.RECEIVER)]
        await until(lambda: driver.free)
        assert (driver.missing or "").startswith("binding"), "nobody would take receipts"
        late.clear()
        receiving.answer(*receiving.received[0])
        await until(lambda: driver.missing is None)
        assert changes[-1] is None, "it is told of"
        driver.submit([Submission("token", dispatch_event().data, 1, 7, 8)])
        await until(lambda: sending.of(pdus.SubmitSm))
        receiving.send(1, pdus.DeliverSm("254711000001", "demo", b"hello"))
        await until(lambda: ground.reports)
        await driver.stop(1)
    assert (changes[-1] or "").startswith("unbound")
    assert (len(sending.of(pdus.Unbind)), len(receiving.of(pdus.Unbind))) == (1, 1)
    assert not receiving.of(pdus.SubmitSm)


@pytest.mark.parametrize(
    ("dialect", "bind_type"),
    [({}, BindType.TRANSCEIVER), ({"bindType": "transmitter", "receipts": "none"}, BindType.TRANSMITTER)],
)
async def test_a_bind_is_of_the_type_that_is_configured(dialect: dict[str, object], bind_type: BindType) -> None:
    async with bound(**dialect) as ground:
        assert bind_of(ground.smsc).bind_type is bind_type


async def test_a_bind_says_who_it_is_and_what_it_serves_as_configured() -> None:
    async with bound(password="secret", systemType="SMS", addressTon=1, addressNpi=9, addressRange="^2547") as ground:
        bind = bind_of(ground.smsc)
    assert (bind.system_id, bind.password, bind.system_type) == ("demo", "secret", "SMS")
    assert (bind.addr_ton, bind.addr_npi, bind.address_range) == (1, 9, "^2547")


async def test_the_window_and_the_time_between_enquiries_are_as_configured() -> None:
    async with bound(window=3, enquireLinkSeconds=0.1) as ground:
        assert ground.driver.free == 3
        await until(lambda: ground.smsc.of(pdus.EnquireLink), within=10)


async def test_what_the_carrier_leaves_unanswered_for_as_long_as_is_configured_may_have_been_accepted() -> None:
    def silent(_: Connection, __: int, pdu: pdus.Pdu) -> bool:
        return isinstance(pdu, pdus.SubmitSm)

    async with bound(silent, responseTimeoutSeconds=0.1) as ground:
        ground.driver.submit([Submission("token", dispatch_event().data, 1, 7, 8)])
        await until(lambda: ground.results, within=8)  # unconfigured it is 10
        assert [(r.verdict, r.code) for r in ground.results] == [(Verdict.NO_ANSWER, "smpp.timed_out")]
