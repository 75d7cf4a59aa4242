from __future__ import annotations

import json
from typing import Any

import pytest

from libs.smpp import tlv
from libs.smpp.pdus import BindType, DeliverSm
from libs.smpp.receipt import MessageState, read_receipt
from libs.sms_text.parts import decode_text, read_part
from services.simulated_carrier.behaviour import Behaviour
from services.simulated_carrier.clock import clock_us
from tests.services.simulated_carrier.conftest import RunningCarrier, StartCarrier
from tests.services.simulated_carrier.raw_client import sms
from tests.waiting import until


async def test_behaviour_is_shown_set_changed_and_reset(start_carrier: StartCarrier) -> None:
    initial = Behaviour().with_fields({"receipts": {"delay_ms": 100}})
    carrier = await start_carrier(behaviour=initial)
    assert await carrier.get("/behaviour") == initial.model_dump()
    async with carrier.http.patch("/behaviour", json={"receipts": {"copies": 2}}) as response:
        changed = await response.json()
    assert (changed["receipts"]["delay_ms"], changed["receipts"]["copies"]) == (100, 2)
    async with carrier.http.put("/behaviour", json={"receipts": {"copies": 3}}) as response:
        replaced = await response.json()
    assert (replaced["receipts"]["delay_ms"], replaced["receipts"]["copies"]) == (0, 3)
    async with carrier.http.delete("/behaviour") as response:
        assert await response.json() == initial.model_dump()


async def test_a_patch_replaces_a_table_as_a_whole(carrier: RunningCarrier) -> None:
    await carrier.steer(receipts={"outcomes": {"UNDELIV": 1}})
    assert (await carrier.get("/behaviour"))["receipts"]["outcomes"] == {"UNDELIV": 1}


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "field"),
    [
        ("PATCH", "/behaviour", '{"receipts": {"delay_ms": -1}}', 400, "receipts.delay_ms"),
        ("PUT", "/behaviour", '{"receipts": {"delay": 1}}', 400, "receipts.delay"),
        ("PUT", "/behaviour", "[]", 400, ""),
        ("PUT", "/behaviour", "{", 400, ""),
        ("POST", "/actions/drop-sessions", '{"reset": "yes"}', 400, "reset"),
        ("POST", "/actions/mobile-originated", '{"source": "1", "destination": "2", "text": "x"}', 400, "system_id"),
        ("POST", "/actions/receipt", "{}", 400, "provider_id"),
        ("POST", "/actions/receipt", '{"provider_id": "404"}', 404, "provider_id"),
        ("GET", "/ledger?after=-1", "", 400, "after"),
        ("GET", "/ledger?from=1", "", 400, "from"),
        ("GET", "/stats/seconds?minutes=0", "", 400, "minutes"),
    ],
)
async def test_a_bad_request_names_the_field(
    carrier: RunningCarrier, method: str, path: str, body: str, status: int, field: str
) -> None:
    async with carrier.http.request(method, path, data=body) as response:
        assert response.status == status
        (error,) = (await response.json())["errors"]
    assert error["field"] == field
    assert error["problem"]
    assert await carrier.get("/behaviour") == Behaviour().model_dump()


async def test_the_ledger_is_read_from_an_offset_and_up_to_a_limit(carrier: RunningCarrier) -> None:
    client = await carrier.bound()
    for _ in range(5):
        await client.submit(sms())

    async def sequences(query: str) -> list[int]:
        async with carrier.http.get(f"/ledger{query}") as response:
            return [json.loads(line)["sequence"] for line in (await response.text()).splitlines()]

    assert await sequences("") == [1, 2, 3, 4, 5]
    assert await sequences("?after=2") == [3, 4, 5]
    assert await sequences("?after=2&limit=2") == [3, 4]
    assert await sequences("?after=5") == []
    async with carrier.http.delete("/ledger") as response:
        assert await response.json() == {"next_sequence": 6}
    assert await sequences("") == []
    await client.submit(sms())
    assert await sequences("") == [6]


