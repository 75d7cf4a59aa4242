"""The API gateway: the one front door. `python -m services.api_gateway.main`."""

from __future__ import annotations

import json
from datetime import timedelta
from functools import partial
from pathlib import Path

from pydantic import HttpUrl

from libs.bus.admin import ensure_topics
from libs.bus.producer import Producer
from libs.contracts.asyncapi import asyncapi
from libs.contracts.topics import COMMANDS, REQUESTED, REQUESTED_HIGH, STATUS
from libs.service_kit.config_file import Configuration
from libs.service_kit.lifecycle import Lifecycle, run_service
from libs.service_kit.periodic import repeat
from libs.service_kit.settings import load_configured
from libs.storage.database import BY_KEY
from libs.storage.part import database_part
from services.api_gateway.accepting import Accepter
from services.api_gateway.api_keys import ApiKeys
from services.api_gateway.asked import AskedTable
from services.api_gateway.bulk.accepting import BulkAccepter
from services.api_gateway.commands import Commands
from services.api_gateway.forgetting import forget_old
from services.api_gateway.handlers import Services
from services.api_gateway.http.server import serve
from services.api_gateway.idempotency import Ledger
from services.api_gateway.neighbours import Neighbour
from services.api_gateway.numbers import BLOCK, Numbers
from services.api_gateway.openapi import openapi
from services.api_gateway.publishing import DurablePublisher
from services.api_gateway.routed_application import RoutedApplication
from services.api_gateway.routes import ROUTES
from services.api_gateway.settings import ApiGatewaySettings
from services.api_gateway.upstreams import Upstream

MIGRATIONS = Path(__file__).parent / "migrations"
FORGET_SECONDS = 60.0
"""Between two deletions of old rows."""


async def start(life: Lifecycle, settings: ApiGatewaySettings, configuration: Configuration) -> None:
    """Neighbours first, the door last. The stop goes the other way: close the door, answer what is inside, let go."""
    await life.serve_ops()
    kafka, postgres = Neighbour("Kafka"), Neighbour("Postgres")
    life.ready_when("kafka for callers", kafka.missing)
    life.ready_when("postgres for callers", postgres.missing)
    pool = await database_part(life, settings, "api", MIGRATIONS, parameters=BY_KEY)
    life.background("forgetting", repeat("deletion of old rows", FORGET_SECONDS, lambda: forget_old(pool)))
    ledger, asked = Ledger(pool), AskedTable(pool)
    numbers = Numbers(ledger.next_block, postgres)
    await life.part("numbers", lambda: numbers.fetch(BLOCK), lambda _: numbers.stop())
    cluster = settings.kafka
    await life.part("topics", lambda: ensure_topics(cluster, (REQUESTED, REQUESTED_HIGH, COMMANDS, STATUS)))
    producer = Producer(cluster, "api_gateway", delivery_timeout=settings.accept_timeout_seconds)
    await life.part("kafka", producer.start, lambda _: producer.stop())
    life.watch("kafka", producer.ask)
    publisher = DurablePublisher(producer, kafka, settings.accept_timeout_seconds)
    default_validity = timedelta(seconds=configuration.validity_seconds)
    accepter = Accepter(
        publisher,
        ledger,
        numbers,
        timeout_seconds=settings.accept_timeout_seconds,
        postgres=postgres,
    )
    life.on_stop("accepter", accepter.stop)
    bulk = BulkAccepter(publisher, ledger, numbers, postgres, default_validity)
    life.on_stop("bulk", bulk.stop)
    commands = Commands(asked, publisher, postgres, default_validity=default_validity, max_resends=settings.max_resends)

    def upstream(name: str, url: HttpUrl) -> Upstream:
        made = Upstream(name, str(url), settings.internal_token.get_secret_value(), settings.forward_timeout_seconds)
        life.on_stop(name, made.close)
        return made

    services = Services(
        accepter=accepter,
        bulk=bulk,
        commands=commands,
        resolver=upstream("resolver", settings.resolver_url),
        projection=upstream("projection", settings.projection_url),
        inbound=upstream("inbound service", settings.inbound_url),
        default_validity=default_validity,
        openapi=json.dumps(openapi(ROUTES)).encode(),
        asyncapi=json.dumps(asyncapi()).encode(),
    )
    application = RoutedApplication(ROUTES, ApiKeys(configuration.api_keys), services)
    await life.part(
        "api server",
        lambda: serve(application, settings.api_host, settings.api_port),
        lambda server: server.stop(life.left_seconds / 2),
    )


def main() -> None:
    settings, configuration = load_configured(ApiGatewaySettings)
    run_service("api_gateway", settings, partial(start, settings=settings, configuration=configuration))


if __name__ == "__main__":
    main()
