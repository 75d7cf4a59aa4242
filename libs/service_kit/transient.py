"""Which faults are a neighbour's absence, rather than the data's or ours."""

from __future__ import annotations

import asyncpg
from aiokafka.errors import KafkaError


class Away(Exception):
    """A neighbour did not do what it was asked for, and may do it later."""


_POSTGRES = (
    asyncpg.PostgresConnectionError,  # class 08
    asyncpg.InsufficientResourcesError,  # class 53: too many connections, disk full, out of memory
    asyncpg.SerializationError,
    asyncpg.DeadlockDetectedError,
    asyncpg.LockNotAvailableError,
    asyncpg.QueryCanceledError,  # statement_timeout
    asyncpg.InvalidAuthorizationSpecificationError,  # class 28: the role or its password is being changed
    asyncpg.InsufficientPrivilegeError,  # a right was revoked, or the disk is mounted read-only
    asyncpg.InvalidCatalogNameError,  # the database is being moved
    asyncpg.PostgresIOError,
    asyncpg.DatabaseDroppedError,
    asyncpg.AdminShutdownError,
    asyncpg.CrashShutdownError,
    asyncpg.CannotConnectNowError,
    asyncpg.ReadOnlySQLTransactionError,  # a replica that is about to become the primary, or no longer is
    asyncpg.IdleInTransactionSessionTimeoutError,
)
_ENDS_THE_SESSION = ("FATAL", "PANIC")
"""Severities, whatever the code: with a full disk a new session may end by an internal error. No record is to blame."""
# A pool takes back at once what the server has closed, also while it is in use: "has been released back to the pool".
_CLOSED = (
    "connection is closed",
    "connection was closed",
    "released back to the pool",
    "pool is clos",
    "not initialized",
)
_BUSY = "another operation is in progress"
"""The server ended the connection during a COPY: then its transaction can't be rolled back either, and that is what is raised. The words
alone may also mean that two tasks use one connection."""


def is_transient(error: BaseException) -> bool:
    """True if doing the same again later may succeed: Kafka or Postgres is away, slow, overloaded or in a conflict."""
    grouped: tuple[BaseException, ...] = getattr(error, "exceptions", ())
    if grouped:
        return all(is_transient(each) for each in grouped)
    if isinstance(error, asyncpg.PostgresError) and (error.severity_en or error.severity) in _ENDS_THE_SESSION:
        return True
    if isinstance(error, asyncpg.ClientConfigurationError):
        # The DSN could be followed at the start: a file of certificates is just being replaced.
        return True
    if isinstance(error, asyncpg.InterfaceError):
        # asyncpg has one class for wrong arguments and for a connection that closed meanwhile.
        words = str(error)
        if _BUSY in words:
            return error.__context__ is not None and is_transient(error.__context__)
        return any(closed in words for closed in _CLOSED)
    if isinstance(error, asyncpg.InternalClientError):
        # No server takes writes yet; or a pooled connection whose server has said that it ends, used before its socket is seen to close
        # (asyncpg issue 1069).
        return isinstance(error, asyncpg.TargetServerAttributeNotMatched) or "cannot switch to state" in str(error)
    if type(error) is RuntimeError:  # uvloop's word for a write to a connection that the other side has just closed
        return "the handler is closed" in str(error)
    # TimeoutError and ConnectionError are kinds of OSError.
    return isinstance(error, (Away, KafkaError, OSError, *_POSTGRES))
