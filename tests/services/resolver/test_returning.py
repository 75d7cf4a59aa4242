"""Messages that are asked back when their person changes; the outbox is a stand-in that answers what it is told to."""

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from itertools import count
from uuid import UUID

import aiohttp
import pytest
from aiohttp import web
from aiokafka.errors import KafkaConnectionError

from libs.bus.codec import decoder_for
from libs.bus.memory import MemoryBus
from libs.contracts.events import CommandKind, MessageEvent, PersonKind, Recipient, SmsCommand
from libs.contracts.http.answers import Sms, SmsPage
from libs.contracts.statuses import Status
from libs.service_kit.internal import HEADER, TENANT_HEADER
from libs.storage.database import Pool
from services.resolver import contacts
from services.resolver.contacts import Person
from services.resolver.outbox_progress import OutboxProgress
from services.resolver.returning import Outbox, ask_back
from tests.services.resolver.builders import NOW, PHONE, contact_changed, new_message_id

OTHER_PHONE = "+254700000001"
read_command = decoder_for(MessageEvent[SmsCommand])
_ids = count(1)


class Known(OutboxProgress):
    """Says what it is told to."""

    def __init__(self) -> None:
        self.error: Exception | None = None
        self.known_until = None

    async def look(self) -> None:
        if self.error:
            raise self.error


@dataclass
class World:
    pool: Pool
    outbox: Outbox
    progress: Known = field(default_factory=Known)
    bus: MemoryBus = field(default_factory=MemoryBus)
    pages: list[list[Sms]] = field(default_factory=lambda: list[list[Sms]]())
    requests: list[web.BaseRequest] = field(default_factory=lambda: list[web.BaseRequest]())
    away: bool = False
    failing: set[str] = field(default_factory=lambda: set[str]())
    """The persons for whom no answer is found in time."""
    garbled: set[str] = field(default_factory=lambda: set[str]())
    """The persons for whom the answer can't be read."""
    meanwhile: Callable[[], Awaitable[None]] | None = None
    """What is done before an answer is given."""
    more: str = ""
    """JSON that stands beside what is known of each message."""

    async def answer(self, request: web.BaseRequest) -> web.Response:
        self.requests.append(request)
        if self.away:
            assert request.transport is not None
            request.transport.close()
        person = request.query.get("clientId") or request.query["staffId"]
        if self.meanwhile is not None:
            await self.meanwhile()
        if person in self.failing:
            return web.Response(status=503)
        if person in self.garbled:
            return web.Response(text='{"items": [{"id": 1}]}', content_type="application/json")
        number = int(request.query.get("cursor", "0"))
        more = str(number + 1) if number + 1 < len(self.pages) else None
        page = SmsPage(items=tuple(self.pages[number] if self.pages else ()), next_cursor=more)
        text = page.model_dump_json(by_alias=True).replace('{"id":', "{" + self.more + '"id":')
        return web.Response(text=text, content_type="application/json")

    async def ask(self) -> int:
        """How many messages are asked back by this."""
        before = len(self.commands())
        await ask_back(self.pool, self.bus.producer(), self.outbox, self.progress, lambda: NOW)
        return len(self.commands()) - before

    async def next_look(self) -> None:
        """The time of the next look has come."""
        await self.pool.execute("UPDATE changed_people SET next_look = now()")

    def commands(self) -> Sequence[MessageEvent[SmsCommand]]:
        return [read_command(r.value) for r in self.bus.records("sms.commands")]

    async def put(self, person: Person, phone: str | None, name: str | None = "Jane Doe") -> None:
        await contacts.put(self.pool, person, phone, name, NOW)


@pytest.fixture
async def world(pool: Pool) -> AsyncIterator[World]:
    await pool.execute("TRUNCATE changed_people")
    async with aiohttp.ClientSession() as session:
        found: list[World] = []

        async def answer(request: web.BaseRequest) -> web.Response:
            return await found[0].answer(request)

        runner = web.ServerRunner(web.Server(answer))
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        url = f"http://127.0.0.1:{runner.addresses[0][1]}/"
        found.append(World(pool, Outbox(url, "a token of the services", session)))
        yield found[0]
        await runner.cleanup()


def someone() -> Person:
    return Person("acme", PersonKind.CLIENT, f"r{next(_ids)}")


