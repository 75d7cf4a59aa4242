"""A message in doubt, which an operator ends, and which is sent again then."""

from deploy.local.stack import Stack
from tests.end_to_end.client import Api, Carrier, Json
from tests.waiting import until

CLIENT, PHONE = "doubt-1", "+254700000071"


async def test_what_the_carrier_never_answered_can_be_called_failed_and_sent_again(
    stack: Stack, api: Api, carrier: Carrier
) -> None:
    await api.put_client(CLIENT, PHONE)
    before = carrier.last()
    await carrier.steer(responses={"delay_ms": 60_000}, receipts={"enabled": False})
    message_id = await api.send(clientId=CLIENT, message="Did it arrive?")

    async def sent() -> bool:
        return bool(carrier.entries(before))

    async def shows(status: str) -> Json | None:
        sms = await api.read(message_id)
        return sms if sms["status"] == status else None

    await until(sent, "the carrier has it", within=20)
    [dispatcher] = stack.dispatchers("demo")
    await dispatcher.kill()
    await dispatcher.wait_until_ready()
    await carrier.calm()
    await until(lambda: shows("in_doubt"), "the dispatcher that sent it is gone, so it is in doubt", within=60)
    status, problem = await api.call("POST", f"/sms/{message_id}/resend")
    assert (status, "in_doubt" in problem["detail"]) == (409, True)

    status, answer = await api.call("POST", f"/sms/{message_id}/outcome", {"status": "failed"})
    assert (status, answer["status"]) == (202, "failed")
    sms = await until(lambda: shows("failed"), "it ends as the operator said", within=20)
    assert sms["reason"] == {"code": "operator", "words": "said by the API key local"}
    assert [part["status"] for part in sms["parts"]] == ["in_doubt"]

    status, answer = await api.call("POST", f"/sms/{message_id}/resend")
    assert status == 202, answer
    sms = await until(lambda: shows("delivered"), "it is sent again", within=30)
    assert (sms["cycle"], sms["possibleDouble"]) == (2, True)
    assert len(carrier.entries(before)) == 2
