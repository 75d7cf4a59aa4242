"""What a connection works with: the application that it serves, and the server that it belongs to."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from services.api_gateway.calls import Call
from services.api_gateway.responses import Response

if TYPE_CHECKING:
    from services.api_gateway.connection import Connection


class Application(Protocol):
    """What is served. None of these raises."""

    def admit(self, call: Call) -> Response | None:
        """The head is there: an answer if that is all there is to say (the body is then skipped). Sets what the call may do."""
        ...

    def serve(self, call: Call) -> None:
        """The body is there: see to it that the call is answered."""
        ...

    def response(self, call: Call, result: Response | Exception) -> Response:
        """What goes out for the result; it is counted."""
        ...


class Server(Protocol):
    """What a connection needs of its server."""

    application: Application
    now: float
    common: str

    def opened(self, connection: Connection) -> None: ...

    def closed(self, connection: Connection) -> None: ...