def queued(phone: str | None = PHONE, name: str | None = "Jane Doe", cycle: int = 1) -> Sms:
    message_id: UUID = new_message_id()
    return Sms(
        id=message_id,
        number=1,
        client_id="17",
        staff_id=None,
        message="Hello",
        phone=phone,
        person_name=name,
        status=Status.QUEUED,
        status_at=NOW,
        reason=None,
        priority=None,
        sender_id=None,
        tags=(),
        custom_data=None,
        gateway="demo",
        encoding=None,
        segments=1,
        accepted_at=NOW,
        valid_until=None,
        submitted_at=None,
        delivered_at=None,
        cycle=cycle,
        leg=1,
        possible_double=False,
        requested_by=None,
        parts=(),
    )


async def test_what_is_queued_for_the_old_number_is_asked_back(world: World) -> None:
    person = someone()
    await world.put(person, PHONE)
    await world.put(person, OTHER_PHONE)
    old, again, new, undecided = queued(), queued(cycle=2), queued(OTHER_PHONE), queued(None)
    world.pages = [[old, new], [again, undecided]]
    assert await world.ask() == 2
    assert [(e.subject, e.data.cycle) for e in world.commands()] == [(old.id, 1), (again.id, 2)]
    first = world.commands()[0]
    assert (first.data.kind, first.data.asked_at, first.time) == (CommandKind.RETURN, NOW, NOW)
    [record, _] = world.bus.records("sms.commands")
    assert record.key == f"acme/client/{person.id}".encode()
    asked = world.requests[0]
    assert (asked.path, asked.query["clientId"], asked.query["status"]) == ("/internal/sms", person.id, "queued")
    assert (asked.headers[HEADER], asked.headers[TENANT_HEADER]) == ("a token of the services", "acme")


async def test_a_staff_member_is_asked_for_as_one(world: World) -> None:
    person = someone()._replace(kind=PersonKind.STAFF)
    await world.put(person, PHONE)
    await world.put(person, OTHER_PHONE)
    world.pages = [[queued()]]
    assert await world.ask() == 1
    assert (world.requests[0].query["staffId"], "clientId" in world.requests[0].query) == (person.id, False)
    assert world.commands()[0].data.recipient == Recipient(PersonKind.STAFF, person.id)


@pytest.mark.parametrize("more", ['"of a newer outbox":1,', f'"customData":{"[" * 250 + "]" * 250},'])
async def test_what_the_outbox_says_beside_it_does_not_matter(world: World, more: str) -> None:
    person = someone()
    await world.put(person, PHONE)
    await world.put(person, OTHER_PHONE)
    world.pages, world.more = [[queued()]], more
    assert await world.ask() == 1


@pytest.mark.parametrize("change", ["name", "deletion", "upstream"])
async def test_a_new_name_a_deletion_and_a_change_from_upstream_do_the_same(world: World, change: str) -> None:
    person = someone()
    await world.put(person, PHONE)
    if change == "name":
        await world.put(person, PHONE, "Jane Roe")
    elif change == "deletion":
        await contacts.delete(world.pool, person, NOW)
    else:
        later = NOW + timedelta(minutes=1)
        await contacts.apply_change(
            world.pool, contact_changed(person.id, phone=OTHER_PHONE, changed_at=later).data, "KE"
        )
    world.pages = [[queued()]]
    assert await world.ask() == 1


async def test_nothing_is_looked_for_where_nothing_was_known_or_nothing_has_changed(world: World) -> None:
    new, same = someone(), someone()
    await world.put(new, None)
    await world.put(new, PHONE)
    for _ in range(2):
        await world.put(same, PHONE)
    assert await world.ask() == 0
    assert world.requests == []


async def test_it_looks_again_until_the_outbox_knows_what_was_decided_before_the_change_and_then_no_more(
    world: World,
) -> None:
    person = someone()
    await world.put(person, PHONE)
    world.progress.known_until = await world.pool.fetchval("SELECT clock_timestamp()")
    await world.put(person, OTHER_PHONE)
    for looks in range(1, 5):
        await world.ask()
        await world.ask()  # it is not yet time
        assert len(world.requests) == looks
        await world.next_look()
    world.progress.known_until = await world.pool.fetchval("SELECT changed_at FROM changed_people")
    for _ in range(2):
        await world.ask()
        await world.next_look()
    assert len(world.requests) == 5
    assert await world.pool.fetchval("SELECT count(*) FROM changed_people") == 0


