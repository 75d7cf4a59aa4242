"""The topics as they are where Postrider runs: with other partitions keys would go elsewhere, with less time records would be lost."""

import re
from functools import partial

from libs.contracts.events import Priority
from libs.contracts.topics import DISPATCH_PATTERN, FIXED_TOPICS, Topic, deferred, dispatch, requested, returned

DAYS_14 = 14 * 24 * 3600 * 1000

AS_THEY_ARE = {
    "sms.requested": (4, DAYS_14, "delete"),
    "sms.requested.high": (4, DAYS_14, "delete"),
    "sms.returned": (4, DAYS_14, "delete"),
    "sms.returned.high": (4, DAYS_14, "delete"),
    "sms.deferred": (4, DAYS_14, "delete"),
    "sms.deferred.high": (4, DAYS_14, "delete"),
    "sms.status": (4, DAYS_14, "delete"),
    "sms.commands": (4, DAYS_14, "delete"),
    "gateway.receipts": (4, DAYS_14, "delete"),
    "sms.inbound": (4, DAYS_14, "delete"),
    "contact.changed": (4, DAYS_14, "delete"),
    "sms.dispatch.demo": (4, DAYS_14, "delete"),
    "sms.dispatch.demo.high": (4, DAYS_14, "delete"),
}


def test_every_topic_is_declared_as_it_is_where_postrider_runs() -> None:
    declared = [*FIXED_TOPICS, *(dispatch("demo", priority) for priority in Priority)]
    assert {topic.name: _settings(topic) for topic in declared} == AS_THEY_ARE
    limits = {"retention.bytes": "-1", "max.message.bytes": "2097152"}
    assert all(topic.config().items() >= limits.items() for topic in declared)


def test_the_topics_of_every_gateway_are_found_and_not_their_dead_letters() -> None:
    for gateway in ("a", "north-1", "x" * 40):
        for priority in Priority:
            topic = dispatch(gateway, priority)
            assert re.match(DISPATCH_PATTERN, topic.name)
            assert not re.match(DISPATCH_PATTERN, topic.dead_letter)


def test_high_priority_has_topics_of_its_own_at_each_step() -> None:
    for step in (requested, returned, deferred, partial(dispatch, "demo")):
        assert step(Priority.HIGH).name == f"{step(Priority.NORMAL).name}.high"


def _settings(topic: Topic) -> tuple[int, int, str]:
    config = topic.config()
    return topic.partitions, int(config["retention.ms"]), config["cleanup.policy"]
