from __future__ import annotations

import pytest

from libs.smpp import tlv
from libs.smpp.pdus import BindType, DeliverSm, DeliverSmResp, GenericNack, SubmitSmResp
from libs.smpp.receipt import ESM_CLASS_INTERMEDIATE, ESM_CLASS_RECEIPT, MessageState, read_receipt
from libs.smpp.status import CommandStatus
from tests.services.simulated_carrier.conftest import RunningCarrier
from tests.services.simulated_carrier.raw_client import sms
from tests.waiting import until


async def test_a_receipt_follows_the_response(carrier: RunningCarrier) -> None:
    client = await carrier.bound()
    client.send(sms(source_addr_ton=5, dest_addr_ton=1, dest_addr_npi=1))
    delivery = await client.take_delivery()
    _, response = await client.receive(SubmitSmResp)
    receipt = read_receipt(delivery)
    assert receipt is not None
    assert (receipt.message_id, receipt.state) == (response.message_id, MessageState.DELIVERED)
    assert (delivery.source_addr, delivery.destination_addr) == ("4917012345678", "bank")
    assert (delivery.source_addr_ton, delivery.source_addr_npi, delivery.dest_addr_ton) == (1, 1, 5)
    assert len(receipt.done_date) == len("2611200102")
    await until(lambda: carrier.carrier.statistics.deliveries_acknowledged == 1)


@pytest.mark.parametrize("delay_ms", [0, 1])
async def test_the_response_comes_before_the_receipt_unless_it_shall_not(
    carrier: RunningCarrier, delay_ms: int
) -> None:
    client = await carrier.bound()
    for before, first in ((False, SubmitSmResp), (True, DeliverSm)):
        await carrier.steer(receipts={"before_response": before, "delay_ms": delay_ms}, responses={"delay_ms": 100})
        client.inbox.clear()
        client.send(sms())
        await until(lambda: len(client.inbox) >= 2)
        assert type(client.inbox[0][1]) is first


async def test_a_receipt_is_late_by_its_delay_and_none_comes_when_they_are_off(carrier: RunningCarrier) -> None:
    client = await carrier.bound()
    await carrier.steer(receipts={"delay_ms": 60_000})
    await client.submit(sms())
    assert await client.is_quiet(DeliverSm)
    assert (await carrier.get("/stats"))["due_later"] == 1
    await carrier.steer(receipts={"delay_ms": 30})
    await client.submit(sms())
    await client.take_delivery()
    await carrier.steer(receipts={"enabled": False, "delay_ms": 0})
    await client.submit(sms())
    assert await client.is_quiet(DeliverSm)


@pytest.mark.parametrize(
    ("registered_delivery", "outcome", "comes"),
    [
        (0, "DELIVRD", False),
        (1, "DELIVRD", True),
        (2, "DELIVRD", False),
        (2, "UNDELIV", True),
        (3, "DELIVRD", True),
        (3, "UNDELIV", False),
    ],
)
async def test_receipts_go_by_registered_delivery(
    carrier: RunningCarrier, registered_delivery: int, outcome: str, comes: bool
) -> None:
    await carrier.steer(receipts={"outcomes": {outcome: 1}})
    client = await carrier.bound()
    await client.submit(sms(registered_delivery=registered_delivery))
    assert await client.is_quiet(DeliverSm) is not comes


@pytest.mark.parametrize("registered_delivery", [2, 3])
async def test_who_asks_for_one_end_alone_is_told_of_nothing_before_it(
    carrier: RunningCarrier, registered_delivery: int
) -> None:
    outcome = "UNDELIV" if registered_delivery == 2 else "DELIVRD"
    await carrier.steer(receipts={"outcomes": {outcome: 1}, "intermediate": ["ENROUTE"]})
    client = await carrier.bound()
    await client.submit(sms(registered_delivery=registered_delivery))
    assert (await client.take_delivery()).esm_class == ESM_CLASS_RECEIPT
    assert await client.is_quiet(DeliverSm)


async def test_intermediate_and_duplicate_receipts_come_in_order(carrier: RunningCarrier) -> None:
    await carrier.steer(receipts={"intermediate": ["ACCEPTD", "ENROUTE"], "copies": 2})
    client = await carrier.bound()
    await client.submit(sms())
    deliveries = [await client.take_delivery() for _ in range(4)]
    assert [delivery.tlvs[tlv.MESSAGE_STATE] for delivery in deliveries] == [b"\6", b"\1", b"\2", b"\2"]
    kinds = [delivery.esm_class for delivery in deliveries]
    assert kinds == [ESM_CLASS_INTERMEDIATE] * 2 + [ESM_CLASS_RECEIPT] * 2


async def test_receipts_are_held_until_someone_receives(carrier: RunningCarrier) -> None:
    transmitter = await carrier.bound("demo", BindType.TRANSMITTER)
    await carrier.bound("other")
    responses = [await transmitter.submit(sms()) for _ in range(3)]
    assert (await carrier.get("/stats"))["deliveries_held"] == 3
    receiver = await carrier.bound("demo", BindType.RECEIVER)
    ids = [_id(await receiver.take_delivery()) for _ in range(3)]
    assert ids == [response.message_id for response in responses]
    assert await transmitter.is_quiet(DeliverSm)


