"""A dispatch topic of one partition, and what a process has of it in place of an intake."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from aiokafka.structs import TopicPartition

from libs.bus.record import Record
from libs.bus.watermarks import Watermarks
from libs.contracts.events import MessageEvent, SmsDispatch

if TYPE_CHECKING:
    from tests.services.dispatcher.simulation.process import Process


@dataclass(eq=False)
class Topic:
    name: str
    log: list[MessageEvent[SmsDispatch]] = field(default_factory=list)
    committed: int = 0
    holder: Intake | None = None
    """Who may commit."""


@dataclass(eq=False)
class Intake:
    """A topic as one process sees it."""

    process: Process
    topic: Topic
    believes: bool = False
    """The process thinks that the topic is its own."""
    revoking: bool = False
    position: int = 0
    epoch: int = 0

    def __post_init__(self) -> None:
        self.partition = TopicPartition(self.topic.name, 0)
        self.marks = Watermarks()

    @property
    def may_fetch(self) -> bool:
        return self.believes and not self.revoking and self.position < len(self.topic.log)

    def fetch(self) -> None:
        event = self.topic.log[self.position]
        self.marks.delivered(self.partition, [self.position])
        self.process.board.add(event, Record(self.partition, self.position, None, None, (), event, self.epoch))
        self.position += 1

    def finished(self, records: list[Record]) -> None:
        self.marks.finished(self.partition, [r.offset for r in records if r.epoch == self.epoch])

    def assign(self) -> None:
        """The topic is its own from here on; what it had of it before is forgotten."""
        self.topic.holder = self
        self.give_up()
        self.believes, self.position = True, self.topic.committed

    def revoke(self) -> None:
        self.revoking = True
        self.process.sender.pause()

    def give_up(self) -> None:
        self.believes, self.revoking = False, False
        self.process.board.withdraw(self.topic.name)
        self.marks.reset([self.partition])
        self.epoch += 1
        if not any(each.revoking for each in self.process.intakes):
            self.process.sender.resume()
