"""One connection of HTTP/1.1 (RFC 9112): httptools reads it, answers go out in the order of the requests.

Nothing here costs a task or a timer per request. Time is looked at by the server's sweep alone, so limits are kept to about a second.
"""

from __future__ import annotations

import asyncio
from collections import deque
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from httptools import HttpParserError, HttpParserUpgrade, HttpRequestParser

from libs.service_kit.problems import ProblemError
from services.api_gateway.http.calls import Call, too_large
from services.api_gateway.http.responses import LAST_CHUNK, Response, chunk, encode, encode_beginning
from services.api_gateway.http.unread import unread_bytes

if TYPE_CHECKING:
    from services.api_gateway.http.server import Server

MAX_HEAD_BYTES = 16 * 1024
MAX_PIPELINED = 64
"""With so many requests unanswered, no more are read."""
KEEPALIVE_SECONDS = 75.0
HEAD_SECONDS = 10.0
BODY_SECONDS = 10.0
BODY_BYTES_A_SECOND = 64 * 1024
"""A body may take a second more for each so many bytes of it that have come."""
STALLED_SECONDS = 30.0
"""For how long a client may read nothing of the answers that wait for it."""
LINGER_SECONDS = 2.0
"""For how long what a client still sends is read after its last answer, lest a reset destroy that on its way."""


class _Stop(Exception):
    """Raised into the parser: it is to look at nothing more."""


