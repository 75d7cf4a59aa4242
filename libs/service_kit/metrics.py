"""Every metric that Postrider exports, named once. Labels are topics, gateways, reasons: never a number, a text or a person."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import product

from prometheus_client import Counter, Gauge, Histogram

SIZES = (1, 5, 20, 50, 100, 200, 500, 1000, 2000)
SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)

# bus
RECORDS_CONSUMED = Counter("postrider_records_consumed_total", "Kafka records whose work is done.", ["topic"])
RECORDS_PUBLISHED = Counter(
    "postrider_records_published_total", "Kafka records acknowledged by all replicas.", ["topic"]
)
DEAD_LETTERS = Counter("postrider_dead_letters_total", "Records sent to a dead-letter topic.", ["topic", "reason"])
BATCH_SIZE = Histogram("postrider_batch_records", "Records in a consumed batch.", ["consumer"], buckets=SIZES)
BATCH_SECONDS = Histogram(
    "postrider_batch_seconds", "Seconds from a batch's fetch to its commit.", ["consumer"], buckets=SECONDS
)
CONSUMER_LAG = Gauge(
    "postrider_consumer_lag_records", "Records between the position and the end.", ["topic", "partition"]
)
CONSUMER_RETRIES = Counter(
    "postrider_consumer_retries_total", "Batches done again because a neighbour was away.", ["consumer"]
)

# HTTP
REQUESTS = Counter("postrider_http_requests_total", "HTTP requests answered.", ["route", "status"])
REQUEST_SECONDS = Histogram("postrider_http_request_seconds", "Seconds to answer.", ["route"], buckets=SECONDS)
MESSAGES_ACCEPTED = Counter("postrider_messages_accepted_total", "Messages answered with 202.", ["priority"])

# resolver
DECISIONS = Counter("postrider_decisions_total", "Decisions of the resolver.", ["outcome"])

# scheduler
ENTRIES_ADDED = Counter("postrider_deferrals_total", "Messages kept until they are due.")
ENTRIES_SETTLED = Counter("postrider_deferrals_settled_total", "Messages that wait no more.", ["outcome"])
RETURNED_WAITING = Gauge(
    "postrider_returned_waiting",
    "Returned messages of normal priority that the resolver had not taken yet, when it was last looked up.",
)
RETURN_DELAY = Histogram(
    "postrider_return_delay_seconds",
    "Seconds from when a batch's first message was due to its return.",
    buckets=SECONDS,
)

# dispatcher
CLAIMED = Counter("postrider_attempts_claimed_total", "Attempts granted by a claim (segments).", ["gateway"])
SETTLED = Counter("postrider_attempts_settled_total", "Attempts with an outcome (segments).", ["gateway", "outcome"])
IN_FLIGHT = Gauge("postrider_window_in_flight", "Submitted segments that wait for an answer.", ["gateway"])
BOUND = Gauge("postrider_bound", "1 while this instance is bound to the gateway.", ["gateway"])
STANDBY = Gauge("postrider_standby", "1 while this instance waits for a bind slot.", ["gateway"])
BREAKER_OPEN = Gauge(
    "postrider_breaker_open",
    "1 while so many messages in a row were refused for now, or not answered, that the gateway is taken to be at fault.",
    ["gateway"],
)
THROTTLES = Counter("postrider_throttles_total", "Refusals that paused the gateway.", ["gateway"])
LATE_ANSWERS = Counter(
    "postrider_late_answers_total", "Answers that found their attempt in doubt.", ["gateway", "outcome"]
)

# receipts
RECEIPTS_MATCHED = Counter("postrider_receipts_matched_total", "Receipts turned into a status.", ["gateway", "state"])
RECEIPTS_PARKED = Counter("postrider_receipts_parked_total", "Receipts kept until their message is known.", ["gateway"])
UNREPORTED = Counter(
    "postrider_unreported_total", "Attempts (segments) ended as unknown: no final receipt came in time.", ["gateway"]
)

# projection
EVENTS_FOLDED = Counter("postrider_events_folded_total", "Events written to the journal and folded.", ["type"])


def from_zero(counter: Counter, *labels: Iterable[str]) -> None:
    """Show a counter of what is rare before it first happens, for each combination of its labels' values.

    Prometheus' `increase()` sees no step to a series' first sample, so one that began at 1 would raise no alarm.
    """
    for values in product(*labels):
        counter.labels(*values)
