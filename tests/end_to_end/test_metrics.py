"""What is rare is counted from zero, so that an alarm on its growth hears the first."""

import aiohttp
import pytest
from prometheus_client.parser import text_string_to_metric_families

from deploy.local.stack import Stack
from deploy.local.supervisor import SupervisedProcess

DEAD = "postrider_dead_letters_total"
ANY = ("handler-error", "undecodable")
REQUESTED, RETURNED, DEFERRED, DEMO = (
    (name, f"{name}.high") for name in ("sms.requested", "sms.returned", "sms.deferred", "sms.dispatch.demo")
)


def dead(topics: tuple[str, ...], *reasons: str) -> set[tuple[str, ...]]:
    return {(DEAD, reason, topic) for topic in topics for reason in reasons}


RARE: dict[str, set[tuple[str, ...]]] = {
    "resolver": dead((*REQUESTED, *RETURNED, "sms.commands", "contact.changed"), *ANY)
    | dead(("contact.changed",), "contact.id", "contact.tenant", "tombstone"),
    "scheduler": dead((*DEFERRED, "sms.commands"), *ANY) | dead(DEFERRED, "invalid"),
    "dispatcher": dead(("sms.commands",), *ANY)
    | dead(DEMO, "undecodable", "invalid")
    | {("postrider_attempts_settled_total", "demo", doubt) for doubt in ("doubt", "doubt_by_peer")}
    | {("postrider_throttles_total", "demo")},
    "receipts": dead(("sms.status", "gateway.receipts"), *ANY)
    | dead(("gateway.receipts",), "receipt.without-id", "receipt.unusable-id")
    | {("postrider_receipts_parked_total", "demo"), ("postrider_unreported_total", "demo")},
    "inbound": dead(("sms.inbound",), *ANY, "inbound.content"),
    "projection": dead(
        (*REQUESTED, *RETURNED, *DEFERRED, "sms.status", "sms.commands", *DEMO),
        *ANY, "event-id", "message-id",
    ),
}  # fmt: skip


@pytest.mark.parametrize("service", RARE)
async def test_what_is_rare_is_counted_from_zero(stack: Stack, service: str) -> None:
    process = stack.dispatchers("demo")[0] if service == "dispatcher" else stack.process(service)
    assert RARE[service] <= await _series(process)


async def _series(process: SupervisedProcess) -> set[tuple[str, ...]]:
    """The name of each, and its labels' values in the order of their names."""
    url = process.spec.ready_url.replace("/health/ready", "/metrics")
    async with aiohttp.ClientSession() as session, session.get(url) as response:
        families = text_string_to_metric_families(await response.text())
        return {
            (sample.name, *(value for _, value in sorted(sample.labels.items())))
            for family in families
            for sample in family.samples
        }
