"""Makes the outbox's messages anew from the journal, or, with --check, compares the two, while the projection goes on.

`python -m services.projection.rebuild [--check]`
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import sys

import asyncpg
from aiokafka.errors import KafkaError

from libs.service_kit.settings import load_settings
from libs.storage.database import DsnError, MigrationError
from services.projection.rebuild.rebuilding import AlreadyRebuilding, check, rebuild
from services.projection.rebuild.refolding import UnreadableLine
from services.projection.settings import RebuildSettings


def main() -> None:
    """Exit status 1 if the check found a difference, or if something went wrong."""
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)  # what goes wrong is raised too, and said below
    parser = argparse.ArgumentParser(prog="python -m services.projection.rebuild", description=__doc__)
    parser.add_argument("--check", action="store_true", help="compare only")
    only_check: bool = parser.parse_args().check
    settings = load_settings(RebuildSettings)
    dsn = str(settings.postgres_dsn)
    try:
        if only_check:
            sys.exit(1 if asyncio.run(check(dsn, _print)) else 0)
        asyncio.run(rebuild(dsn, settings.kafka, _print))
    except (AlreadyRebuilding, DsnError, MigrationError, UnreadableLine) as error:
        sys.exit(str(error))
    except KafkaError as error:  # its words begin with its name
        sys.exit(f"Kafka: {error}")
    except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError) as error:
        sys.exit(f"PostgreSQL: {type(error).__name__}: {error}")
    except KeyboardInterrupt:
        sys.exit("interrupted")


def _print(line: str) -> None:
    print(line, flush=True)  # noqa: T201 - a program for people


if __name__ == "__main__":
    main()
