"""An API gateway over real HTTP whose Kafka, Postgres, resolver, projection and inbound are stand-ins."""

import asyncio
import json
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from hashlib import sha256
from typing import Any
from uuid import UUID

import aiohttp
from aiohttp import web
from yarl import URL

from libs.bus.codec import decoder
from libs.bus.port import KeyValue, Outgoing
from libs.contracts.asyncapi import asyncapi
from libs.contracts.events import MessageEvent, SmsRequested
from libs.contracts.topics import REQUESTED
from libs.service_kit.config_file import ApiKey, Scope
from libs.service_kit.internal import HEADER, TENANT_HEADER
from services.api_gateway.accepting import Accepter
from services.api_gateway.api_keys import ApiKeys
from services.api_gateway.asked import Ask, AskedTable, What
from services.api_gateway.bulk.accepting import BulkAccepter
from services.api_gateway.commands import Commands
from services.api_gateway.handlers import Services
from services.api_gateway.http.server import Server, serve
from services.api_gateway.idempotency import InProgress, Ledger, OtherBody, Publish, Published, Reservation, Verdict
from services.api_gateway.neighbours import Neighbour
from services.api_gateway.numbers import BLOCK, Numbers
from services.api_gateway.openapi import openapi
from services.api_gateway.publishing import DurablePublisher
from services.api_gateway.routed_application import RoutedApplication
from services.api_gateway.routes import ROUTES
from services.api_gateway.upstreams import Upstream

ALL_KEY = "all-scopes-key-0123456789"
SEND_KEY = "send-only-key-0123456789"
SLOW_KEY = "slow-key-0123456789abcdef"
STEADY_KEY = "steady-key-0123456789abcd"
OTHER_TENANT_KEY = "other-tenant-key-0123456789"
OUTCOME_KEY = "outcome-only-key-0123456789"
OPENAPI, ASYNCAPI = (json.dumps(document).encode() for document in (openapi(ROUTES), asyncapi()))
TOKEN = "internal-token-0123456789"


def _key(name: str, key: str, scopes: set[Scope], tenant: str = "demo", rate: float = 0) -> ApiKey:
    key_hash = sha256(key.encode()).hexdigest()
    return ApiKey(name=name, tenant=tenant, key_hash=key_hash, scopes=frozenset(scopes), requests_per_second=rate)


API_KEYS = (
    _key("all", ALL_KEY, set(Scope)),
    _key("sender", SEND_KEY, {Scope.SEND}),
    _key("slow", SLOW_KEY, {Scope.SEND}, rate=0.1),
    _key("steady", STEADY_KEY, {Scope.SEND}, rate=5),
    _key("other", OTHER_TENANT_KEY, set(Scope), tenant="other"),
    _key("operator", OUTCOME_KEY, {Scope.OUTCOME}),
)

_decode = decoder(REQUESTED)


class FakePublisher:
    """Keeps what is published; fails while `error` is set, waits while `gate` is closed, but for the first `let_through` calls."""

    def __init__(self) -> None:
        self.records: list[Outgoing] = []
        self.calls = 0
        self.let_through = 0
        self.error: Exception | None = None
        self.gate = asyncio.Event()
        self.gate.set()

    async def publish(self, topic: str, records: Sequence[KeyValue]) -> None:
        await self.publish_many([Outgoing(topic, key, value) for key, value in records])

    async def publish_many(self, records: Sequence[Outgoing]) -> None:
        self.calls += 1
        if self.calls > self.let_through:
            await self.gate.wait()
            if self.error is not None:
                raise self.error
        self.records += records

    @property
    def events(self) -> list[MessageEvent[SmsRequested]]:
        return [_decode(record.value or b"") for record in self.records]  # type: ignore[misc]


class FakeLedger(Ledger):
    """Keys in a dictionary. Fails while `error` is set."""

    def __init__(self) -> None:
        self.rows: dict[str, Reservation] = {}
        self.marked: list[str] = []
        self.released: list[str] = []
        self.claims_last = True
        self.error: Exception | None = None
        self.blocks = 0

    async def reserve(self, reservations: Sequence[Reservation]) -> list[Verdict]:
        self._check()
        return [self._reserve(r) for r in reservations]

    def _reserve(self, reservation: Reservation) -> Verdict:
        stored = self.rows.setdefault(reservation.key, reservation)
        if stored.body_hash != reservation.body_hash:
            return OtherBody()
        if stored.key in self.marked:
            return Published(stored.message_id, stored.number)
        if stored is reservation or not self.claims_last or stored.key in self.released:
            return Publish(stored.message_id, stored.number, stored.record)
        return InProgress(7)

    async def mark(self, keys: Sequence[str]) -> None:
        self._check()
        self.marked += keys

    async def release(self, keys: Sequence[str]) -> None:
        self._check()
        self.released += keys

    async def known(self, keys: Sequence[str]) -> set[str]:
        self._check()
        return {key for key in keys if key in self.rows}

    async def forget(self, key: str) -> None:
        self._check()
        self.rows.pop(key, None)

    async def next_block(self) -> int:
        self._check()
        self.blocks += 1
        return 1 + (self.blocks - 1) * BLOCK

    def _check(self) -> None:
        if self.error is not None:
            raise self.error


