"""What tests ask the outbox, and when its messages were accepted."""

from datetime import datetime, timedelta
from typing import Any

from libs.contracts.http.requests import SmsQuery
from libs.storage.database import Pool
from services.projection.queries import page
from tests.services.projection.stories import START, TENANT


def at(seconds: float) -> datetime:
    return START + timedelta(seconds=seconds)


async def numbers(pool: Pool, **query: Any) -> list[int | None]:
    """Those of the messages that a page of the list has."""
    answer = await page(pool, TENANT, SmsQuery.model_validate(query))
    return [item.number for item in answer.items]
