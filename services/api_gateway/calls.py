"""What a handler is given, and how it reads it: the caller, the path's parameters, the query, the body."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import TypeVar

from aiohttp import hdrs, web
from pydantic import TypeAdapter, ValidationError

from libs.contracts.http import ApiModel
from services.api_gateway.api_keys import Caller
from services.api_gateway.problems import ProblemError, bad_field, invalid_body, invalid_query, reason

MAX_BODY_BYTES = 64 * 1024
BODY_SECONDS = 10.0

M = TypeVar("M", bound=ApiModel)
V = TypeVar("V")


@dataclass(frozen=True, slots=True)
class Call:
    """One request that reached a route. Every reader below raises the problem that the caller is to be told."""

    request: web.BaseRequest
    caller: Caller
    parameters: Mapping[str, str]

    def parameter(self, name: str, kind: TypeAdapter[V]) -> V:
        """A parameter of the path."""
        try:
            return kind.validate_python(self.parameters[name])
        except ValidationError as error:
            raise bad_field(name, reason(error.errors(include_input=False)[0])) from None

    def query(self, model: type[M]) -> M:
        """The query parameters; one given twice is an error, like one that is not known."""
        given = self.request.query
        twice = [name for name, times in Counter(name for name, _ in given.items()).items() if times > 1]
        if twice:
            raise bad_field(twice[0][:100], "is given more than once")
        try:
            return model.model_validate(dict(given), by_alias=True, by_name=False)
        except ValidationError as error:
            raise invalid_query(error) from None

    async def body(self) -> bytes:
        """The whole JSON body, unparsed."""
        request = self.request
        if request.content_type != "application/json":
            raise ProblemError(
                HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
                "Content-Type: must be application/json",
                headers={"Accept": "application/json"},
            )
        if (request.content_length or 0) > MAX_BODY_BYTES:
            raise too_large()
        if hdrs.EXPECT in request.headers:
            await _continue(request)
        try:
            if request.content.is_eof():  # it is all here: nearly always, and then it costs no timer
                return await request.read()
            async with asyncio.timeout(BODY_SECONDS):
                return await request.read()
        except web.HTTPRequestEntityTooLarge:
            raise too_large() from None
        except TimeoutError:
            raise ProblemError(HTTPStatus.REQUEST_TIMEOUT, f"the body did not come within {BODY_SECONDS:g} s") from None
        except web.RequestPayloadError:
            raise ProblemError(
                HTTPStatus.BAD_REQUEST, "the body ended early, or is not encoded as its headers say"
            ) from None


def parse(model: type[M], body: bytes) -> M:
    """The body as the model: JSON types strictly, names as documented."""
    try:
        return model.model_validate_json(body, strict=True, by_alias=True, by_name=False)
    except ValidationError as error:
        raise invalid_body(error, body) from None


def too_large() -> ProblemError:
    return ProblemError(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"the body is larger than {MAX_BODY_BYTES} bytes")


async def _continue(request: web.BaseRequest) -> None:
    """RFC 9110 §10.1.1: the client waits for this word before it sends the body."""
    if request.headers[hdrs.EXPECT].lower() != "100-continue":
        raise ProblemError(HTTPStatus.EXPECTATION_FAILED, "Expect: only 100-continue is known")
    await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
    request.writer.output_size = 0