class FakeAsked(AskedTable):
    """What was first asked, in a dictionary. Fails while `error` is set."""

    def __init__(self) -> None:
        self.rows: dict[tuple[What, UUID, int], Ask] = {}
        self.error: Exception | None = None

    async def first(self, what: What, message_id: UUID, cycle: int, now: Ask) -> Ask:
        if self.error is not None:
            raise self.error
        return self.rows.setdefault((what, message_id, cycle), now)

    async def newest(self, what: What, message_id: UUID) -> int | None:
        if self.error is not None:
            raise self.error
        return max((cycle for kind, of, cycle in self.rows if (kind, of) == (what, message_id)), default=None)


@dataclass
class Asked:
    """What an upstream was asked."""

    method: str
    path: str
    query: dict[str, str]
    tenant: str
    body: Any


class FakeUpstream:
    """Answers everything as it is told to, once `gate` is open, and remembers what it was asked."""

    def __init__(self) -> None:
        self.asked: list[Asked] = []
        self.status = 200
        self.body: bytes = b"{}"
        self.content_type: str = "application/json"
        self.headers: dict[str, str] = {}
        self.gate = asyncio.Event()
        self.gate.set()
        self.url = ""

    @asynccontextmanager
    async def running(self) -> AsyncIterator["FakeUpstream"]:
        self._runner = web.ServerRunner(web.Server(self._answer))
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        host, port = self._runner.addresses[0][:2]
        self.url = f"http://{host}:{port}"
        try:
            yield self
        finally:
            await self.stop()

    async def stop(self) -> None:
        await self._runner.cleanup()

    async def _answer(self, request: web.BaseRequest) -> web.StreamResponse:
        if request.headers.get(HEADER) != TOKEN:
            return web.Response(status=401)
        body = await request.read()
        self.asked.append(
            Asked(
                request.method,
                request.rel_url.raw_path,
                dict(request.query),
                request.headers[TENANT_HEADER],
                json.loads(body) if body else None,
            )
        )
        await self.gate.wait()
        if self.status == 204:
            return web.Response(status=204)
        return web.Response(status=self.status, body=self.body, content_type=self.content_type, headers=self.headers)


@dataclass
class Answer:
    status: int
    headers: Mapping[str, str]
    body: Any


@dataclass
class Gateway:
    """A running gateway and its stand-ins."""

    url: str
    session: aiohttp.ClientSession
    publisher: FakePublisher
    ledger: FakeLedger
    asked: FakeAsked
    resolver: FakeUpstream
    projection: FakeUpstream
    inbound: FakeUpstream
    kafka: Neighbour
    postgres: Neighbour
    accepter: Accepter
    server: Server = field(repr=False)

    async def ask(
        self,
        method: str,
        path: str,
        *,
        key: str | None = ALL_KEY,
        headers: Mapping[str, str] | None = None,
        **more: Any,
    ) -> Answer:
        sent = dict(headers or {})
        if key is not None:
            sent["Authorization"] = f"Bearer {key}"
        async with self.session.request(method, URL(self.url + path, encoded=True), headers=sent, **more) as response:
            content = await response.read()
            body = json.loads(content) if "json" in response.content_type else content
            return Answer(response.status, response.headers, body)

    async def send(self, body: Any = None, *, idempotency_key: str | None = None, **more: Any) -> Answer:
        headers = {"Idempotency-Key": idempotency_key} if idempotency_key is not None else {}
        sent = {"message": "Hello", "clientId": "17"} if body is None else body
        return await self.ask("POST", "/sms", json=sent, headers=headers, **more)


@asynccontextmanager
async def running_gateway(timeout_seconds: float = 4.0, forward_seconds: float = 15.0) -> AsyncIterator[Gateway]:
    publisher, ledger, asked = FakePublisher(), FakeLedger(), FakeAsked()
    kafka, postgres = Neighbour("Kafka"), Neighbour("Postgres")
    numbers = Numbers(ledger.next_block, postgres)
    await numbers.fetch(BLOCK)
    async with (
        FakeUpstream().running() as resolver,
        FakeUpstream().running() as projection,
        FakeUpstream().running() as inbound,
        aiohttp.ClientSession() as session,
    ):
        durable = DurablePublisher(publisher, kafka, timeout_seconds)
        accepter = Accepter(durable, ledger, numbers, timeout_seconds=timeout_seconds, postgres=postgres)
        validity = timedelta(hours=48)
        bulk = BulkAccepter(durable, ledger, numbers, postgres, validity)
        upstreams = (
            Upstream("resolver", resolver.url, TOKEN, forward_seconds),
            Upstream("projection", projection.url + "/", TOKEN, forward_seconds),
            Upstream("inbound service", inbound.url, TOKEN, forward_seconds),
        )
        services = Services(
            accepter=accepter,
            bulk=bulk,
            commands=Commands(asked, durable, postgres, default_validity=validity, max_resends=3),
            resolver=upstreams[0],
            projection=upstreams[1],
            inbound=upstreams[2],
            default_validity=validity,
            openapi=OPENAPI,
            asyncapi=ASYNCAPI,
        )
        server = await serve(RoutedApplication(ROUTES, ApiKeys(API_KEYS), services), "127.0.0.1", 0)
        host, port = server.address
        try:
            yield Gateway(
                f"http://{host}:{port}",
                session,
                publisher,
                ledger,
                asked,
                resolver,
                projection,
                inbound,
                kafka,
                postgres,
                accepter,
                server,
            )
        finally:
            for gate in (publisher.gate, resolver.gate, projection.gate, inbound.gate):
                gate.set()
            await server.stop(10)
            for upstream in upstreams:
                await upstream.close()
            await accepter.stop()
            await bulk.stop()
            await numbers.stop()
