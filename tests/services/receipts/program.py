"""The receipts service as the process that it is, and what goes in and comes out of it on Kafka."""

from typing import ClassVar

import aiohttp

from libs.bus.codec import encode
from libs.contracts import topics
from libs.contracts.events import Event, GatewayReceipt, MessageEvent, SmsStatus, receipt_key
from libs.service_kit.internal import HEADER
from services.receipts.main import CONSUMED
from services.receipts.statuses import SOURCE
from tests.services.program import TOKEN, ServiceProgram
from tests.services.receipts.examples import KEY, read_status
from tests.services.traffic import ServiceTraffic

CONFIGURATION = """
gateways:
  - {id: demo, type: smpp, host: 127.0.0.1, port: 2775, systemId: demo}
defaultGateway: demo
"""


class Program(ServiceProgram):
    """The receipts service."""

    SERVICE = "receipts"
    CONFIGURATION = CONFIGURATION
    ENVIRONMENT: ClassVar[dict[str, str]] = {"RECEIPTS_DESTINATION_KEY": KEY.decode()}

    async def get(self, path: str, token: str = TOKEN) -> tuple[int, str]:
        async with (
            aiohttp.ClientSession() as session,
            session.get(f"http://127.0.0.1:{self.port}{path}", headers={HEADER: token}) as response,
        ):
            return response.status, await response.text()


class Sweeping(Program):
    """Ends what was never reported as soon as its window is over."""

    MODULE = "tests.services.receipts.sweeping"


class Traffic(ServiceTraffic):
    READ = CONSUMED
    WRITTEN = (topics.STATUS,)

    async def statuses(self, *events: MessageEvent[SmsStatus]) -> None:
        await self.producer.publish(topics.STATUS.name, [(str(e.subject).encode(), encode(e)) for e in events])

    async def receipts(self, *events: Event[GatewayReceipt]) -> None:
        records = [(receipt_key(e.data.gateway, e.data.provider_id), encode(e)) for e in events]
        await self.producer.publish(topics.RECEIPTS.name, records)

    def said(self, provider_id: str | None = None) -> list[MessageEvent[SmsStatus]]:
        """What the service has published (about an id), duplicates included."""
        values = [r.value for r in self.of(topics.STATUS) if SOURCE.encode() in (r.value or b"")]
        events = [read_status(value) for value in values]
        return [e for e in events if provider_id is None or e.data.provider_id == provider_id]
