"""What is sent to Kannel, and what is taken of its callbacks."""

import asyncio
import os
from urllib.parse import parse_qs, urlsplit

import pytest

from deploy.local.ports import HOST, free_port
from deploy.local.prepare import SetupError
from tests.load import kannel_package
from tests.load.callback_process import callback_process
from tests.load.callbacks import Callbacks, Called, Expected, paths_in
from tests.load.requests import sendsms
from tests.load.workload import Workload, text_of


def test_a_request_holds_the_text_and_where_its_receipt_goes() -> None:
    requests = sendsms(Workload(messages=5_000), "http://127.0.0.1:1", "http://127.0.0.1:2")(range(4_000, 4_002))
    [target, _] = [request.split(b" ")[1].decode() for request in requests]
    asked = {name: value for name, [value] in parse_qs(urlsplit(target).query).items()}
    assert asked["text"].encode() == text_of(4_001)
    assert asked["to"] == "+254700000001"
    assert asked["dlr-url"] == "http://127.0.0.1:2/4001/%d"


def test_requests_are_cut_out_of_what_was_read_so_far() -> None:
    whole = b"GET /17/1 HTTP/1.1\r\nHost: a\r\n\r\n"
    for cut in range(len(whole)):
        paths, rest = paths_in(whole + whole[:cut])
        assert (paths, rest) == ([b"/17/1"], whole[:cut])
        assert paths_in(rest + whole[cut:] + whole) == ([b"/17/1"] * 2, b"")


def test_each_message_is_called_once_with_success() -> None:
    callbacks = Callbacks(Expected(1, 5))
    callbacks.take([b"/1/1", b"/2/1", b"/2/1", b"/3/2", b"/9/1"])
    assert not callbacks.over
    assert (callbacks.result().missing, callbacks.result().others) == (2, 3)
    callbacks.take([b"/3/1", b"/4/1"])
    assert callbacks.over


async def test_the_receiver_answers_each_callback_and_says_when_all_came() -> None:
    port = free_port()
    async with callback_process(port) as receiver:
        receiver.expect(range(1, 4))
        reader, writer = await asyncio.open_connection(HOST, port)
        for number in (1, 2, 3):
            writer.write(b"GET /%d/1 HTTP/1.1\r\n\r\n" % number)
            assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200 ")
        called = await receiver.called()
        writer.close()
    assert called == Called(last=called.last, missing=0, others=0)


def test_who_may_not_install_kannel_is_told_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kannel_package, "_PATH", "")
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(SetupError, match=r"apt-get install .* kannel"):
        kannel_package.install(print)
