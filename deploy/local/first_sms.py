"""What a newcomer sees: two clients, a staff member, one SMS, and its way as it happens."""

import asyncio
import time
import uuid
from typing import Any

import aiohttp

from deploy.local.supervisor import Say

FINAL = {"delivered", "failed", "expired", "rejected", "cancelled", "unknown"}
PATIENCE_SECONDS = 30.0
PEOPLE = {
    "/clients/1": {"phone": "+254711000001", "name": "Amina Otieno"},
    "/clients/2": {"phone": "+254711000002", "name": "Joseph Mwangi"},
    "/staff/1": {"phone": "+254711000003", "name": "Grace Wanjiru"},
}
TEXT = "Habari! Your loan application has arrived. We will call you."


class FirstSmsError(Exception):
    """The API answered something else than it should; the text says what."""


async def send_first_sms(url: str, api_key: str, say: Say) -> None:
    """Create the people, send one SMS to the first of them, and say every transition until the last.

    Raises `FirstSmsError`, also when the message has not ended after 30 s.
    """
    headers = {"Authorization": f"Bearer {api_key}"}
    async with aiohttp.ClientSession(url, headers=headers, timeout=aiohttp.ClientTimeout(total=15)) as session:
        for path, person in PEOPLE.items():
            await _call(session, "PUT", path, person)
        started = time.monotonic()
        accepted = await _call(session, "POST", "/sms", {"clientId": "1", "message": TEXT}, str(uuid.uuid4()))
        say(f"SMS {accepted['id']} to client 1:")
        await _follow(session, accepted["location"], started, say)


async def _follow(session: aiohttp.ClientSession, location: str, started: float, say: Say) -> None:
    told = 0
    while time.monotonic() - started < PATIENCE_SECONDS:
        sms = await _call(session, "GET", location)
        for transition in sms["history"][told:]:
            say(_line(transition))
        told = len(sms["history"])
        if sms["status"] in FINAL:
            say(f"{time.monotonic() - started:.2f} s from the request to {sms['status']}, as the API shows it")
            return
        await asyncio.sleep(0.02)
    raise FirstSmsError(f"the first SMS has not ended after {PATIENCE_SECONDS:.0f} s; see .run/logs")


def _line(transition: dict[str, Any]) -> str:
    clock = transition["at"].partition("T")[2][:12]
    reason = f"  ({transition['reason']})" if transition.get("reason") else ""
    return f"  {clock}  {transition['status']:<10} {transition['topic']}{reason}"


async def _call(
    session: aiohttp.ClientSession, method: str, path: str, body: object = None, key: str | None = None
) -> dict[str, Any]:
    headers = {"Idempotency-Key": key} if key else {}
    try:
        async with session.request(method, path, json=body, headers=headers) as response:
            if not response.ok:
                raise FirstSmsError(f"{method} {path} answered {response.status}: {await response.text()}")
            return await response.json(content_type=None)
    except (aiohttp.ClientError, TimeoutError) as error:
        raise FirstSmsError(f"{method} {path} was not answered: {error or type(error).__name__}") from error
