"""What the dispatcher sees to before it sends."""

from collections.abc import Iterable

import pytest

from libs.contracts import topics
from libs.contracts.events import Priority
from libs.contracts.topics import Topic
from libs.service_kit.config_file import SmppGateway
from libs.service_kit.lifecycle import Lifecycle
from services.dispatcher import main
from services.dispatcher.settings import DispatcherSettings
from tests.conftest import DatabaseFactory
from tests.services.dispatcher.world import USED


class Enough(Exception):
    """So far, and no further."""


async def test_it_makes_every_topic_that_it_reads_or_writes(
    postgres: DatabaseFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: set[str] = set()

    async def make(_: object, asked: Iterable[Topic]) -> None:
        made.update(topic.name for topic in asked)
        raise Enough

    monkeypatch.setattr(main, "ensure_topics", make)
    gateway = SmppGateway(id="demo", type="smpp", host="h", port=1, system_id="s")
    settings = DispatcherSettings.model_validate(
        {
            "kafka_bootstrap_servers": "127.0.0.1:1",
            "ops_port": 0,
            "internal_token": "x" * 16,
            "postgres_dsn": await postgres(),
            "postrider_config": "unused",
            "dispatcher_gateway": gateway.id,
            "inbound_key": "a key for the tests",
        }
    )
    life = Lifecycle(settings)
    try:
        with pytest.raises(Enough):
            await main.start(life, settings, gateway)
    finally:
        await life.stop_all()
    work = [topics.dispatch(gateway.id, priority) for priority in Priority]
    assert made == {topic.name for topic in (*work, *USED)}
