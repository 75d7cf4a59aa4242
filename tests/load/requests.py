"""A workload as requests, each put together from a template at next to no cost."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final
from urllib.parse import quote, urlsplit

from tests.load.workload import CLIENTS, PHONE, TEXT, Workload

Writer = Callable[[range], list[bytes]]
"""Writes the requests with these numbers, counted from 0."""

SENDER: Final = "POSTRIDER"
KANNEL_USER: Final = "bench"
"""Its password too."""


def posts(work: Workload, url: str, api_key: str, keys: str | None) -> Writer:
    """Of Postrider's API. `keys`: a prefix for Idempotency-Keys; None: no keys."""
    head = (
        f"POST {work.path} HTTP/1.1\r\nHost: {urlsplit(url).netloc}\r\n"
        f"Authorization: Bearer {api_key}\r\nContent-Type: application/json\r\n"
    ).encode()
    prefix = (keys or "").encode()

    def plain(of: range) -> list[bytes]:
        return [b"%bContent-Length: %d\r\n\r\n%b" % (head, len(body), body) for body in work.bodies(of)]

    def keyed(of: range) -> list[bytes]:
        return [
            b"%bIdempotency-Key: %b%d\r\nContent-Length: %d\r\n\r\n%b" % (head, prefix, n, len(body), body)
            for n, body in zip(of, work.bodies(of), strict=True)
        ]

    return plain if keys is None else keyed


def sendsms(work: Workload, url: str, callbacks: str) -> Writer:
    """Of Kannel's smsbox, which calls `callbacks`/<number of the message>/<1: delivered, 2: failed> for each receipt."""
    phone = PHONE.replace("+", "%%2B")
    text = TEXT.decode().replace(" ", "+")
    callback = quote(f"{callbacks}/", safe="").replace("%", "%%") + "%d%%2F%%25d"
    template = (
        f"GET /cgi-bin/sendsms?username={KANNEL_USER}&password={KANNEL_USER}&from={SENDER}&to={phone}&text={text}"
        f"&dlr-mask=3&dlr-url={callback} HTTP/1.1\r\nHost: {urlsplit(url).netloc}\r\n\r\n"
    ).encode()
    first = work.first

    def written(of: range) -> list[bytes]:
        return [template % (n % CLIENTS, n, n) for n in range(first + of.start, first + of.stop)]

    return written
