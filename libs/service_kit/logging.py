"""Structured logs: one JSON line per batch and per failure, never per message, without numbers, texts and secrets."""

from __future__ import annotations

import logging
import sys

import structlog


def configure_logging(service: str, level: str) -> None:
    """Send this process's logs, and those of its libraries from WARNING up, to standard error as JSON lines."""
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level]),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
    structlog.contextvars.bind_contextvars(service=service)
    logging.basicConfig(
        stream=sys.stderr,
        level=logging.WARNING,
        format='{"level": "%(levelname)s", "logger": "%(name)s", "event": "%(message)s"}',
    )
    # During an outage aiokafka says so dozens of times a second; libs.bus says it once, and when it is over.
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)
