"""The loop of every service on the hot path: fetch a batch, handle it, commit it, let the next one grow.

    consumer = BatchConsumer(cluster, "resolver", [REQUESTED_HIGH, REQUESTED], handle, producer)
    await consumer.start()         # returns at once; it waits for Kafka in the background
    consumer.ready, consumer.state
    await consumer.stop(budget_seconds=25)

Topics whose name ends in `.high` have a lane of their own, with the group `<group>.high`, which is never paced and never waits for a
normal batch: the handler may run once per lane at the same time. In a normal lane small batches are spaced, 30 ms apart growing to 120 ms
from 60 records up, because a batch's cost hardly depends on its size; meanwhile nothing is fetched, so that the next one holds all
that came. `hurry` cuts a pause short. Batches more than half full come closer together, and a full one is never followed by a pause: the
next is fetched, decoded and prepared while the handler of this one waits for others.

What a handler raises decides: a neighbour's absence (`is_transient`) → the same batch again, with backoff, the partitions kept;
anything else → the batch is halved, in order, until the record is found, and that goes to the dead letters.
What a handler returns stays unfinished and uncommitted, and comes again with the next batch.
"""

from __future__ import annotations

import asyncio
from functools import partial

from libs.bus.batch import Handler, Prepare
from libs.bus.consumer_lane import DRAIN_SECONDS, RUNNING, ConsumerLane
from libs.bus.pacing import PACED, UNPACED, Pacing
from libs.bus.port import Publisher, Topics
from libs.bus.stream import DEFAULTS, RecordStream, StreamOptions
from libs.contracts.topics import Topic
from libs.service_kit.kafka import Cluster


class BatchConsumer:
    """See the top of this file. `producer` is for dead letters; `pacing` is for the normal lane."""

    def __init__(
        self,
        cluster: Cluster,
        group: str,
        topics: Topics,
        handler: Handler,
        producer: Publisher,
        *,
        prepare: Prepare | None = None,
        pacing: Pacing = PACED,
        options: StreamOptions = DEFAULTS,
    ) -> None:
        high = [topic for topic in topics if isinstance(topic, Topic) and topic.name.endswith(".high")]
        normal = [topic for topic in topics if topic not in high]
        self.groups: dict[str, Topics] = {}
        """Its consumer groups, and what each reads."""
        self._lanes: list[ConsumerLane] = []
        if high:
            self.groups[f"{group}.high" if normal else group] = high
        if normal:
            self.groups[group] = normal
        for name, read in self.groups.items():
            open_stream = partial(RecordStream, cluster, name, read, producer, options=options)
            self._lanes.append(ConsumerLane(name, open_stream, handler, prepare, UNPACED if read is high else pacing))

    @property
    def ready(self) -> bool:
        """True while every lane has joined its group and works."""
        return self.state == RUNNING

    @property
    def state(self) -> str:
        """`running`, or what keeps it from it: `starting`, `stopped`, `stopped: too many dead letters`, `stopped: KeyError`, or a
        neighbour that is away."""
        return next((state for lane in self._lanes if (state := lane.shown) != RUNNING), RUNNING)

    async def start(self) -> None:
        for lane in self._lanes:
            lane.start()

    def hurry(self) -> None:
        """Fetch again at once: somebody waits for what came in since the last batch was fetched."""
        for lane in self._lanes:
            lane.hurry()

    async def stop(self, budget_seconds: float = DRAIN_SECONDS) -> None:
        """Take nothing more, finish the batch in hand within the budget (seconds), commit, leave the group."""
        await asyncio.gather(*(lane.stop(budget_seconds) for lane in self._lanes))
