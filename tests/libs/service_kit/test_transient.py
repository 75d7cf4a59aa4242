"""Which faults are waited out."""

import asyncpg
import pytest
from aiokafka.errors import KafkaConnectionError, NotLeaderForPartitionError

from libs.bus.errors import BadRecord, PublishFailed, RecordTooLarge, Undecodable
from libs.contracts.events import Reason
from libs.service_kit.transient import is_transient

TRANSIENT = [
    PublishFailed(),
    asyncpg.InsufficientPrivilegeError(),
    KafkaConnectionError(),
    NotLeaderForPartitionError(),
    ConnectionRefusedError(),
    ConnectionResetError(),
    TimeoutError(),
    OSError(),
    asyncpg.ConnectionDoesNotExistError(),
    asyncpg.CannotConnectNowError(),
    asyncpg.ConnectionFailureError(),
    asyncpg.TooManyConnectionsError(),
    asyncpg.DiskFullError(),
    asyncpg.SerializationError(),
    asyncpg.DeadlockDetectedError(),
    asyncpg.LockNotAvailableError(),
    asyncpg.QueryCanceledError(),
    asyncpg.InvalidPasswordError(),
    asyncpg.InvalidCatalogNameError(),
    asyncpg.AdminShutdownError(),
    asyncpg.CrashShutdownError(),
    asyncpg.ReadOnlySQLTransactionError(),
    asyncpg.PostgresIOError(),
    asyncpg.DatabaseDroppedError(),
    asyncpg.IdleInTransactionSessionTimeoutError(),
    asyncpg.PostgresError.new({"S": "FATAL", "V": "FATAL", "C": "XX000", "M": "could not write init file"}),
    asyncpg.PostgresError.new({"S": "ВАЖНО", "V": "FATAL", "C": "XX000", "M": "told in the server's own language"}),
    asyncpg.PostgresError.new({"S": "PANIC", "C": "XX000", "M": "told by something older, between us and PostgreSQL"}),
    asyncpg.ClientConfigurationError('root certificate file "root.crt" does not exist or cannot be accessed'),
    asyncpg.InterfaceError("connection is closed"),
    asyncpg.InterfaceError("cannot call Connection.execute(): connection has been released back to the pool"),
    asyncpg.InterfaceError("pool is closing"),
    asyncpg.InterfaceError("pool is not initialized"),
    asyncpg.InterfaceError("connection was closed during pool initialization"),
    RuntimeError("unable to perform operation on <TCPTransport closed=True reading=False 0x1>; the handler is closed"),
    asyncpg.InternalClientError("cannot switch to state 12; another operation (2) is in progress"),
    asyncpg.TargetServerAttributeNotMatched(),
    ExceptionGroup("both", [TimeoutError(), ExceptionGroup("inner", [PublishFailed()])]),
]
OURS_OR_THE_DATAS = [
    KeyError("x"),
    ValueError(),
    RuntimeError("generator raised StopIteration"),
    Undecodable("x"),
    RecordTooLarge(),
    BadRecord(Reason("a", "b")),
    asyncpg.PostgresError.new({"S": "ERROR", "V": "ERROR", "C": "XX000", "M": "cache lookup failed"}),
    asyncpg.UniqueViolationError(),
    asyncpg.NotNullViolationError(),
    asyncpg.UndefinedTableError(),
    asyncpg.exceptions.DataError("invalid input for query argument $1"),
    asyncpg.InternalClientError("got result for unknown protocol state 0"),
    asyncpg.InterfaceError("the server expects 2 arguments for this query, 1 was passed"),
    ExceptionGroup("one", [TimeoutError(), KeyError()]),
]


def _raised_beside(error: Exception | None) -> Exception:
    busy = asyncpg.InterfaceError("cannot perform operation: another operation is in progress")
    busy.__context__ = error
    return busy


TRANSIENT.append(_raised_beside(_raised_beside(asyncpg.InternalClientError("cannot switch to state 21; another"))))
OURS_OR_THE_DATAS += [_raised_beside(None), _raised_beside(KeyError())]


@pytest.mark.parametrize("error", TRANSIENT, ids=repr)
def test_the_absence_of_a_neighbour_is_transient(error: Exception) -> None:
    assert is_transient(error)


@pytest.mark.parametrize("error", OURS_OR_THE_DATAS, ids=repr)
def test_anything_else_is_not(error: Exception) -> None:
    assert not is_transient(error)
