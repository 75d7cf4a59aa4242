"""What a run comes to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tests.load.post_load import Load, Result


@dataclass(frozen=True, slots=True, kw_only=True)
class Growth:
    """Bytes written: to PostgreSQL's log, by table of the outbox (indexes included), and to Kafka's logs."""

    wal: int
    tables: Mapping[str, int]
    kafka: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """Loads that were sent together, until the last of their messages was delivered."""

    loads: Sequence[Load]
    results: Sequence[Result]
    began: float
    """seconds since the epoch"""
    seconds: float
    arrivals: Mapping[int, float]
    """when the carrier read each message, by its number; seconds since the epoch"""
    cpu: Mapping[str, float]
    """seconds, by process"""
    memory: Mapping[str, int]
    """bytes resident at the end, by process"""
    elsewhere: float
    """cores that others on this machine used meanwhile"""
    growth: Growth
    loop: float
    """seconds of a fixed piece of Python, on average of before and after"""

    @property
    def messages(self) -> int:
        return sum(load.work.messages for load in self.loads)

    @property
    def accepted_per_second(self) -> float:
        """From the first request to the last answer."""
        return self.messages / max(result.began + result.seconds - self.began for result in self.results)

    @property
    def per_second(self) -> float:
        """From the first request to the last message delivered."""
        return self.messages / self.seconds

    @property
    def cpu_us(self) -> float:
        """µs per message, over all processes."""
        return sum(self.cpu.values()) / self.messages * 1e6

    @property
    def cores(self) -> float:
        return sum(self.cpu.values()) / self.seconds

    def to_carrier(self, of: int = 0) -> list[float]:
        """Seconds from when each message of a load with a rate was due to its arrival at the carrier, in order of length."""
        load, began = self.loads[of], self.results[of].began
        assert load.rate is not None
        assert load.work.bulk is None
        return sorted(self.arrivals[number] - (began + n / load.rate) for n, number in enumerate(load.work.numbers))

    def to_answer(self, of: int = 0) -> list[float]:
        """Seconds from a request to its answer, in order of length."""
        return sorted(self.results[of].latencies)
