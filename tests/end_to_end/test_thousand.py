"""A thousand messages, and what everyone says of them afterwards: the caller's list, each history, the carrier's ledger."""

from collections import defaultdict
from datetime import datetime
from typing import Any

from libs.sms_text.segments import count_segments, needs_ucs2
from tests.end_to_end.client import Api, Carrier, Json
from tests.services.simulated_carrier.texts import JoinedText, join_texts

CLIENTS = {f"thousand-{n}": f"+2547111{n:05}" for n in range(100)}
KINDS = (
    "{n} Habari! Your loan of KES 5,000 is approved.",
    "{n} Zahlung erhalten: 12,50 € [Rest: 0 €] ~Danke~",
    "{n} Ваш платёж получен 🙂 شكرا",
    "{n} " + "A reminder in three segments, with brackets [] and a euro sign € now and then. " * 5,
    "{n} " + "Ваш платёж получен, спасибо 🙂 " * 5,
)
SEGMENTS = (1, 1, 1, 3, 3)


async def test_a_thousand_messages_are_delivered_once_and_everyone_says_the_same(api: Api, carrier: Carrier) -> None:
    texts = [KINDS[n % len(KINDS)].format(n=n) for n in range(1000)]
    assert [count_segments(text) for text in texts[: len(KINDS)]] == list(SEGMENTS)
    clients = [f"thousand-{n % len(CLIENTS)}" for n in range(len(texts))]
    before = carrier.last()
    await api.put_clients(CLIENTS)

    sent = await api.send_all(
        {"clientId": client, "message": text, "tags": ["thousand"], "customData": {"text": n}}
        for n, (client, text) in enumerate(zip(clients, texts, strict=True))
    )
    assert len(set(sent)) == len(texts)
    listed = await api.ended("thousand", len(texts))

    entries = carrier.entries(before)
    assert len(entries) == sum(map(count_segments, texts)), "as many submits as segments"
    received: dict[tuple[str, str], list[JoinedText]] = defaultdict(list)
    for joined in join_texts(entries):
        received[f"+{joined.first.destination}", joined.text].append(joined)
    expected = {(CLIENTS[client], text) for client, text in zip(clients, texts, strict=True)}
    assert received.keys() == expected
    assert all(len(times) == 1 and times[0].complete for times in received.values()), "every text exactly once"

    histories = await api.read_all(sent)
    for n, (client, text, sms) in enumerate(zip(clients, texts, histories, strict=True)):
        provider_ids = received[CLIENTS[client], text][0].provider_ids
        tries = {part["part"]: part["tryNumber"] for part in sms["parts"]}  # one more for each claim that came too late
        expected_fields = _as_sent(client, text, n, provider_ids, tries)
        assert {field: sms[field] for field in expected_fields} == expected_fields
        _assert_history(sms, provider_ids, tries)
        assert {name: sms[name] for name in listed[sms["id"]]} == listed[sms["id"]], "the list says the same"
    assert [sms["id"] for sms in await api.list(tag="thousand")] == sorted(sent, reverse=True), "newest first"
    assert len({sms["number"] for sms in histories}) == len(texts)
    mine = await api.list(clientId="thousand-7", tag="thousand")
    assert {sms["id"] for sms in mine} == {sent[n] for n in range(7, len(sent), len(CLIENTS))}
    assert {sms["id"] for sms in await api.list(number=CLIENTS["thousand-7"])} == {sms["id"] for sms in mine}


def _as_sent(client: str, text: str, n: int, provider_ids: list[str], tries: dict[int, int]) -> Json:
    return {
        "clientId": client,
        "staffId": None,
        "phone": CLIENTS[client],
        "message": text,
        "status": "delivered",
        "reason": None,
        "priority": "normal",
        "tags": ["thousand"],
        "customData": {"text": n},
        "gateway": "demo",
        "encoding": "ucs2" if needs_ucs2(text) else "gsm7",
        "segments": len(provider_ids),
        "cycle": 1,
        "leg": 1,
        "possibleDouble": False,
        "requestedBy": "local",
        "parts": [
            {"part": part, "status": "delivered", "providerId": provider_id, "tryNumber": tries[part]}
            for part, provider_id in enumerate(provider_ids, 1)
        ],
    }


def _assert_history(sms: Json, provider_ids: list[str], tries: dict[int, int]) -> None:
    """Accepted, queued, then each part submitted and delivered, all under the carrier's ids, in the order of their times."""
    history: list[dict[str, Any]] = sms["history"]
    whole = [(t["status"], t["topic"], t["part"]) for t in history[:2]]
    assert whole == [("accepted", "sms.requested", 0), ("queued", "sms.dispatch.demo", 0)]
    for part, provider_id in enumerate(provider_ids, 1):
        told = [(t["status"], t["topic"], t["providerId"]) for t in history[2:] if t["part"] == part]
        assert told == [("submitted", "sms.status", provider_id), ("delivered", "sms.status", provider_id)]
    assert len(history) == 2 + 2 * len(provider_ids)
    told_of = {(t["cycle"], t["leg"], t["part"], t["tryNumber"]) for t in history[2:]}
    assert told_of == {(1, 1, part, try_number) for part, try_number in tries.items()}
    times = [datetime.fromisoformat(t["at"]) for t in history]
    assert times == sorted(times)
    assert sms["submittedAt"] == min(t["at"] for t in history if t["status"] == "submitted")
    assert sms["deliveredAt"] == sms["statusAt"] == history[-1]["at"]
