"""The scheduler's own schema, empty, and its handlers over a bus in memory."""

from collections.abc import AsyncIterator, Sequence
from datetime import datetime, timedelta
from typing import Any

import pytest
from aiokafka.errors import KafkaConnectionError
from aiokafka.structs import TopicPartition

from libs.bus.batch import Batch
from libs.bus.codec import decoder_for, encode
from libs.bus.memory import MemoryBus
from libs.bus.record import Record
from libs.contracts import topics
from libs.contracts.events import MessageEvent, SmsDeferred, SmsReturned, SmsStatus
from libs.contracts.topics import Topic
from libs.storage.database import Pool, open_database
from services.scheduler import store
from services.scheduler.handlers import handle
from services.scheduler.leaving import Leaving
from services.scheduler.main import MIGRATIONS
from services.scheduler.room import Room
from tests.conftest import DatabaseFactory
from tests.services.scheduler.builders import NOW

read_returned = decoder_for(MessageEvent[SmsReturned])
read_status = decoder_for(MessageEvent[SmsStatus])


@pytest.fixture(scope="session")
async def scheduler_database(postgres: DatabaseFactory) -> AsyncIterator[Pool]:
    pool = await open_database(await postgres(), "scheduler", MIGRATIONS, connections=4, parameters=store.PARAMETERS)
    yield pool
    await pool.close()


@pytest.fixture
async def pool(scheduler_database: Pool) -> Pool:
    await scheduler_database.execute("TRUNCATE entries, events, marks")
    return scheduler_database


class World:
    """One or more replicas of the scheduler, whose clock is `now`."""

    def __init__(self, pool: Pool) -> None:
        self.pool = pool
        self.bus = MemoryBus()
        self.now = NOW
        self.told: list[datetime] = []
        self.lag: int | None = 0
        self.looks = 0

    async def take(self, *events: MessageEvent[Any], topic: Topic | None = None) -> None:
        """One batch, of the topics in which such events are published, or of this one."""
        records = [_record(event, offset, topic) for offset, event in enumerate(events)]
        await handle(Batch(records), self.pool, self.bus.producer(), lambda: self.now, self.told.append)

    def leaving(
        self, rows_per_second: float = 10_000, lease: timedelta = timedelta(seconds=10), records: int = 1_000_000
    ) -> Leaving:
        """With room for so many records before the resolver; how many wait there is looked up again as the world's clock goes on."""
        room = Room(self._look, records, lambda: self.now.timestamp())
        return Leaving(self.pool, self.bus.producer(), lambda: self.now, rows_per_second, lease, room)

    async def _look(self) -> int:
        self.looks += 1
        if self.lag is None:
            raise KafkaConnectionError
        return self.lag

    def returned(self, topic: Topic = topics.RETURNED) -> Sequence[MessageEvent[SmsReturned]]:
        return [read_returned(r.value) for r in self.bus.records(topic.name)]

    def ended(self) -> Sequence[MessageEvent[SmsStatus]]:
        return [read_status(r.value) for r in self.bus.records(topics.STATUS.name)]


@pytest.fixture
def world(pool: Pool) -> World:
    return World(pool)


def _record(event: MessageEvent[Any], offset: int, topic: Topic | None) -> Record:
    data = event.data
    if topic is None:
        topic = topics.deferred(data.message.priority) if isinstance(data, SmsDeferred) else topics.COMMANDS
    return Record(TopicPartition(topic.name, 0), offset, b"", encode(event), (), event)
