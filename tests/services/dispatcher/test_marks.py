from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

from aiokafka import TopicPartition

from libs.bus.batch import Batch
from libs.bus.record import Record
from libs.contracts.events import CommandKind, MessageEvent, PersonKind, Recipient, SmsCommand
from libs.storage.database import Pool
from services.dispatcher.marks import forget, mark

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)


def command(message_id: UUID, kind: CommandKind, asked_at: datetime, cycle: int = 1) -> Record:
    data = SmsCommand(
        tenant="acme", recipient=Recipient(PersonKind.CLIENT, "17"), kind=kind, cycle=cycle, asked_at=asked_at
    )
    event = MessageEvent(
        id=str(uuid4()), type=SmsCommand.TYPE, source="test", time=asked_at, subject=message_id, data=data
    )
    return Record(TopicPartition("sms.commands", 0), 0, None, None, (), event)


async def test_of_commands_of_one_kind_the_mark_has_the_last_time_in_whatever_order_they_come(pool: Pool) -> None:
    message_id, later = uuid4(), NOW + timedelta(seconds=1)
    first, last = (command(message_id, CommandKind.RETURN, at) for at in (NOW, later))
    for batch in ([first, last], [first], [command(message_id, CommandKind.CANCEL, NOW)]):
        await mark(Batch(batch), pool)
    marks = await pool.fetch("SELECT kind, asked_at FROM marks WHERE message_id = $1 ORDER BY kind", message_id)
    assert marks == [("cancel", NOW), ("return", later)]


async def test_a_mark_is_one_cycles(pool: Pool) -> None:
    message_id = uuid4()
    await mark(Batch([command(message_id, CommandKind.CANCEL, NOW, cycle) for cycle in (2, 3)]), pool)
    marks = await pool.fetch("SELECT cycle FROM marks WHERE message_id = $1 ORDER BY cycle", message_id)
    assert [row["cycle"] for row in marks] == [2, 3]


async def test_marks_are_forgotten_by_the_time_they_were_asked_for(pool: Pool) -> None:
    for days in range(10):
        asked_at = NOW - timedelta(days=days)
        await pool.execute("INSERT INTO marks VALUES ($1, 1, 'cancel', $2)", uuid4(), asked_at)
    await forget(pool, NOW - timedelta(days=4))
    assert await pool.fetchval("SELECT min(asked_at) FROM marks") == NOW - timedelta(days=4)
    assert await pool.fetchval("SELECT count(*) FROM marks") == 5
