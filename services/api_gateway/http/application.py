"""What a connection serves."""

from __future__ import annotations

from typing import Protocol

from services.api_gateway.http.calls import Call
from services.api_gateway.http.responses import Response


class Application(Protocol):
    """None of these raises."""

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
