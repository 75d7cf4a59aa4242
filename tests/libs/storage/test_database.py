"""What the pools of all services have in common."""

import asyncio
import gc
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import urlsplit

import asyncpg
import pytest
from structlog.testing import capture_logs

from libs.service_kit import lifecycle
from libs.service_kit.transient import is_transient
from libs.storage import database
from libs.storage.database import DsnError, close_database, open_database
from libs.storage.retention import drop_old
from tests.libs.storage.conftest import BY_TIME, SCHEMA
from tests.silence import relay_to
from tests.waiting import until


async def test_the_locks_of_a_process_that_is_frozen_in_its_transaction_are_given_back(
    dsn: str, migrations: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database, "IDLE_IN_TRANSACTION_SECONDS", 0.05)
    pool = await open_database(dsn, SCHEMA, migrations, 2)
    await pool.execute("INSERT INTO seen_elsewhere VALUES (1)")
    lock = "SELECT n FROM seen_elsewhere FOR UPDATE"
    frozen = await pool.acquire()
    await frozen.execute("BEGIN")
    await frozen.execute(lock)
    async with asyncio.timeout(20):
        assert await pool.fetchval(lock) == 1
    with pytest.raises((asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError)) as fault:
        await frozen.execute(lock)
    assert is_transient(fault.value)
    pool.terminate()  # not all that it knows of is open


async def test_what_is_called_off_on_a_connection_whose_server_has_gone_without_a_word_is_not_waited_for(
    dsn: str, migrations: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database, "CANCEL_SECONDS", 0.1)
    relay = await relay_to(dsn)
    pool = await open_database(relay.dsn, SCHEMA, migrations, 2)
    assert await pool.fetchval("SELECT 1") == 1
    relay.fall_silent()
    async with asyncio.timeout(15):  # a statement may take 30, and asyncpg gives as much to its end
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1):
                await pool.fetchval("SELECT 1")
        assert await pool.fetchval("SELECT 1") == 1
    pool.terminate()
    relay.listening.close()


async def test_a_session_that_ends_just_before_a_copy_is_told_once_as_an_error(dsn: str, migrations: Path) -> None:
    relay = await relay_to(dsn)
    pool = await open_database(relay.dsn, SCHEMA, migrations, 1)
    asyncio.get_running_loop().set_exception_handler(lifecycle._log_unhandled)
    with capture_logs() as logs:
        async with pool.acquire() as connection:
            await connection.copy_records_to_table("seen_elsewhere", records=[(1,)])
            relay.end_sessions()
            await until(lambda: hasattr(connection.get_settings(), "session"))
            with pytest.raises(asyncpg.InternalClientError) as fault:
                await connection.copy_records_to_table("seen_elsewhere", records=[(2,)])
            assert is_transient(fault.value)
            connection.terminate()
        await asyncio.sleep(0)
        gc.collect()
    lost = [each for each in logs if isinstance(each.get("exc_info"), asyncpg.ConnectionDoesNotExistError)]
    assert [each["log_level"] for each in lost] == ["warning"]
    pool.terminate()
    relay.listening.close()


async def test_a_server_that_has_gone_without_a_word_is_taken_no_leave_of(dsn: str, migrations: Path) -> None:
    relay = await relay_to(dsn)
    pool = await open_database(relay.dsn, SCHEMA, migrations, 2)
    relay.fall_silent()
    async with asyncio.timeout(15):  # asyncpg would give it 30
        await close_database(pool)
    assert pool.is_closing()
    relay.listening.close()


async def test_a_dsn_that_can_not_be_followed_is_refused_with_its_reason_and_without_its_password(
    tmp_path: Path,
) -> None:
    with pytest.raises(DsnError, match="`sslmode` parameter must be one of: disable") as refused:
        await open_database("postgresql://me:hunter2@127.0.0.1:1/postrider?sslmode=typo", SCHEMA, tmp_path, 1)
    assert "hunter2" not in str(refused.value)


async def test_a_certificate_that_is_just_being_replaced_is_waited_for_except_at_the_start(
    dsn: str, migrations: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))  # where `.postgresql/root.crt` is looked for
    verifying = f"{dsn}?sslmode=verify-full"
    with pytest.raises(asyncpg.ClientConfigurationError, match="root certificate file") as fault:
        await asyncpg.connect(verifying)
    assert is_transient(fault.value)
    with pytest.raises(DsnError, match="root certificate file"):
        await open_database(verifying, SCHEMA, migrations, 1)