async def test_statistics_count_and_begin_anew(carrier: RunningCarrier) -> None:
    await carrier.steer(refusals={"next": 1})
    client = await carrier.bound()
    for _ in range(3):
        await client.submit(sms())
    for _ in range(2):
        await client.take_delivery()
    await until(lambda: carrier.carrier.statistics.deliveries_acknowledged == 2)
    counts = await carrier.get("/stats")
    assert (counts["accepted"], counts["refused"], counts["receipts_made"]) == (2, {"ESME_RSYSERR": 1}, 2)
    seconds = (await carrier.get("/stats/seconds?minutes=5"))["seconds"]
    assert sum(second["received"] for second in seconds) == 3
    assert sum(second["accepted"] for second in seconds) == 2
    assert {entry.received_at // 1_000_000 for entry in carrier.entries()} == {second["second"] for second in seconds}
    async with carrier.http.delete("/stats") as response:
        assert response.status == 204
    counts = await carrier.get("/stats")
    assert (counts["accepted"], counts["refused"], counts["next_sequence"]) == (0, {}, 4)
    assert (await carrier.get("/sessions"))["system_ids"]["demo"]["most_bound_at_once"] == 1
    await client.submit(sms())
    assert (await carrier.get("/stats"))["accepted"] == 1


async def test_arrivals_are_kept_for_an_hour_and_shown_as_far_back_as_asked(carrier: RunningCarrier) -> None:
    now = clock_us()
    for ago in range(4_000, -1, -1):
        carrier.carrier.statistics.count_arrivals(now - ago * 1_000_000, 1, 1)
    assert len(carrier.carrier.statistics.arrivals) == 3_600
    shown = [second["second"] for second in (await carrier.get("/stats/seconds?minutes=5"))["seconds"]]
    assert now // 1_000_000 - 300 <= min(shown) < max(shown) == now // 1_000_000


async def _originate(carrier: RunningCarrier, **message: Any) -> int:
    body = {"system_id": "demo", "source": "491701", "destination": "3000", **message}
    async with carrier.http.post("/actions/mobile-originated", json=body) as response:
        assert response.status == 202, await response.text()
        return (await response.json())["parts"]


@pytest.mark.parametrize("text", ["STOP", "Ж" * 71, "€" * 200])
@pytest.mark.parametrize("concatenation", ["udh", "sar", "payload"])
async def test_a_text_from_a_handset_comes_in_as_many_parts_as_it_takes(
    carrier: RunningCarrier, text: str, concatenation: str
) -> None:
    client = await carrier.bound()
    count = await _originate(carrier, text=text, concatenation=concatenation, reference=0x1234)
    deliveries = [await client.take_delivery() for _ in range(count)]
    assert {(d.source_addr, d.destination_addr, d.data_coding) for d in deliveries} == {
        ("491701", "3000", 8 if "Ж" in text else 0)
    }
    if concatenation == "payload":
        assert (count, deliveries[0].short_message, deliveries[0].esm_class) == (1, b"", 0)
        assert decode_text(deliveries[0].tlvs[tlv.MESSAGE_PAYLOAD], deliveries[0].data_coding) == text
        return
    parts = [read_part(delivery.short_message, delivery.esm_class) for delivery in deliveries]
    assert decode_text(b"".join(part.octets for part in parts), deliveries[0].data_coding) == text
    if count > 1 and concatenation == "udh":
        assert [(part.reference, part.number, part.total) for part in parts] == [
            (0x1234, number, count) for number in range(1, count + 1)
        ]
    elif count > 1:
        assert [delivery.tlvs for delivery in deliveries] == [
            {
                tlv.SAR_MSG_REF_NUM: b"\x12\x34",
                tlv.SAR_TOTAL_SEGMENTS: bytes([count]),
                tlv.SAR_SEGMENT_SEQNUM: bytes([number]),
            }
            for number in range(1, count + 1)
        ]


async def test_octets_from_a_handset_come_as_they_are_when_someone_receives(carrier: RunningCarrier) -> None:
    assert await _originate(carrier, hex="00ff80", data_coding=0xF5) == 1
    assert await _originate(carrier, hex="42" * 140) == 1
    assert await _originate(carrier, hex="41" * 200) == 2
    client = await carrier.bound("demo", BindType.RECEIVER)
    single = await client.take_delivery()
    assert (single.short_message, single.data_coding, single.esm_class) == (b"\x00\xff\x80", 0xF5, 0)
    assert (await client.take_delivery()).short_message == b"B" * 140
    parts = [await client.take_delivery() for _ in range(2)]
    assert b"".join(read_part(part.short_message, part.esm_class).octets for part in parts) == b"A" * 200


@pytest.mark.parametrize(
    ("content", "field"),
    [
        ({}, ""),
        ({"text": "a", "hex": "61"}, ""),
        ({"hex": "6"}, "hex"),
        ({"text": "a" * 50_000}, "text"),
        ({"text": "a", "reference": 65_536}, "reference"),
    ],
)
async def test_a_message_from_a_handset_needs_one_content_that_fits(
    carrier: RunningCarrier, content: dict[str, object], field: str
) -> None:
    body = {"system_id": "demo", "source": "491701", "destination": "3000", **content}
    async with carrier.http.post("/actions/mobile-originated", json=body) as response:
        assert response.status == 400
        assert [error["field"] for error in (await response.json())["errors"]] == [field]


async def _order_receipt(carrier: RunningCarrier, **order: object) -> Any:
    async with carrier.http.post("/actions/receipt", json=order) as response:
        assert response.status == 202, await response.text()
        return await response.json()


async def test_a_receipt_is_made_by_hand_for_a_message_of_the_ledger(carrier: RunningCarrier) -> None:
    await carrier.steer(receipts={"id_format": "hex"})
    client = await carrier.bound()
    response = await client.submit(sms(registered_delivery=0, tlvs={tlv.USER_MESSAGE_REFERENCE: b"\0\7"}))
    await client.submit(sms(registered_delivery=0))
    assert await _order_receipt(carrier, provider_id=response.message_id, state="EXPIRED") == {"known": True}
    delivery = await client.take_delivery()
    receipt = read_receipt(delivery)
    assert receipt is not None
    assert (int(receipt.message_id, 16), receipt.state) == (int(response.message_id), MessageState.EXPIRED)
    assert (delivery.source_addr, delivery.destination_addr) == ("4917012345678", "bank")
    assert delivery.tlvs[tlv.USER_MESSAGE_REFERENCE] == b"\0\7"


async def test_a_receipt_is_made_by_hand_for_a_message_that_never_was(carrier: RunningCarrier) -> None:
    client = await carrier.bound()
    ends = {"system_id": "demo", "source": "bank", "destination": "49170"}
    assert await _order_receipt(carrier, provider_id="nobody-knows", text="id:x stat:WHAT", **ends) == {"known": False}
    delivery: DeliverSm = await client.take_delivery()
    assert delivery.short_message == b"id:x stat:WHAT"
    assert delivery.tlvs[tlv.RECEIPTED_MESSAGE_ID] == b"nobody-knows\0"
    assert (delivery.source_addr, delivery.destination_addr) == ("49170", "bank")


async def test_health_tells_whether_smpp_is_served(carrier: RunningCarrier) -> None:
    assert await carrier.get("/health/live") == {"status": "live"}
    assert await carrier.get("/health/ready") == {"status": "ready"}
    await carrier.carrier.stop()
    async with carrier.http.get("/health/ready") as response:
        assert (response.status, (await response.json())["missing"]) == (503, ["smpp listener"])
