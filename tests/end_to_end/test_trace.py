"""A message's trace begins with its caller and goes through every hop, the carrier's receipt included."""

import json
from collections.abc import Sequence
from typing import ClassVar

from deploy.local.stack import Stack
from libs.contracts import topics
from libs.contracts.topics import Topic
from tests.end_to_end.client import Api
from tests.services.traffic import ServiceTraffic
from tests.waiting import until

CLIENT, PHONE = "trace-1", "+254700000081"
TRACE_ID = "ab" * 16
HOPS = {"requested", "dispatch", "submitted", "delivered"}


class Traffic(ServiceTraffic):
    READ: ClassVar[Sequence[Topic]] = ()
    WRITTEN = (topics.REQUESTED, topics.dispatch("demo"), topics.STATUS)

    def trace_ids(self, message_id: str) -> dict[str, str]:
        """By status, or by kind of event where it has none."""
        values = [record.value for record in self.records if message_id.encode() in (record.value or b"")]
        return {
            event["data"].get("status") or event["type"].split(".")[2]: event["traceparent"][3:35]
            for event in map(json.loads, filter(None, values))
            if event["subject"] == message_id
        }


async def test_every_hop_of_a_message_is_in_its_callers_trace(stack: Stack, api: Api) -> None:
    await api.put_client(CLIENT, PHONE)
    traffic = Traffic(stack.kafka)
    await traffic.start()
    try:
        body = {"clientId": CLIENT, "message": "Which way?"}
        status, sms = await api.call("POST", "/sms", body, traceparent=f"00-{TRACE_ID}-{'cd' * 8}-01")
        assert status == 202, sms

        async def told() -> bool:
            return traffic.trace_ids(sms["id"]).keys() >= HOPS

        await until(told, "it is delivered", within=30)
        assert traffic.trace_ids(sms["id"]) == dict.fromkeys(HOPS, TRACE_ID)
    finally:
        await traffic.stop()
