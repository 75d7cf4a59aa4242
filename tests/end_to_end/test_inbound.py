"""What handsets send, from the carrier through the dispatcher to the API."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from deploy.local.stack import Stack
from tests.end_to_end.client import Api, Carrier, Json
from tests.end_to_end.conftest import READER_KEY, STRANGER_KEY
from tests.waiting import until

LONG = "Мой счёт заблокирован, помогите мне, пожалуйста. " * 4
Inbox = Callable[..., Awaitable[list[Json]]]


@pytest.fixture
def inbox(api: Api) -> Inbox:
    async def received(sender: str, count: int) -> list[Json]:
        """The sender's messages, newest first, once there are so many and all are complete."""

        async def enough() -> list[Json] | None:
            status, page = await api.call("GET", f"/inbound?number=%2B{sender}&gateway=demo")
            if status == 503:  # the service is being started again
                return None
            assert status == 200, page
            items = page["items"]
            return items if len(items) == count and all(item["complete"] for item in items) else None

        return await until(enough, f"{count} messages of a sender", within=30)

    return received


@pytest.mark.parametrize(("concatenation", "parts"), [("udh", 3), ("sar", 3), ("payload", 1)])
async def test_a_long_message_is_read_whole_with_its_parts_as_they_came(
    api: Api, carrier: Carrier, inbox: Inbox, concatenation: str, parts: int
) -> None:
    sender = {"udh": "254744400001", "sar": "254744400002", "payload": "254744400003"}[concatenation]
    message = {"source": sender, "destination": "40404", "text": LONG, "reference": 513, "concatenation": concatenation}
    await carrier.bring(**message)
    [found] = await inbox(sender, 1)
    assert (found["text"], found["source"], found["destination"]) == (LONG, f"+{sender}", "40404")
    assert (found["total"], [part["part"] for part in found["parts"]]) == (parts, list(range(1, parts + 1)))
    assert {part["dataCoding"] for part in found["parts"]} == {8}
    sar = {(part["sarReference"], part["sarTotal"]) for part in found["parts"]}
    assert sar == ({(513, 3)} if concatenation == "sar" else {(None, None)})
    assert {part["esmClass"] for part in found["parts"]} == ({0x40} if concatenation == "udh" else {0})
    assert await api.call("GET", f"/inbound/{found['id']}") == (200, found)


async def test_what_came_while_the_service_was_dead_is_there_once_it_is_back(
    stack: Stack, carrier: Carrier, inbox: Inbox
) -> None:
    await stack.process("inbound").kill()
    sender = "254744400004"
    texts = [f"message {n}" for n in range(20)]
    await asyncio.gather(*(carrier.bring(source=sender, destination="40404", text=text) for text in texts))
    assert sorted(item["text"] for item in await inbox(sender, 20)) == sorted(texts)


async def test_they_are_for_their_tenant_and_for_keys_with_the_scope(
    stack: Stack, carrier: Carrier, inbox: Inbox
) -> None:
    await carrier.bring(source="254744400005", destination="40404", text="Mine alone")
    [found] = await inbox("254744400005", 1)
    async with Api(stack.url, STRANGER_KEY) as stranger, Api(stack.url, READER_KEY) as reader:
        assert (await stranger.call("GET", f"/inbound/{found['id']}"))[0] == 404
        assert (await stranger.call("GET", "/inbound?number=%2B254744400005"))[1]["items"] == []
        assert (await reader.call("GET", "/inbound"))[0] == 403
