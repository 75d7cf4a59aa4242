"""What a connection works with: the application that it serves, and the server that it belongs to."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from services.api_gateway.http.calls import Call
from services.api_gateway.http.responses import Response

if TYPE_CHECKING:
    from services.api_gateway.http.connection import Connection


class Application(Protocol):
    """What is served. None of these raises."""

    def admit(self, call: Call) -> Response | None:
        """The head has come. Sets the call's route, parameters, caller and limits. An answer if the call is refused by its head alone; its
        body is then skipped."""
        ...

    def serve(self, call: Call) -> None:
        """The body has come: see to it that the call is answered."""
        ...

    def response(self, call: Call, result: Response | Exception) -> Response:
        """The answer to write for a handler's result or error. Counted in the metrics."""
        ...


class Server(Protocol):
    """What a connection needs of its server. `now` is the loop's time and `common` the header lines of every answer, both as of the last
    sweep."""

    application: Application
    now: float
    common: str

    def opened(self, connection: Connection) -> None: ...

    def closed(self, connection: Connection) -> None: ...
