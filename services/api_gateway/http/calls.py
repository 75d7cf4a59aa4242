"""What a handler is given, and how it reads it: the caller, the path's parameters, the query, the body."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping
from http import HTTPStatus
from typing import TYPE_CHECKING, Protocol, TypeVar
from urllib.parse import parse_qsl

from httptools import parse_url
from pydantic import TypeAdapter, ValidationError

from libs.contracts.http.model import ApiModel
from libs.contracts.http.problems import reason
from libs.service_kit.problems import ProblemError, bad_field, invalid
from services.api_gateway.api_keys import NOBODY
from services.api_gateway.http.responses import JSON, Response
from services.api_gateway.problems import invalid_body

if TYPE_CHECKING:
    from services.api_gateway.routes import Route

MAX_BODY_BYTES = 64 * 1024
NOT_UTF8 = "surrogateescape"
"""How what is not UTF-8 is decoded, so that it is still known for that."""

M = TypeVar("M", bound=ApiModel)
V = TypeVar("V")


class Answers(Protocol):
    """Who takes a call's answer back to the caller."""

    def answered(self, call: Call, result: Response | Exception) -> None: ...

    def begun(self, call: Call, response: Response) -> None: ...

    def continued(self, call: Call, piece: bytes) -> None: ...

    def ended(self, call: Call) -> None: ...


class Call:
    """One request, from the end of its head on. Every reader below raises the problem that the caller is to be told.

    `headers` by their names in lower case; one given several times has its values joined by commas (RFC 9110 §5.3), and is in
    `repeated`. A body of more than `most_bytes` is refused. Pipelined calls that may be served `alongside` each other keep their
    order by themselves. `body` is whole before a handler sees it. `response` is set when it can go out, in its turn; while it is `open`,
    more of it follows. `chunked`: the client takes answers in the chunked coding, so that the call is a `Stream`.
    """

    __slots__ = (
        "_answers",
        "alongside",
        "body",
        "caller",
        "chunked",
        "headers",
        "method",
        "most_bytes",
        "open",
        "parameters",
        "path",
        "query_string",
        "repeated",
        "response",
        "route",
        "started",
    )

    def __init__(
        self,
        answers: Answers,
        method: str,
        target: bytes,
        headers: Mapping[bytes, bytes],
        repeated: frozenset[bytes],
        *,
        chunked: bool,
    ) -> None:
        self._answers = answers
        self.method = method
        self.path, _, self.query_string = _origin_form(target).decode("utf-8", NOT_UTF8).partition("?")
        self.headers = headers
        self.repeated = repeated
        self.chunked = chunked
        self.body = b""
        self.caller = NOBODY
        self.route: Route | None = None
        self.parameters: Mapping[str, str] = {}
        self.most_bytes = MAX_BODY_BYTES
        self.alongside = False
        self.response: Response | None = None
        self.open = False
        self.started = time.perf_counter()

    def answer(self, result: Response | Exception) -> None:
        """Answer the call; only the first time counts. After `begin` nothing but an exception makes sense: the answer stays a fragment."""
        self._answers.answered(self, result)

    def begin(self, response: Response) -> None:
        """Begin an answer. Only for a call that is `chunked` and not served `alongside` others: so it is its turn."""
        self._answers.begun(self, response)

    def more(self, piece: bytes) -> None:
        self._answers.continued(self, piece)

    def end(self) -> None:
        self._answers.ended(self)

    def header(self, name: bytes) -> str | None:
        """A header's value, by its name in lower case."""
        value = self.headers.get(name)
        return None if value is None else value.decode("utf-8", NOT_UTF8)

    def parameter(self, name: str, kind: TypeAdapter[V]) -> V:
        """A parameter of the path."""
        value = self.parameters[name]
        _require_utf8(name, value)
        try:
            return kind.validate_python(value)
        except ValidationError as error:
            raise bad_field(name, reason(error.errors(include_input=False)[0])) from None

    def query(self, model: type[M]) -> M:
        """The query parameters; one given twice is an error, like one that is not known."""
        given = parse_qsl(self.query_string, keep_blank_values=True, errors=NOT_UTF8)
        for name, value in given:
            _require_utf8("query", name)
            _require_utf8(name, value)
        twice = [name for name, times in Counter(name for name, _ in given).items() if times > 1]
        if twice:
            raise bad_field(twice[0], "is given more than once")
        try:
            return model.model_validate(dict(given), by_alias=True, by_name=False)
        except ValidationError as error:
            raise invalid("query", error) from None


def require_json(call: Call) -> None:
    """Raises 415 unless the body is said to be plain JSON."""
    content_type = call.headers.get(b"content-type", b"")
    if content_type != b"application/json" and content_type.partition(b";")[0].strip().lower() != b"application/json":
        raise ProblemError(
            HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "Content-Type: must be application/json", headers={"Accept": JSON}
        )
    if call.headers.get(b"content-encoding", b"identity") != b"identity":
        raise ProblemError(
            HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
            "Content-Encoding: the body must not be compressed",
            headers={"Accept-Encoding": "identity"},
        )


def too_large(most: int) -> ProblemError:
    return ProblemError(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"the body is larger than {most} bytes")


def parse(model: type[M], body: bytes) -> M:
    """The body as the model: JSON types strictly, names as documented."""
    try:
        return model.model_validate_json(body, strict=True, by_alias=True, by_name=False)
    except ValidationError as error:
        raise invalid_body(error, body) from None


def _require_utf8(field: str, text: str) -> None:
    """What is not UTF-8 is refused and not replaced, by which two ids would become one."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise bad_field(field, "is not UTF-8") from None


def _origin_form(target: bytes) -> bytes:
    """Path and query. A target may also be a whole URL (RFC 9112 §3.2.2); `parse_url` knows those that the parser let through."""
    if target.startswith((b"/", b"*")):
        return target
    url = parse_url(target)
    return (url.path or b"/") + (b"?" + url.query if url.query else b"")