@pytest.mark.parametrize("answer", [DeliverSmResp(CommandStatus.ESME_RX_T_APPN), GenericNack(0x08)])
async def test_a_refused_receipt_comes_again(carrier: RunningCarrier, answer: DeliverSmResp | GenericNack) -> None:
    await carrier.steer(deliveries={"retry_ms": 20})
    client = await carrier.bound()
    await client.submit(sms())
    sequence, first = await client.receive(DeliverSm)
    client.transport.write(answer.encode(sequence))
    assert await client.take_delivery() == first
    await until(lambda: carrier.carrier.statistics.deliveries_acknowledged == 1)
    assert await client.is_quiet(DeliverSm)


async def test_an_unanswered_receipt_comes_again_and_its_late_answer_is_ignored(carrier: RunningCarrier) -> None:
    await carrier.steer(deliveries={"response_timeout_ms": 50})
    client = await carrier.bound()
    await client.submit(sms())
    late_sequence, first = await client.receive(DeliverSm)
    sequence, second = await client.receive(DeliverSm)
    assert (second, sequence != late_sequence) == (first, True)
    client.transport.write(DeliverSmResp().encode(late_sequence))
    await client.is_quiet(DeliverSm)
    assert carrier.carrier.statistics.deliveries_acknowledged == 0
    assert carrier.carrier.statistics.deliveries_unanswered >= 1


async def test_what_a_lost_session_did_not_answer_goes_to_the_next_in_order(carrier: RunningCarrier) -> None:
    first = await carrier.bound()
    responses = [await first.submit(sms()) for _ in range(3)]
    assert _id(await first.take_delivery()) == responses[0].message_id
    await until(lambda: carrier.carrier.statistics.deliveries_acknowledged == 1)
    first.transport.abort()
    second = await carrier.bound()
    assert [_id(await second.take_delivery()) for _ in range(2)] == [r.message_id for r in responses[1:]]


async def test_a_session_gets_no_more_than_its_window(carrier: RunningCarrier) -> None:
    await carrier.steer(deliveries={"window": 2})
    client = await carrier.bound()
    client.send(*[sms() for _ in range(5)])
    received = [await client.receive(DeliverSm) for _ in range(2)]
    assert await client.is_quiet(DeliverSm)
    client.transport.write(DeliverSmResp().encode(received[0][0]))
    await client.receive(DeliverSm)
    assert await client.is_quiet(DeliverSm)


@pytest.mark.parametrize("window", [1, 500])
async def test_receipts_are_spread_over_the_sessions_of_a_system_id(carrier: RunningCarrier, window: int) -> None:
    await carrier.steer(deliveries={"window": window})
    clients = [await carrier.bound() for _ in range(2)]
    for _ in range(2):
        await clients[0].submit(sms())
    for client in clients:
        await client.take_delivery()


async def test_a_wider_window_is_filled_at_once(carrier: RunningCarrier) -> None:
    await carrier.steer(deliveries={"window": 1})
    client = await carrier.bound()
    await client.submit(sms())
    await client.submit(sms())
    await client.receive(DeliverSm)
    assert await client.is_quiet(DeliverSm)
    await carrier.steer(deliveries={"window": 2})
    await client.receive(DeliverSm)


@pytest.mark.parametrize(
    ("response_format", "receipt_format"),
    [("decimal", "hex"), ("hex", "decimal"), ("hex_padded_upper", "hex"), ("uuid", "uuid")],
)
async def test_ids_are_written_as_asked_in_responses_and_receipts(
    carrier: RunningCarrier, response_format: str, receipt_format: str
) -> None:
    await carrier.steer(responses={"id_format": response_format}, receipts={"id_format": receipt_format})
    client = await carrier.bound()
    written = (await client.submit(sms())).message_id
    reported = _id(await client.take_delivery())
    bases = {"decimal": 10, "hex": 16, "hex_padded_upper": 16}
    if response_format == "uuid":
        assert (written, len(written)) == (reported, 36)
    else:
        assert int(written, bases[response_format]) == int(reported, bases[receipt_format])
        assert written != reported
    assert [entry.provider_id for entry in carrier.entries()] == [written]


async def test_a_receipt_echoes_the_user_message_reference_unless_told_not_to(carrier: RunningCarrier) -> None:
    client = await carrier.bound()
    submit = sms(tlvs={tlv.USER_MESSAGE_REFERENCE: b"\x12\x34"})
    await client.submit(submit)
    assert (await client.take_delivery()).tlvs[tlv.USER_MESSAGE_REFERENCE] == b"\x12\x34"
    await carrier.steer(receipts={"echo_user_message_reference": False})
    await client.submit(submit)
    assert tlv.USER_MESSAGE_REFERENCE not in (await client.take_delivery()).tlvs
    assert [entry.user_message_reference for entry in carrier.entries()] == [0x1234] * 2


async def test_a_peer_that_does_not_read_holds_up_its_own_session_only(carrier: RunningCarrier) -> None:
    await carrier.steer(deliveries={"window": 100_000})
    deaf, other = await carrier.bound(), await carrier.bound("other")
    deaf.transport.pause_reading()
    for _ in range(40):
        deaf.send(*[sms(text=b"x" * 200) for _ in range(500)])
    assert (await other.submit(sms())).command_status == 0
    await other.take_delivery()
    deaf.transport.resume_reading()
    await until(lambda: sum(isinstance(pdu, DeliverSm) for _, pdu in deaf.inbox) == 20_000)


def _id(delivery: DeliverSm) -> str:
    receipt = read_receipt(delivery)
    assert receipt is not None
    return receipt.message_id
