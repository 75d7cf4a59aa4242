"""The scheduler as the process that it is, and what goes in and comes out of it on Kafka."""

from __future__ import annotations

from typing import Any, ClassVar

import aiohttp
from aiokafka.structs import ConsumerRecord

from libs.bus.codec import decoder, encode
from libs.bus.port import Outgoing
from libs.contracts import topics
from libs.contracts.events import MessageEvent, SmsCommand, SmsDeferred, person_key
from services.scheduler.main import CONSUMED
from tests.services.program import ServiceProgram
from tests.services.traffic import ServiceTraffic

OUT = (topics.RETURNED_HIGH, topics.RETURNED, topics.STATUS)


class Program(ServiceProgram):
    """The scheduler."""

    SERVICE = "scheduler"
    ENVIRONMENT: ClassVar[dict[str, str]] = {"SCHEDULER_LEASE_SECONDS": "1"}

    async def metric(self, name: str) -> float:
        """The value of a metric, whose name is with its labels; 0 while it has none."""
        async with (
            aiohttp.ClientSession() as session,
            session.get(f"http://127.0.0.1:{self.port}/metrics") as response,
        ):
            lines = (await response.text()).splitlines()
        return next((float(line.split()[1]) for line in lines if line.startswith(f"{name} ")), 0.0)


class HeldBack(Program):
    """With room for ten before the resolver, and so slow that each leaves alone."""

    ENVIRONMENT: ClassVar[dict[str, str]] = {"SCHEDULER_WAITING_RECORDS": "10", "SCHEDULER_ROWS_PER_SECOND": "19"}


class Traffic(ServiceTraffic):
    READ = CONSUMED
    WRITTEN = OUT

    async def say(self, *events: MessageEvent[SmsDeferred] | MessageEvent[SmsCommand]) -> None:
        await self.producer.publish_many([_outgoing(event) for event in events])

    def about(self, *causes: MessageEvent[Any]) -> list[tuple[ConsumerRecord, MessageEvent[Any]]]:
        """What was said of these messages, duplicates included, in the order of each partition."""
        read = {topic.name: decoder(topic) for topic in OUT}
        subjects = {cause.subject for cause in causes}
        events = [(r, read[r.topic](r.value)) for r in self.records if r.topic in read]
        return [(r, e) for r, e in events if e.subject in subjects]


def _outgoing(event: MessageEvent[SmsDeferred] | MessageEvent[SmsCommand]) -> Outgoing:
    data = event.data
    if isinstance(data, SmsDeferred):
        topic = topics.deferred(data.message.priority)
        return Outgoing(topic.name, person_key(data.message.tenant, data.message.recipient), encode(event))
    return Outgoing(topics.COMMANDS.name, person_key(data.tenant, data.recipient), encode(event))
