"""Every topic, declared once: what it is for, its key, its partitions, how long it keeps. Topics are created from here."""

from __future__ import annotations

from dataclasses import dataclass, replace

from libs.contracts.events import (
    ContactChanged,
    GatewayReceipt,
    Priority,
    SmsCommand,
    SmsDeferred,
    SmsDispatch,
    SmsInbound,
    SmsRequested,
    SmsReturned,
    SmsStatus,
)

DAY_MS = 24 * 3600 * 1000
PARTITIONS = 4
"""Fixed for life: keys stay where they are. Also the most replicas of one consumer that can work at once."""
DEAD_LETTER = ".dead-letter"
"""What the name of a topic's dead letters has behind the topic's own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Topic:
    """A topic: its events' data class, its key, its settings. `replication` is lowered to what a smaller cluster has."""

    name: str
    purpose: str
    data: type
    key: str
    partitions: int = PARTITIONS
    retention_ms: int = 14 * DAY_MS
    compactable: bool = False
    """Whether the last event of each key is enough, so that whoever runs Kafka may have made the topic compacted."""
    replication: int = 3

    @property
    def dead_letter(self) -> str:
        return self.name + DEAD_LETTER

    def config(self) -> dict[str, str]:
        """Kafka's settings for the topic."""
        return {
            "cleanup.policy": "delete",
            "retention.ms": str(self.retention_ms),
            "retention.bytes": "-1",
            "max.message.bytes": str(2 * 1024 * 1024),
        }


BY_PERSON = "tenant/kind/id of the person"
BY_MESSAGE = "message id"

REQUESTED = Topic(
    name="sms.requested", purpose="A message was accepted and is durable.", data=SmsRequested, key=BY_PERSON
)
REQUESTED_HIGH = replace(REQUESTED, name="sms.requested.high", purpose="The same, read first at each step.")
RETURNED = Topic(
    name="sms.returned", purpose="A message comes back to be resolved anew.", data=SmsReturned, key=BY_PERSON
)
RETURNED_HIGH = replace(RETURNED, name="sms.returned.high", purpose="The same, read first at each step.")
DEFERRED = Topic(name="sms.deferred", purpose="A message waits until it is due.", data=SmsDeferred, key=BY_PERSON)
DEFERRED_HIGH = replace(DEFERRED, name="sms.deferred.high", purpose="The same, read first at each step.")
STATUS = Topic(
    name="sms.status", purpose="What became of a message or of one of its parts.", data=SmsStatus, key=BY_MESSAGE
)
COMMANDS = Topic(
    name="sms.commands", purpose="What is asked about messages on their way.", data=SmsCommand, key=BY_PERSON
)
RECEIPTS = Topic(
    name="gateway.receipts",
    purpose="A delivery receipt as a gateway gave it.",
    data=GatewayReceipt,
    key="gateway/provider id",
)
INBOUND = Topic(
    name="sms.inbound",
    purpose="A mobile-originated message, undecoded.",
    data=SmsInbound,
    key="gateway/source number's fingerprint",
)
CONTACT_CHANGED = Topic(
    name="contact.changed",
    purpose="A person's number or name as an upstream system knows it; a deletion is an event too, and a record without one is not read.",
    data=ContactChanged,
    key=BY_PERSON,
    compactable=True,
)

FIXED_TOPICS: tuple[Topic, ...] = (
    REQUESTED,
    REQUESTED_HIGH,
    RETURNED,
    RETURNED_HIGH,
    DEFERRED,
    DEFERRED_HIGH,
    STATUS,
    COMMANDS,
    RECEIPTS,
    INBOUND,
    CONTACT_CHANGED,
)

RESOLVER_GROUP = "resolver"
"""The consumer group that reads REQUESTED and RETURNED. Whoever feeds it can see by its offsets how far it has come."""
PROJECTION_GROUP = "projection"
"""The consumer group that reads all that is told of messages."""


def requested(priority: Priority) -> Topic:
    return REQUESTED_HIGH if priority is Priority.HIGH else REQUESTED


def returned(priority: Priority) -> Topic:
    return RETURNED_HIGH if priority is Priority.HIGH else RETURNED


def deferred(priority: Priority) -> Topic:
    return DEFERRED_HIGH if priority is Priority.HIGH else DEFERRED


def dispatch(gateway: str, priority: Priority = Priority.NORMAL) -> Topic:
    """The topic from which a gateway's dispatchers take their work."""
    high = priority is Priority.HIGH
    return Topic(
        name=f"sms.dispatch.{gateway}" + (".high" if high else ""),
        purpose=f"Send through the gateway {gateway}" + (", read first." if high else "."),
        data=SmsDispatch,
        key=BY_PERSON,
    )


DISPATCH_PATTERN = r"^sms\.dispatch\.[a-z0-9-]{1,40}(\.high)?$"
"""Matches every gateway's dispatch topics, and not their dead letters."""
