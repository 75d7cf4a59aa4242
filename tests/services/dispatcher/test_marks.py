from datetime import UTC, datetime, timedelta
from uuid import uuid4

from libs.storage.database import Pool
from services.dispatcher.marks import forget

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)


async def test_marks_are_forgotten_by_the_time_they_were_asked_for(pool: Pool) -> None:
    for days in range(10):
        asked_at = NOW - timedelta(days=days)
        await pool.execute("INSERT INTO marks VALUES ($1, 1, 'cancel', $2)", uuid4(), asked_at)
    await forget(pool, NOW - timedelta(days=4))
    assert await pool.fetchval("SELECT min(asked_at) FROM marks") == NOW - timedelta(days=4)
    assert await pool.fetchval("SELECT count(*) FROM marks") == 5
