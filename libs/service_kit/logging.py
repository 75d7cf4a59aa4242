"""Structured logs: one JSON line per batch and per failure, never per message, without numbers, texts and secrets."""

from __future__ import annotations

import logging
import sys
from types import TracebackType

import structlog

from libs.service_kit.faults import trace

_ExcInfo = tuple[type[BaseException], BaseException, TracebackType | None] | tuple[None, None, None]


def configure_logging(service: str, level: str) -> None:
    """Send this process's logs, and those of its libraries from WARNING up, to standard error as JSON lines."""
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.ExceptionRenderer(lambda exc_info: trace(exc_info[1])),
            structlog.processors.JSONRenderer(),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level]),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
    structlog.contextvars.bind_contextvars(service=service)
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Formatter('{"level": "%(levelname)s", "logger": "%(name)s", "event": "%(message)s"}'))
    logging.basicConfig(handlers=[handler], level=logging.WARNING)
    # During an outage aiokafka says so dozens of times a second; libs.bus says it once, and when it is over.
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)


class _Formatter(logging.Formatter):
    def formatException(self, ei: _ExcInfo) -> str:  # noqa: N802 - the standard library's name
        return trace(ei[1])