async def test_what_ends_a_session_is_transient_whatever_its_code_and_what_refuses_a_statement_is_not(dsn: str) -> None:
    with pytest.raises(asyncpg.InvalidParameterValueError) as ended:
        await asyncpg.connect(dsn, server_settings={"work_mem": "typo"})
    assert is_transient(ended.value)
    connection = await asyncpg.connect(dsn)
    with pytest.raises(asyncpg.InvalidParameterValueError) as refused:
        await connection.execute("SET work_mem = 'typo'")
    assert not is_transient(refused.value)
    await connection.close()


async def test_a_dsn_that_says_itself_which_server_is_meant_is_followed(dsn: str, migrations: Path) -> None:
    with pytest.raises(asyncpg.TargetServerAttributeNotMatched):
        await open_database(f"{dsn}?target_session_attrs=standby", SCHEMA, migrations, 1)


async def test_what_the_database_is_set_to_for_others_is_not_for_us(dsn: str, migrations: Path) -> None:
    connection = await asyncpg.connect(dsn)
    for setting in (
        "statement_timeout = '1ms'",
        "lock_timeout = '1ms'",
        "datestyle = 'German'",
        "timezone = 'Asia/Kathmandu'",
        "default_transaction_isolation = 'serializable'",
        "log_parameter_max_length_on_error = -1",
    ):
        await connection.execute(f"ALTER DATABASE {urlsplit(dsn).path[1:]} SET {setting}")
    await connection.close()
    (migrations / "0002_long.sql").write_text("SELECT pg_sleep(0.05)")
    pool = await open_database(dsn, SCHEMA, migrations, 2, (BY_TIME,))
    await pool.execute("SELECT pg_sleep(0.05)")
    await drop_old(pool, (BY_TIME,), datetime.now(UTC) + timedelta(days=100))
    assert await pool.fetchval("SELECT count(*) FROM pg_inherits WHERE inhparent = 'seen'::regclass") == 1
    assert await pool.fetchval("SHOW transaction_isolation") == "read committed"
    assert await pool.fetchval("SHOW lock_timeout") == "0"
    assert await pool.fetchval("SHOW timezone") == "UTC"
    assert await pool.fetchval("SHOW log_parameter_max_length_on_error") == "0"
    await pool.close()


@pytest.mark.parametrize("encoding", ["LATIN1", "SQL_ASCII"])
async def test_a_database_that_can_not_keep_every_text_as_it_is_is_refused(
    dsn: str, migrations: Path, encoding: str
) -> None:
    connection = await asyncpg.connect(dsn)
    name = f"{urlsplit(dsn).path[1:]}_{encoding.lower()}"
    await connection.execute(f"CREATE DATABASE {name} ENCODING '{encoding}' LOCALE 'C' TEMPLATE template0")
    await connection.close()
    with pytest.raises(DsnError, match=f"in {encoding}; make one with ENCODING 'UTF8'"):
        await open_database(urlsplit(dsn)._replace(path=f"/{name}").geturl(), SCHEMA, migrations, 1)


async def test_a_role_that_may_make_no_schema_is_content_with_one_that_was_made_for_it(
    dsn: str, migrations: Path
) -> None:
    parts = urlsplit(dsn)
    name = parts.path[1:]
    role = f"{name}_role"
    owner = await asyncpg.connect(dsn)
    await owner.execute(f"CREATE ROLE {role} LOGIN PASSWORD 'plain'")
    theirs = parts._replace(netloc=f"{role}:plain@{parts.hostname}:{parts.port}").geturl()
    with pytest.raises(DsnError, match=f"no schema {SCHEMA} is there, and .* lacks .*: CREATE on the database"):
        await open_database(theirs, SCHEMA, migrations, 1)
    await owner.execute(f"CREATE SCHEMA {SCHEMA}; GRANT CREATE ON SCHEMA {SCHEMA} TO {role}")
    with pytest.raises(DsnError, match=f"lacks a right on the schema {SCHEMA}: USAGE or CREATE"):
        await open_database(theirs, SCHEMA, migrations, 1)
    await owner.execute(f"GRANT USAGE ON SCHEMA {SCHEMA} TO {role}")
    pool = await open_database(theirs, SCHEMA, migrations, 1)
    await pool.execute("INSERT INTO seen_elsewhere VALUES (1)")
    await pool.close()
    await owner.execute(f"DROP SCHEMA {SCHEMA} CASCADE; DROP ROLE {role}")
    await owner.close()
