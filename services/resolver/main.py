"""Resolver: decides for each message which number and gateway it goes to, and keeps the contacts. `python -m services.resolver.main`."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import aiohttp

from libs.bus.admin import ensure_topics
from libs.bus.consumer import BatchConsumer
from libs.bus.dead_letters import count_from_zero
from libs.bus.event_consumer import TOMBSTONE, EventConsumer
from libs.bus.group_progress import GroupProgress
from libs.bus.poison import tell_history
from libs.bus.producer import Producer
from libs.bus.stream import StreamOptions
from libs.contracts import topics
from libs.contracts.events import ContactChanged, Event, Priority
from libs.contracts.topics import PROJECTION_GROUP, RESOLVER_GROUP, Topic
from libs.service_kit.config_file import Configuration
from libs.service_kit.lifecycle import Lifecycle, run_service
from libs.service_kit.periodic import repeat
from libs.service_kit.settings import load_configured
from libs.storage.part import database_part
from libs.storage.retention import keep_days, keep_partitions
from services.resolver import contacts, marks
from services.resolver.decisions import PARTITIONED
from services.resolver.handlers import resolve
from services.resolver.outbox_progress import OutboxProgress
from services.resolver.people_api import PeopleApi
from services.resolver.poison import end_leg
from services.resolver.publications import SOURCE
from services.resolver.returning import LOOK_SECONDS, Outbox, ask_back
from services.resolver.settings import ResolverSettings

MIGRATIONS = Path(__file__).parent / "migrations"
MESSAGES = (topics.REQUESTED_HIGH, topics.RETURNED_HIGH, topics.REQUESTED, topics.RETURNED)


async def start(life: Lifecycle, settings: ResolverSettings, configuration: Configuration) -> None:
    """Internal HTTP first, so that waiting can be seen; the consumers last. The stop goes the other way."""
    kafka = settings.kafka
    count_from_zero([*MESSAGES, topics.COMMANDS, topics.CONTACT_CHANGED])
    for reason in (contacts.ID, contacts.TENANT, TOMBSTONE):
        count_from_zero([topics.CONTACT_CHANGED], reason.code)
    api = PeopleApi(configuration.default_region, _now)
    await life.serve_ops(api.routes())
    pool = api.pool = await database_part(life, settings, "resolver", MIGRATIONS, PARTITIONED)
    life.background("partitions", keep_partitions(pool, PARTITIONED, settings.resolver_keep_days))
    life.background("old marks", keep_days("old marks", settings.resolver_keep_days, partial(marks.forget, pool)))
    await life.part("topics", lambda: ensure_topics(kafka, _topics(configuration)))
    producer = Producer(kafka, client_id="resolver")
    await life.part("kafka", producer.start, lambda _: producer.stop())

    gateway = configuration.gateway(configuration.default_gateway)
    handler = partial(resolve, pool=pool, publisher=producer, gateway=gateway, now=_now)
    end = partial(end_leg, pool=pool, now=_now)
    options = StreamOptions(on_dead_letter=partial(tell_history, source=SOURCE, publisher=producer, end_leg=end))
    messages = BatchConsumer(kafka, RESOLVER_GROUP, MESSAGES, handler, producer, options=options)
    commands = BatchConsumer(
        kafka, "resolver.commands", (topics.COMMANDS,), partial(marks.mark, pool=pool, now=_now), producer
    )
    await life.consumer("commands", commands)
    await life.consumer("messages", messages)

    async def on_contact_changed(event: Event[ContactChanged]) -> None:
        await contacts.apply_change(pool, event.data, configuration.default_region)

    changes = EventConsumer(kafka, topics.CONTACT_CHANGED, "resolver.contacts", on_contact_changed, producer)
    await life.consumer("contact changes", changes)

    timeout = aiohttp.ClientTimeout(total=10)
    session = aiohttp.ClientSession(timeout=timeout)
    life.on_stop("http client", session.close)
    outbox = Outbox(str(settings.projection_url), settings.internal_token.get_secret_value(), session)

    async def progress_of(group: str, read: Sequence[Topic]) -> GroupProgress:
        progress = GroupProgress(kafka, group, read)
        await life.part(f"progress of {group}", progress.start, lambda _: progress.stop())
        return progress

    deciding = [
        await progress_of(group, [topic for topic in MESSAGES if topic in read])
        for group, read in messages.groups.items()
    ]
    progress = OutboxProgress(pool, deciding, await progress_of(PROJECTION_GROUP, _dispatch(configuration)))
    asking = repeat("asking messages back", LOOK_SECONDS, lambda: ask_back(pool, producer, outbox, progress, _now))
    life.background("asking messages back", asking)


def _topics(configuration: Configuration) -> list[Topic]:
    """All that it reads and writes."""
    named = (topics.COMMANDS, topics.CONTACT_CHANGED, topics.DEFERRED_HIGH, topics.DEFERRED, topics.STATUS)
    return [*MESSAGES, *named, *_dispatch(configuration)]


def _dispatch(configuration: Configuration) -> list[Topic]:
    return [topics.dispatch(gateway.id, priority) for gateway in configuration.gateways for priority in Priority]


def _now() -> datetime:
    return datetime.now(UTC)


def main() -> None:
    settings, configuration = load_configured(ResolverSettings)
    run_service("resolver", settings, partial(start, settings=settings, configuration=configuration))


if __name__ == "__main__":
    main()