class Connection(asyncio.Protocol):
    """Parses, admits, serves and answers. `_calls` are unanswered, in the order of their requests; `_incoming` is the last of them
    as long as its body is coming, `_waiting` are those that are whole and not yet served."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._application = server.application
        self._transport: Any = None  # asyncio.Transport; uvloop's is none by name
        self._parser = HttpRequestParser(self)
        self._calls: deque[Call] = deque()
        self._waiting: deque[Call] = deque()
        self._incoming: Call | None = None
        self._running = 0  # calls that are being served
        self._together = False  # whether those may have others beside them
        self._starting = False
        self._in_head = False
        self._last = False  # no request after those in `_calls`
        self._lingering = False
        self._writable = True
        self._unread = 0  # bytes, as the last sweep saw them
        self._reading = True
        self._continue = False
        self._since = server.now
        self._target = b""
        self._headers: dict[bytes, bytes] = {}
        self._repeated: frozenset[bytes] = frozenset()
        self._head_left = MAX_HEAD_BYTES
        self._silent = 0  # bytes since the parser last told anything: of one header, or trailer, that has not ended
        self._upgrade = False
        self._retold: frozenset[bytes] = frozenset()  # `_repeated` of a head that is told once more
        self._body = bytearray()
        self._room = 0  # bytes that the incoming body may still have

    # the transport's side

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        self._server.opened(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        del self._parser  # each holds the other, which would keep both until garbage is collected
        self._waiting.clear()
        self._server.closed(self)

    def data_received(self, data: bytes) -> None:
        if self._last and (self._incoming is None or self._incoming.response is not None):
            return
        try:
            self._parse(data)
        except HttpParserError:
            # What follows the last request is nobody's; an incoming call that has its answer was given up already.
            if not self._last or (self._incoming is not None and self._incoming.response is None):
                self._give_up(ProblemError(HTTPStatus.BAD_REQUEST, "this is not HTTP/1.1, or a header is too long"))
        if self._silent > MAX_HEAD_BYTES and (self._in_head or self._incoming is not None):
            self._give_up(ProblemError(HTTPStatus.BAD_REQUEST, "a header is too long"))
        self._regulate()

    def eof_received(self) -> bool:
        """The client sends no more; what is whole is still answered."""
        self._last = True
        if self._incoming is not None and self._incoming.response is None:
            self._calls.remove(self._incoming)
        self._incoming = None
        return bool(self._calls)

    def pause_writing(self) -> None:
        self._writable = False
        self._since = self._server.now
        self._regulate()

    def resume_writing(self) -> None:
        self._writable = True
        self._since = self._server.now
        self._start()
        self._regulate()

    # the parser's side

    def _parse(self, data: bytes) -> None:
        """Raises HttpParserError. There is nothing to upgrade to (RFC 9110 §7.8), so a request that wishes for it is served as it is:
        httptools reads no body of it and pauses, then a new parser is told the head without the header, and what follows."""
        left: list[bytes | memoryview] = [data]
        while left:
            piece = left.pop()
            self._silent += len(piece)
            try:
                self._parser.feed_data(piece)
            except HttpParserUpgrade as pause:
                left = [memoryview(piece)[pause.args[0] :], self._head_again()] if self._upgrade else []

    def _head_again(self) -> bytes:
        self._upgrade = False
        lines = [b"%b %b HTTP/%b" % (self._parser.get_method(), self._target, self._parser.get_http_version().encode())]
        lines += [b"%b: %b" % header for header in self._headers.items() if header[0] != b"upgrade"]
        self._retold = self._repeated
        self._parser = HttpRequestParser(self)
        return b"\r\n".join(lines) + b"\r\n\r\n"

    def on_message_begin(self) -> None:
        self._in_head = True
        self._since = self._server.now
        self._target = b""
        self._headers = {}
        self._repeated, self._retold = self._retold, frozenset()
        self._head_left = MAX_HEAD_BYTES
        self._silent = 0

    def on_url(self, url: bytes) -> None:
        self._silent = 0
        self._target += url
        self._head_left -= len(url)
        if self._head_left < 0:
            raise _Stop

    def on_header(self, name: bytes, value: bytes) -> None:
        self._silent = 0
        self._head_left -= len(name) + len(value)
        if self._head_left < 0:
            raise _Stop
        if not self._in_head:  # a trailer: nothing here wants any
            return
        name = name.lower()
        if name in self._headers:
            self._repeated |= {name}
            value = self._headers[name] + b", " + value
        self._headers[name] = value

    def on_headers_complete(self) -> None:
        self._in_head = False
        self._since = self._server.now
        if self._last:
            raise _Stop
        if b"upgrade" in self._headers and self._parser.should_upgrade():
            self._upgrade = True
            return
        method = self._parser.get_method().decode()
        keep_alive = self._parser.should_keep_alive() and method != "CONNECT"
        newer = self._parser.get_http_version() == "1.1"
        call = Call(self, method, self._target, self._headers, self._repeated, chunked=newer)
        self._last = not keep_alive
        self._calls.append(call)
        self._incoming = call
        self._body = bytearray()
        if b"host" in self._repeated or (newer and b"host" not in self._headers):  # RFC 9112 §3.2
            self._give_up(ProblemError(HTTPStatus.BAD_REQUEST, "Host: must be given, and once"))
            raise _Stop
        self._admit(call)

    def on_body(self, body: bytes) -> None:
        call = self._incoming
        if call is None:
            return
        self._continue = False
        self._silent = 0
        self._head_left = MAX_HEAD_BYTES  # of what is neither head nor body there may be as much, trailers above all
        self._room -= len(body)
        if self._room < 0:
            self._give_up(too_large(call.most_bytes))
            raise _Stop
        if call.response is None:
            self._body += body  # one piece: a client may send it in chunks of a byte, and each would be an object

    def on_message_complete(self) -> None:
        call, self._incoming = self._incoming, None
        if call is None or call.response is not None:
            return
        call.body = bytes(self._body)
        self._body = bytearray()
        self._waiting.append(call)
        self._start()

    def _admit(self, call: Call) -> None:
        """Decide by the head alone: refuse, or take the body."""
        refusal = self._application.admit(call)
        most = self._room = call.most_bytes
        expect = call.headers.get(b"expect") if call.chunked else None  # HTTP/1.0 has none (RFC 9110 §10.1.1)
        if refusal is not None:
            call.response = refusal
            if expect is not None:  # whether the body comes after all, nobody knows
                self._last = True
            self._flush()
            return
        length = call.headers.get(b"content-length")
        if length is not None and int(length) > most:
            self._give_up(too_large(most))
            raise _Stop
        if expect is not None:  # RFC 9110 §10.1.1: the client waits for a word before it sends the body
            if expect.lower() != b"100-continue":
                self._give_up(ProblemError(HTTPStatus.EXPECTATION_FAILED, "Expect: only 100-continue is known"))
                raise _Stop
            self._continue = True
            self._flush()

    # the application's side

    def answered(self, call: Call, result: Response | Exception) -> None:
        if call.open:  # what failed half-way can only break off (RFC 9112 §8)
            self._application.response(call, result)
            self.abort()
        elif call.response is None:
            call.response = self._application.response(call, result)
            self._done()

    def begun(self, call: Call, response: Response) -> None:
        call.response = self._application.response(call, response)
        call.open = True
        self._write(encode_beginning(call.response, common=self._common(call)))

    def continued(self, call: Call, piece: bytes) -> None:
        self._write(chunk(piece))

    def ended(self, call: Call) -> None:
        call.open = False
        self._write(LAST_CHUNK)
        self._calls.popleft()
        self._since = self._server.now
        self._done()

    def _done(self) -> None:
        self._running -= 1
        self._flush()
        self._start()
        self._regulate()

    def _write(self, data: bytes) -> None:
        # One that the client has just closed and whose loss is not told yet: for uvloop a write to it is an error.
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(data)

    def _start(self) -> None:
        """Serve what waits while there is room for answers; a call that may not run alongside others waits for those before it."""
        if self._starting:
            return
        self._starting = True
        while self._waiting and self._writable:
            together = self._waiting[0].alongside
            if self._running and not (together and self._together):
                break
            self._together = together
            self._running += 1
            self._application.serve(self._waiting.popleft())
        self._starting = False

    def _flush(self) -> None:
        """Write the answers whose turn it is; one that is open keeps it."""
        calls = self._calls
        while calls and (response := calls[0].response) is not None and not calls[0].open:
            call = calls[0]
            self._since = self._server.now
            if self._transport is not None:
                self._write(encode(response, common=self._common(call), with_body=call.method != "HEAD"))
            calls.popleft()
        if self._transport is None:
            return
        if self._last and not calls:
            self._finish()
        elif self._continue and calls and calls[0] is self._incoming:
            self._continue = False
            self._write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def _common(self, call: Call) -> str:
        """The header lines that are the connection's, for the answer whose turn it is."""
        if self._last and len(self._calls) == 1:
            return self._server.common + "Connection: close\r\n"
        if b"connection" in call.headers:  # HTTP/1.0 wants to hear it
            return self._server.common + "Connection: keep-alive\r\n"
        return self._server.common

    # limits and ends

    def drain(self) -> None:
        """Take no more requests; close once those that are here are answered."""
        self._last = True
        if self._lingering:
            self._transport.close()
        else:
            self._flush()

    def abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    def sweep(self) -> None:
        """Called about once a second."""
        if not self._writable:
            before, self._unread = self._unread, unread_bytes(self._transport)
            if self._unread < before:
                self._since = self._server.now
        idle = self._server.now - self._since
        if self._lingering or not self._writable:
            if idle > (LINGER_SECONDS if self._lingering else STALLED_SECONDS):
                self.abort()
        elif self._incoming is not None and idle > self._body_seconds:
            words = f"the body did not come within {self._body_seconds:.0f} s"
            self._give_up(ProblemError(HTTPStatus.REQUEST_TIMEOUT, words))
        elif self._in_head and not self._calls and idle > HEAD_SECONDS:
            words = f"the head did not come within {HEAD_SECONDS:g} s"
            self._give_up(ProblemError(HTTPStatus.REQUEST_TIMEOUT, words))
        elif not self._calls and idle > KEEPALIVE_SECONDS and self._transport is not None:
            self._transport.close()

    @property
    def _body_seconds(self) -> float:
        come = self._incoming.most_bytes - self._room if self._incoming is not None else 0
        return BODY_SECONDS + come / BODY_BYTES_A_SECOND

    def _give_up(self, problem: ProblemError) -> None:
        """Answer what is coming in with this problem, as the last thing on this connection; what still comes is not looked at."""
        call = self._incoming
        if call is None:
            call = Call(self, "", b"/", {}, frozenset(), chunked=False)
            self._calls.append(call)
        if call.response is None:
            call.response = self._application.response(call, problem)
        self._incoming = call  # its end is not known
        self._last = True
        self._flush()

    def _finish(self) -> None:
        """The last answer is written."""
        if self._incoming is None or self._transport.is_closing():
            self._transport.close()
        elif not self._lingering:
            self._lingering = True
            self._since = self._server.now
            self._transport.write_eof()
            self._regulate()

    def _regulate(self) -> None:
        """Read only as long as there is room for the answers."""
        wanted = self._lingering or (self._writable and len(self._calls) < MAX_PIPELINED)
        if wanted is not self._reading and self._transport is not None and not self._transport.is_closing():
            self._reading = wanted
            if wanted:
                self._transport.resume_reading()
            else:
                self._transport.pause_reading()
