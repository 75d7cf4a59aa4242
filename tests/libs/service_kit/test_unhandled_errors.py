"""What is logged of an error that nobody awaits."""

import asyncio
import gc

import asyncpg
from structlog.testing import capture_logs

from libs.service_kit import lifecycle


async def test_what_a_task_raised_and_nobody_awaits_is_an_error_also_where_a_connection_was_lost() -> None:
    asyncio.get_running_loop().set_exception_handler(lifecycle._log_unhandled)

    async def lose() -> None:
        raise asyncpg.ConnectionDoesNotExistError

    with capture_logs() as logs:
        await asyncio.wait([asyncio.create_task(lose())])
        gc.collect()
    lost = [each for each in logs if isinstance(each.get("exc_info"), asyncpg.ConnectionDoesNotExistError)]
    assert [each["log_level"] for each in lost] == ["error"]
