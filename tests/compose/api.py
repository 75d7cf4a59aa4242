"""A caller of the API that needs nothing but the standard library."""

import json
import time
import urllib.error
import urllib.request
from typing import Any

PATIENCE_SECONDS = 30.0  # a service that has just been killed makes the API answer 502 to 504 for a moment


class Api:
    def __init__(self, url: str, key: str) -> None:
        self._url = url
        self._key = key

    def put_client(self, number: int, phone: str) -> None:
        self._call("PUT", f"/clients/{number}", {"phone": phone, "name": f"Client {number}"})

    def send(self, client: int, text: str, idempotency_key: str) -> str:
        """The id of the accepted message."""
        return self._call("POST", "/sms", {"clientId": client, "message": text}, {"Idempotency-Key": idempotency_key})[
            "id"
        ]

    def status(self, message: str) -> str:
        return self._call("GET", f"/sms/{message}")["status"]

    def _call(
        self, method: str, path: str, body: object = None, headers: dict[str, str] | None = None
    ) -> dict[str, Any]:
        """The answer; what is not there for now is asked again. Every call may be repeated. Raises `AssertionError`."""
        request = urllib.request.Request(
            self._url + path,
            method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers={"Authorization": f"Bearer {self._key}", "Content-Type": "application/json", **(headers or {})},
        )
        deadline = time.monotonic() + PATIENCE_SECONDS
        while True:
            try:
                with urllib.request.urlopen(request, timeout=20) as response:
                    return json.loads(response.read() or b"{}")
            except urllib.error.HTTPError as error:
                words = f"{method} {path} answered {error.code}: {error.read().decode(errors='replace')[:500]}"
                if error.code < 500 and error.code != 409:  # 409: a request whose answer we missed is under way still
                    raise AssertionError(words) from error
            except OSError as error:
                words = f"{method} {path} was not answered: {error}"
            if time.monotonic() > deadline:
                raise AssertionError(words)
            time.sleep(0.3)
