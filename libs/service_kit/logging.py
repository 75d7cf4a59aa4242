"""Structured logs: one JSON line per batch and per failure, never per message, without numbers, texts and secrets."""

from __future__ import annotations

import json
import logging
import sys

import structlog

from libs.service_kit.faults import trace


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
    handler.setFormatter(_Formatter())
    logging.basicConfig(handlers=[handler], level=logging.WARNING)
    logging.captureWarnings(True)
    # During an outage aiokafka says so dozens of times a second; libs.bus says it once, and when it is over.
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)


class _Formatter(logging.Formatter):
    """A library's record as such a line, its exception without the words that might hold a number or a text."""

    def format(self, record: logging.LogRecord) -> str:
        line = {"level": record.levelname.lower(), "logger": record.name, "event": record.getMessage()}
        if record.exc_info and record.exc_info[1] is not None:
            line["exception"] = trace(record.exc_info[1])
        return json.dumps(line)
