"""What an SMSC brings: every way in which a deliver can come out."""

import struct
from functools import partial

import pytest

from libs.smpp import pdus
from libs.smpp.delivers import Delivers
from libs.smpp.pdus import Pdu, SubmitSm
from libs.smpp.status import CommandStatus
from tests.libs.smpp.scripted_smsc import Connection, scripted_smsc
from tests.libs.smpp.session_owner import ANSWERED, bound, deliver, silent, submissions
from tests.waiting import until


async def test_delivers_are_answered_after_their_handler_in_order_and_hold_up_no_response() -> None:
    async with scripted_smsc(silent) as smsc, bound(smsc) as (owner, session, connection):
        owner.may_deliver.clear()
        session.submit_many(submissions("a"))
        for number in range(3):
            connection.send(100 + number, deliver(number))
        await until(lambda: owner.delivered)
        connection.send(2, pdus.SubmitSmResp(0, "x"))
        await until(lambda: owner.kinds == {"a": ANSWERED})
        assert connection.statuses(pdus.DeliverSmResp) == []
        owner.may_deliver.set()
        await until(lambda: len(connection.statuses(pdus.DeliverSmResp)) == 3)
        assert connection.statuses(pdus.DeliverSmResp) == [(100, 0), (101, 0), (102, 0)]
        assert [pdu for batch in owner.delivered for pdu in batch] == [deliver(n) for n in range(3)]


async def test_a_failing_handler_makes_the_smsc_send_again() -> None:
    async with scripted_smsc() as smsc, bound(smsc) as (owner, session, connection):
        owner.deliver_error = RuntimeError("Kafka is away")
        connection.send(100, deliver(0))
        connection.send(101, pdus.DataSm("254711000001", "Postrider"))
        await until(lambda: connection.statuses(pdus.DeliverSmResp) and connection.statuses(pdus.DataSmResp))
        assert connection.statuses(pdus.DeliverSmResp) == [(100, CommandStatus.ESME_RX_T_APPN)]
        assert connection.statuses(pdus.DataSmResp) == [(101, CommandStatus.ESME_RX_T_APPN)]
        owner.deliver_error = None
        connection.send(102, deliver(0))
        await until(lambda: (102, 0) in connection.statuses(pdus.DeliverSmResp))
        assert session.bound


async def test_a_flood_of_delivers_is_bounded_and_the_surplus_comes_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("libs.smpp.session.Delivers", partial(Delivers, limit=2, batch=1))
    async with scripted_smsc() as smsc, bound(smsc) as (owner, _, connection):
        owner.may_deliver.clear()
        connection.send(100, deliver(0))
        await until(lambda: owner.delivered)
        for number in range(1, 5):
            connection.send(100 + number, deliver(number))
        await until(lambda: len(connection.statuses(pdus.DeliverSmResp)) == 2)
        temporary = CommandStatus.ESME_RX_T_APPN
        assert connection.statuses(pdus.DeliverSmResp) == [(103, temporary), (104, temporary)]
        owner.may_deliver.set()
        await until(lambda: len(connection.statuses(pdus.DeliverSmResp)) == 5)
        assert connection.statuses(pdus.DeliverSmResp)[2:] == [(100, 0), (101, 0), (102, 0)]
        assert all(len(batch) == 1 for batch in owner.delivered)


async def test_requests_that_cannot_be_read_are_refused_and_the_session_goes_on() -> None:
    async with scripted_smsc() as smsc, bound(smsc) as (owner, session, connection):
        connection.transport.write(struct.pack(">IIII", 20, 5, 0, 31) + b"\0\0\0x")
        connection.transport.write(struct.pack(">IIII", 20, 0x103, 0, 30) + b"\0\0\0x")
        connection.transport.write(struct.pack(">IIII", 16, 0x102, 0, 32))
        connection.send(33, SubmitSm("1", "2"))
        await until(lambda: len(connection.of(pdus.GenericNack)) == 2)
        assert connection.statuses(pdus.DeliverSmResp) == [(31, CommandStatus.ESME_RINVCMDLEN)]
        assert connection.statuses(pdus.DataSmResp) == [(30, CommandStatus.ESME_RINVCMDLEN)]
        assert connection.of(pdus.GenericNack) == [32, 33]
        assert session.bound
        assert owner.delivered == []


async def test_a_deliver_before_the_bind_is_refused() -> None:
    def hasty(connection: Connection, sequence: int, pdu: Pdu) -> bool:
        if isinstance(pdu, pdus.Bind):
            connection.send(100, deliver(0))
            connection.send(sequence, pdus.BindResp(pdu.bind_type))
            connection.send(101, deliver(1))
        return isinstance(pdu, pdus.Bind)

    async with scripted_smsc(hasty) as smsc, bound(smsc) as (owner, _, connection):
        await until(lambda: len(connection.statuses(pdus.DeliverSmResp)) == 2)
        assert connection.statuses(pdus.DeliverSmResp) == [(100, CommandStatus.ESME_RINVBNDSTS), (101, 0)]
        assert owner.delivered == [[deliver(1)]]
