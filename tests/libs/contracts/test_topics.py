"""The topics as they are where Postrider runs: with other partitions keys would go elsewhere, with less time records would be lost."""

from functools import partial

from libs.contracts.events import Priority
from libs.contracts.topics import FIXED_TOPICS, Topic, deferred, dispatch, requested, returned

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


def test_high_priority_has_topics_of_its_own_at_each_step() -> None:
    for step in (requested, returned, deferred, partial(dispatch, "demo")):
        assert step(Priority.HIGH).name == f"{step(Priority.NORMAL).name}.high"


def _settings(topic: Topic) -> tuple[int, int, str]:
    config = topic.config()
    return topic.partitions, int(config["retention.ms"]), config["cleanup.policy"]
