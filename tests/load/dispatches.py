"""Messages that are put straight before the dispatchers of a gateway, as the resolver would."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from libs.bus import codec
from libs.bus.producer import Producer
from libs.contracts import topics
from libs.contracts.events import (
    Encoding,
    Leg,
    Message,
    MessageEvent,
    PersonKind,
    Recipient,
    SmsDispatch,
    event_id,
    person_key,
)
from libs.contracts.message_ids import new_message_id
from libs.service_kit.kafka import Cluster
from tests.load.workload import client_id, text_of

TENANT = "demo"
BATCH = 5_000


async def publish_dispatches(bootstrap_servers: str, gateway: str, numbers: range) -> None:
    """One for each number; returns when Kafka has them all."""
    topic = topics.dispatch(gateway).name
    producer = Producer(Cluster(bootstrap_servers), "bench")
    await producer.start()
    try:
        for start in range(numbers.start, numbers.stop, BATCH):
            batch = range(start, min(start + BATCH, numbers.stop))
            await producer.publish(topic, [_record(gateway, number) for number in batch])
    finally:
        await producer.stop()


def _record(gateway: str, number: int) -> tuple[bytes, bytes]:
    now, subject = datetime.now(UTC), new_message_id()
    recipient = Recipient(PersonKind.CLIENT, client_id(number))
    event = MessageEvent(
        id=event_id(SmsDispatch.TYPE, subject, 1, 1),
        type=SmsDispatch.TYPE,
        source="postrider/bench",
        time=now,
        subject=subject,
        data=SmsDispatch(
            message=Message(
                tenant=TENANT,
                recipient=recipient,
                number=number,
                text=text_of(number).decode(),
                accepted_at=now,
                valid_until=now + timedelta(days=2),
            ),
            leg=Leg(1, 1, now),
            gateway=gateway,
            phone=f"+2547{number % 100_000_000:08}",
            person_name=None,
            source_address="POSTRIDER",
            encoding=Encoding.GSM7,
            segments=1,
            decided_at=now,
        ),
    )
    return person_key(TENANT, recipient), codec.encode(event)
