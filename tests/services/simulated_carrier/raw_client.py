"""An SMPP peer without manners: sends what it is told, keeps what it gets, answers nothing by itself."""

from __future__ import annotations

import asyncio
from typing import TypeVar

from libs.smpp.codec import Framer, decode
from libs.smpp.pdus import (
    Bind,
    BindResp,
    BindType,
    DeliverSm,
    DeliverSmResp,
    EnquireLink,
    EnquireLinkResp,
    Pdu,
    SubmitSm,
    SubmitSmResp,
)

SECONDS = 5.0
_Pdu = TypeVar("_Pdu", bound=Pdu)


class RawClient(asyncio.Protocol):
    def __init__(self) -> None:
        self.inbox: list[tuple[int, Pdu]] = []
        self.ended = asyncio.Event()
        self.error: Exception | None = None
        self._framer = Framer()
        self._changed = asyncio.Event()
        self._sequence = 0
        self._transport: asyncio.Transport | None = None

    @property
    def transport(self) -> asyncio.Transport:
        assert self._transport is not None
        return self._transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self.inbox += [decode(frame) for frame in self._framer.feed(data)]
        self._changed.set()

    def connection_lost(self, exc: Exception | None) -> None:
        self.error = exc
        self.ended.set()
        self._changed.set()

    def send(self, *pdus: Pdu) -> list[int]:
        """Writes them in one piece; gives their sequence numbers."""
        first = self._sequence + 1
        self._sequence += len(pdus)
        self.transport.write(b"".join(pdu.encode(first + index) for index, pdu in enumerate(pdus)))
        return list(range(first, self._sequence + 1))

    async def receive(self, kind: type[_Pdu], seconds: float = SECONDS) -> tuple[int, _Pdu]:
        """Takes the oldest PDU of that kind out of the inbox, when there is one. TimeoutError, ConnectionError."""
        async with asyncio.timeout(seconds):
            while True:
                for index, (sequence, pdu) in enumerate(self.inbox):
                    if isinstance(pdu, kind):
                        del self.inbox[index]
                        return sequence, pdu
                if self.ended.is_set():
                    raise ConnectionError(f"ended without a {kind.__name__}")
                self._changed.clear()
                await self._changed.wait()

    async def bind(
        self, system_id: str = "demo", bind_type: BindType = BindType.TRANSCEIVER, password: str = ""
    ) -> BindResp:
        self.send(Bind(bind_type, system_id, password))
        return (await self.receive(BindResp))[1]

    async def submit(self, submit: SubmitSm) -> SubmitSmResp:
        self.send(submit)
        return (await self.receive(SubmitSmResp))[1]

    async def take_delivery(self, command_status: int = 0) -> DeliverSm:
        """The next deliver_sm, answered so."""
        sequence, pdu = await self.receive(DeliverSm)
        self.transport.write(DeliverSmResp(command_status).encode(sequence))
        return pdu

    async def is_quiet(self, kind: type[Pdu]) -> bool:
        """Whether nothing of that kind has come by the time that a question asked now is answered."""
        self.send(EnquireLink())
        await self.receive(EnquireLinkResp)
        return not any(isinstance(pdu, kind) for _, pdu in self.inbox)


def sms(destination: str = "4917012345678", text: bytes = b"hello", **fields: object) -> SubmitSm:
    """A submit that asks for a receipt."""
    return SubmitSm("bank", destination, text, **{"registered_delivery": 1, **fields})
