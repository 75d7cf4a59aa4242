"""A tiny SMSC that does what a test tells it. It answers binds, unbinds and enquire_links; all else is the script's."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any, cast

from libs.smpp import pdus
from libs.smpp.codec import Framer, decode
from libs.smpp.config import SessionConfig
from libs.smpp.pdus import Pdu

Script = Callable[["Connection", int, Pdu], bool]
"""Sees each PDU first; True when it has dealt with it."""


class Connection(asyncio.Protocol):
    """One connection as the SMSC sees it."""

    def __init__(self, smsc: "ScriptedSmsc") -> None:
        self.smsc = smsc
        self.received: list[tuple[int, Pdu]] = []
        self.lost = False
        self.transport: asyncio.Transport
        self._framer = Framer()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.smsc.connections.append(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost = True

    def data_received(self, data: bytes) -> None:
        for frame in self._framer.feed(data):
            sequence, pdu = decode(frame)
            self.received.append((sequence, pdu))
            if not self.smsc.script(self, sequence, pdu):
                self.answer(sequence, pdu)

    def answer(self, sequence: int, pdu: Pdu) -> None:
        """What a plain SMSC would say."""
        match pdu:
            case pdus.Bind(bind_type=bind_type):
                self.send(sequence, pdus.BindResp(bind_type, 0, "smsc"))
            case pdus.SubmitSm():
                self.send(sequence, pdus.SubmitSmResp(0, f"id-{sequence}"))
            case pdus.EnquireLink():
                self.send(sequence, pdus.EnquireLinkResp())
            case pdus.Unbind():
                self.send(sequence, pdus.UnbindResp())
            case _:
                pass

    def send(self, sequence: int, pdu: Pdu) -> None:
        self.transport.write(pdu.encode(sequence))

    def of(self, kind: type[Pdu]) -> list[int]:
        """The sequence numbers of the PDUs of one kind that have come."""
        return [sequence for sequence, pdu in self.received if isinstance(pdu, kind)]

    def statuses(self, kind: type[pdus.DeliverSmResp] | type[pdus.DataSmResp]) -> list[tuple[int, int]]:
        """The answers of one kind that have come: sequence number and command_status."""
        return [(sequence, pdu.command_status) for sequence, pdu in self.received if isinstance(pdu, kind)]


class ScriptedSmsc:
    """The listening side."""

    def __init__(self, script: Script) -> None:
        self.script = script
        self.connections: list[Connection] = []
        self.port = 0

    def config(self, **changes: Any) -> SessionConfig:
        """A configuration that reaches this SMSC."""
        config = SessionConfig(host="127.0.0.1", port=self.port, system_id="client", password="secret")
        return replace(config, **changes)


def plainly(_connection: Connection, _sequence: int, _pdu: Pdu) -> bool:
    """The script that leaves everything to the SMSC."""
    return False


@asynccontextmanager
async def scripted_smsc(script: Script = plainly, tls: ssl.SSLContext | None = None) -> AsyncIterator[ScriptedSmsc]:
    """An SMSC on a free port."""
    smsc = ScriptedSmsc(script)
    server = await asyncio.get_running_loop().create_server(lambda: Connection(smsc), "127.0.0.1", 0, ssl=tls)
    smsc.port = server.sockets[0].getsockname()[1]
    try:
        yield smsc
    finally:
        server.close()
        for connection in smsc.connections:
            connection.transport.abort()
        await server.wait_closed()