async def test_a_fault_of_its_own_is_not_taken_for_an_absence_of_kafka(world: World) -> None:
    person = someone()
    await world.put(person, PHONE)
    await world.put(person, OTHER_PHONE)
    world.progress.error = ValueError()
    with pytest.raises(ValueError):
        await world.ask()


async def test_while_kafka_is_away_it_looks_and_no_look_is_the_last(world: World) -> None:
    person = someone()
    await world.put(person, PHONE)
    await world.put(person, OTHER_PHONE)
    world.progress.error = KafkaConnectionError()
    world.pages = [[queued()]]
    assert await world.ask() == 1
    assert await world.pool.fetchval("SELECT looks FROM changed_people") == 1


@pytest.mark.parametrize("when", ["later", "while it is the last look", "while others follow", "while it fails"])
async def test_who_changes_again_is_looked_for_at_once_and_from_the_beginning(world: World, when: str) -> None:
    person = someone()
    await world.put(person, PHONE)
    await world.put(person, OTHER_PHONE)
    world.pages = [[queued()]]
    if when == "while it is the last look":
        world.progress.known_until = await world.pool.fetchval("SELECT clock_timestamp()")
    if when == "while it fails":
        world.failing = {person.id}

    async def change() -> None:
        await world.put(person, "+254700000002")

    if when == "later":
        await world.ask()
        await change()
    else:
        world.meanwhile = change
        await world.ask()
        world.meanwhile = None
    assert await world.pool.fetchval("SELECT looks FROM changed_people") == 0
    world.failing = set()
    assert await world.ask() == 1
    assert await world.pool.fetchval("SELECT looks FROM changed_people") == 1, "what it knew is not of this change"


async def test_while_the_outbox_is_away_nobody_is_looked_for_and_the_looks_are_still_due(world: World) -> None:
    for person in (someone(), someone()):
        await world.put(person, PHONE)
        await world.put(person, OTHER_PHONE)
    world.pages = [[queued()]]
    world.away = True
    assert await world.ask() == 0
    assert len({request.query["clientId"] for request in world.requests}) == 1
    asked = len(world.requests)
    world.away = False
    await world.ask()
    assert len(world.requests) == asked, "the lease is not over"
    await world.next_look()
    assert await world.ask() == 2


@pytest.mark.parametrize("how", ["failing", "garbled"])
async def test_whom_the_outbox_does_not_answer_for_is_put_off_and_holds_up_nobody(world: World, how: str) -> None:
    first, *others = [someone() for _ in range(3)]
    for person in (first, *others):
        await world.put(person, PHONE)
        await world.put(person, OTHER_PHONE)
    world.pages = [[queued()]]
    setattr(world, how, {first.id})
    assert await world.ask() == 2
    await world.pool.execute("UPDATE changed_people SET changed_at = changed_at - interval '10 minutes'")
    await world.next_look()
    assert await world.ask() == 2
    put_off = "SELECT next_look > now() + interval '9 minutes', looks FROM changed_people WHERE id = $1"
    assert tuple(await world.pool.fetchrow(put_off, first.id)) == (True, 0)
    await world.pool.execute("UPDATE changed_people SET changed_at = changed_at - interval '10 hours'")
    await world.next_look()
    assert await world.ask() == 2
    too_far = "SELECT next_look > now() + interval '61 minutes' FROM changed_people WHERE id = $1"
    assert not await world.pool.fetchval(too_far, first.id)
    setattr(world, how, set())
    await world.next_look()
    assert await world.ask() == 3


async def test_a_bare_number_is_not_looked_for_and_holds_up_nobody(world: World) -> None:
    person, number = someone(), Person("acme", PersonKind.NUMBER, "4f1c")
    for who in (number, person):
        await world.put(who, PHONE)
        await world.put(who, OTHER_PHONE)
    world.pages = [[queued()]]
    assert await world.ask() == 1
    world.progress.known_until = await world.pool.fetchval("SELECT clock_timestamp()")
    await world.next_look()
    assert await world.ask() == 1
    assert await world.pool.fetchval("SELECT count(*) FROM changed_people") == 0
