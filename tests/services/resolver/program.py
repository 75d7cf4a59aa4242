"""The resolver as the process that it is, and what goes in and comes out of it on Kafka."""

from __future__ import annotations

from typing import Any, ClassVar

import aiohttp

from deploy.local.ports import free_port
from libs.bus.codec import decoder, encode
from libs.bus.port import Outgoing
from libs.contracts import topics
from libs.contracts.events import ContactChanged, Event, MessageEvent, SmsCommand, SmsRequested, SmsReturned, person_key
from libs.service_kit.internal import HEADER, TENANT_HEADER
from services.resolver.main import MESSAGES
from tests.services.program import TOKEN, ServiceProgram
from tests.services.traffic import ServiceTraffic
from tests.waiting import until

CONFIGURATION = """
gateways:
  - {id: spare, type: smpp, host: 127.0.0.1, port: 2776, systemId: spare, sourceAddress: OTHER}
  - {id: demo, type: smpp, host: 127.0.0.1, port: 2775, systemId: demo, sourceAddress: BANK}
defaultGateway: demo
defaultRegion: KE
"""
DISPATCHED = (topics.dispatch("demo"), topics.dispatch("demo", topics.Priority.HIGH))
OUT = (*DISPATCHED, topics.STATUS, topics.DEFERRED_HIGH, topics.DEFERRED)


class Program(ServiceProgram):
    """The resolver."""

    SERVICE = "resolver"
    CONFIGURATION = CONFIGURATION
    ENVIRONMENT: ClassVar[dict[str, str]] = {"PROJECTION_URL": f"http://127.0.0.1:{free_port()}"}

    async def http(self, method: str, path: str, body: object = None) -> tuple[int, Any]:
        url = f"http://127.0.0.1:{self.port}/internal/{path}"
        headers = {HEADER: TOKEN, TENANT_HEADER: "acme"}
        async with (
            aiohttp.ClientSession() as session,
            session.request(method, url, headers=headers, json=body) as response,
        ):
            return response.status, await response.json(content_type=None) if response.status != 204 else None


class Traffic(ServiceTraffic):
    READ = (*MESSAGES, topics.COMMANDS, topics.CONTACT_CHANGED)
    WRITTEN = OUT

    async def ask(self, *causes: MessageEvent[SmsRequested] | MessageEvent[SmsReturned]) -> None:
        await self.producer.publish_many([self._outgoing(cause) for cause in causes])

    def _outgoing(self, cause: MessageEvent[SmsRequested] | MessageEvent[SmsReturned]) -> Outgoing:
        message = cause.data.message
        back = isinstance(cause.data, SmsReturned)
        topic = (topics.returned if back else topics.requested)(message.priority)
        return Outgoing(topic.name, person_key(message.tenant, message.recipient), encode(cause))

    async def change(self, *changes: Event[ContactChanged]) -> None:
        records = [(person_key(c.data.tenant, c.data.recipient), encode(c)) for c in changes]
        await self.producer.publish(topics.CONTACT_CHANGED.name, records)

    async def command(self, *commands: MessageEvent[SmsCommand]) -> None:
        records = [(person_key(c.data.tenant, c.data.recipient), encode(c)) for c in commands]
        await self.producer.publish(topics.COMMANDS.name, records)

    def about(self, cause: MessageEvent[Any]) -> list[tuple[str, MessageEvent[Any]]]:
        """The events about a message, with their topics, duplicates included."""
        read = {topic.name: decoder(topic) for topic in OUT}
        events = [(r.topic, read[r.topic](r.value)) for r in self.records if r.topic in read]
        return [(topic, e) for topic, e in events if isinstance(e, MessageEvent) and e.subject == cause.subject]

    async def answer(self, cause: MessageEvent[Any]) -> tuple[str, MessageEvent[Any]]:
        """The first event about a message."""
        await until(lambda: bool(self.about(cause)), "an event about the message")
        return self.about(cause)[0]
