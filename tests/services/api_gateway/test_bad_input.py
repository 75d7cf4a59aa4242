"""Whatever comes in, the answer is problem+json that names the field and why, and never repeats a value."""

import json
from typing import Any

import pytest

from tests.services.api_gateway.fakes import SEND_KEY, SLOW_KEY, Answer, Gateway

SECRET = "Zq-secret-Zq"


def _names(answer: Answer) -> set[str]:
    return {error["field"] for error in answer.body["errors"]}


def _assert_problem(answer: Answer, status: int) -> None:
    assert answer.status == status, answer.body
    assert answer.headers["Content-Type"].startswith("application/problem+json")
    assert answer.body["status"] == status
    assert answer.body["title"]
    assert SECRET not in json.dumps(answer.body)


@pytest.mark.parametrize(
    ("body", "fields"),
    [
        ({"message": "Hello"}, {"body"}),
        ({"message": "Hello", "clientId": "1", "staffId": "2"}, {"body"}),
        ({"message": "", "clientId": "1"}, {"message"}),
        ({"message": " \n\u00a0", "clientId": "1"}, {"message"}),
        ({"message": " \n", "clientId": "1", "senderId": "CLINIC"}, {"message"}),
        ({"clientId": "1"}, {"message"}),
        ({"message": "x" * 1521, "clientId": "1"}, {"message"}),
        ({"message": "я" * 661, "clientId": "1"}, {"message"}),
        ({"message": "€" * 761, "clientId": "1"}, {"message"}),
        ({"message": 5, "clientId": "1"}, {"message"}),
        ({"message": None, "clientId": "1"}, {"message"}),
        ({"message": f"{SECRET}\0", "clientId": "1"}, {"message"}),
        ({"message": "Hello", "clientId": ""}, {"clientId"}),
        ({"message": "Hello", "clientId": "x" * 65}, {"clientId"}),
        ({"message": "Hello", "clientId": f"{SECRET}\n"}, {"clientId"}),
        ({"message": "Hello", "clientId": 1.5}, {"clientId"}),
        ({"message": "Hello", "staffId": True}, {"staffId"}),
        ({"message": "Hello", "clientId": ["1"]}, {"clientId"}),
        ({"message": "Hello", "client_id": "1"}, {"client_id"}),
        ({"message": "Hello", "clientId": "1", "mesage": SECRET}, {"mesage"}),
        ({"message": "Hello", "clientId": "1", "priority": SECRET}, {"priority"}),
        ({"message": "Hello", "clientId": "1", "senderId": f"<{SECRET}>"}, {"senderId"}),
        ({"message": "Hello", "clientId": "1", "senderId": "TWELVELETTER"}, {"senderId"}),
        ({"message": "Hello", "clientId": "1", "senderId": "1234567890123456"}, {"senderId"}),
        ({"message": "Hello", "clientId": "1", "validitySeconds": 59}, {"validitySeconds"}),
        ({"message": "Hello", "clientId": "1", "validitySeconds": 7 * 86400 + 1}, {"validitySeconds"}),
        ({"message": "Hello", "clientId": "1", "validitySeconds": "600"}, {"validitySeconds"}),
        ({"message": "Hello", "clientId": "1", "tags": ["ok", ""]}, {"tags.1"}),
        ({"message": "Hello", "clientId": "1", "tags": ["t"] * 21}, {"tags"}),
        ({"message": "Hello", "clientId": "1", "customData": [1]}, {"customData"}),
        ({"message": "Hello", "clientId": "1", "customData": {"a": {"b": [f"{SECRET}\0"]}}}, {"customData"}),
        ({"message": "Hello", "clientId": "1", "customData": {f"{SECRET}\0": 1}}, {"customData"}),
        ({"message": 1, "clientId": 1.5, "validitySeconds": "x"}, {"message", "clientId", "validitySeconds"}),
        ([{"message": "Hello", "clientId": "1"}], {"body"}),
        ("Hello", {"body"}),
        (None, {"body"}),
    ],
)
async def test_a_wrong_body_is_refused_by_the_name_of_its_fields(gateway: Gateway, body: Any, fields: set[str]) -> None:
    headers = {"Content-Type": "application/json"}
    answer = await gateway.ask("POST", "/sms", data=json.dumps(body), headers=headers)
    _assert_problem(answer, 400)
    assert _names(answer) == fields
    assert all(error["reason"] for error in answer.body["errors"])
    assert gateway.publisher.records == []


@pytest.mark.parametrize(
    ("body", "fields"),
    [
        (b'{"message": "half \\ud83d", "clientId": "1"}', {"message"}),
        (b'{"message": "\\ude00 half", "clientId": "1"}', {"message"}),
        (b'{"message": "ok", "clientId": "1", "customData": {"a": ["\\ud800"]}}', {"customData"}),
        (b'{"message": "ok", "clientId": "1", "customData": {"\\ud800": 1}}', {"customData"}),
        (b'{"message": "ok", "clientId": "1", "\\ud800": "\\ud800"}', set()),
        (b'{"message": "ok", "clientId": "1", "' + b"x" * 101 + b'": "\\ud800"}', {"x" * 100}),
        (b'{"message": "ok", "clientId": "1", "customData": {"a": NaN}}', {"customData"}),
        (b'{"message": "ok", "clientId": "1", "customData": {"a": 1e999}}', {"customData"}),
        (b'{"message": "ok", "clientId": "1", "customData": {"a": [{"b": 18446744073709551616}]}}', {"customData"}),
        (b'{"message": "ok", "clientId": "1", "customData": {"a": -9223372036854775809}}', {"customData"}),
    ],
)
async def test_what_is_no_unicode_or_no_number_is_refused_by_name(
    gateway: Gateway, body: bytes, fields: set[str]
) -> None:
    answer = await gateway.ask("POST", "/sms", data=body, headers={"Content-Type": "application/json"})
    _assert_problem(answer, 400)
    assert _names(answer) == fields


@pytest.mark.parametrize("innermost", ["{}", "[]", '{"x": 1}', "[1]"])
@pytest.mark.parametrize(("opening", "closing"), [('{"a": ', "}"), ("[0, ", "]")])
async def test_custom_data_is_nested_32_levels_at_most(
    gateway: Gateway, opening: str, closing: str, innermost: str
) -> None:
    def body(levels: int) -> str:
        between = levels - 2
        data = f'{{"a": {opening * between}{innermost}{closing * between}}}'
        return f'{{"message": "Hello", "clientId": "1", "customData": {data}}}'

    headers = {"Content-Type": "application/json"}
    assert (await gateway.ask("POST", "/sms", data=body(32), headers=headers)).status == 202
    for path, deep in (("/sms", body(33)), ("/sms", body(150)), ("/sms/bulk", f'{{"messages": [{body(33)}]}}')):
        answer = await gateway.ask("POST", path, data=deep, headers=headers)
        _assert_problem(answer, 400)
        (error,) = answer.body["errors"]
        assert error["field"].removeprefix("messages.0.") == "customData"
        assert error["reason"] == "is nested more than 32 levels deep"
    assert len(gateway.publisher.records) == 1


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b'{"message": "Hello", "clientId": "1"',
        b'{"message": "Zq-secret-Zq", }',
        b'{"message": "Hello\n", "clientId": "1"}',
        b"\xff\xfe{",
        b'{"message": "\xff", "clientId": "1"}',
        b"<html>",
        b'{"message": "Hello", "clientId": "1", "customData": ' + b"[" * 5000 + b"]" * 5000 + b"}",
        b'{"message": "Hello", "clientId": "1", "customData": {"a": ' + b"9" * 5000 + b"}}",
    ],
)
async def test_broken_json_is_refused(gateway: Gateway, body: bytes) -> None:
    answer = await gateway.ask("POST", "/sms", data=body, headers={"Content-Type": "application/json"})
    _assert_problem(answer, 400)
    assert gateway.publisher.records == []


async def test_many_wrong_fields_do_not_make_a_long_answer(gateway: Gateway) -> None:
    answer = await gateway.send({f"field{n}" + "x" * 200: n for n in range(200)})
    _assert_problem(answer, 400)
    assert len(answer.body["errors"]) == 20
    assert all(len(error["field"]) <= 100 for error in answer.body["errors"])


@pytest.mark.parametrize("chunked", [False, True])
async def test_a_huge_body_is_refused_with_the_limit(gateway: Gateway, chunked: bool) -> None:
    body = json.dumps({"message": "x" * 70_000, "clientId": "1"}).encode()

    async def chunks() -> Any:
        for start in range(0, len(body), 1000):
            yield body[start : start + 1000]

    headers = {"Content-Type": "application/json"}
    answer = await gateway.ask("POST", "/sms", data=chunks() if chunked else body, headers=headers)
    _assert_problem(answer, 413)
    assert "65536" in answer.body["detail"]


@pytest.mark.parametrize("content_type", ["text/plain", "application/x-www-form-urlencoded", "application/xml"])
async def test_another_content_type_is_refused(gateway: Gateway, content_type: str) -> None:
    body = json.dumps({"message": "Hello", "clientId": "1"})
    answer = await gateway.ask("POST", "/sms", data=body, headers={"Content-Type": content_type})
    _assert_problem(answer, 415)


@pytest.mark.parametrize("content_type", ["application/json; charset=utf-8", "Application/JSON ;charset=utf-8"])
async def test_json_is_taken_however_it_is_said_to_be_that(gateway: Gateway, content_type: str) -> None:
    body = json.dumps({"message": "Hello", "clientId": "1"})
    headers = {"Content-Type": content_type, "Content-Encoding": "identity"}
    answer = await gateway.ask("POST", "/sms", data=body, headers=headers)
    assert answer.status == 202


@pytest.mark.parametrize("path", ["/", "/sms/", "/nothing", "/sms/a/b", "/clients", "/internal/clients/1", "//sms"])
async def test_an_unknown_path_is_404(gateway: Gateway, path: str) -> None:
    _assert_problem(await gateway.ask("GET", path), 404)


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("DELETE", "/sms", "GET, POST"),
        ("POST", "/clients/1", "DELETE, GET, PUT"),
        ("POST", "/openapi.json", "GET"),
        ("PATCH", "/sms", "GET, POST"),
    ],
)
async def test_a_wrong_method_is_405_and_says_what_is_allowed(
    gateway: Gateway, method: str, path: str, allowed: str
) -> None:
    answer = await gateway.ask(method, path)
    _assert_problem(answer, 405)
    assert answer.headers["Allow"] == allowed


@pytest.mark.parametrize("key", [None, "", "wrong-key-0123456789", "ключ"])
async def test_without_a_known_key_nothing_is_done(gateway: Gateway, key: str | None) -> None:
    answer = await gateway.send(key=key)
    _assert_problem(answer, 401)
    assert answer.headers["WWW-Authenticate"].startswith("Bearer")
    assert gateway.publisher.records == []


async def test_another_scheme_is_no_key(gateway: Gateway) -> None:
    answer = await gateway.send(key=None)
    basic = await gateway.ask("POST", "/sms", key=None, headers={"Authorization": f"Basic {SEND_KEY}"}, json={})
    _assert_problem(basic, 401)
    _assert_problem(answer, 401)


@pytest.mark.parametrize(
    ("method", "path"),
    [("GET", "/sms"), ("GET", "/sms/019b30cb-7a50-7a55-9d3e-2b1f0c8e7a41"), ("PUT", "/clients/1"), ("GET", "/staff/1")],
)
async def test_a_missing_scope_is_403_and_named(gateway: Gateway, method: str, path: str) -> None:
    answer = await gateway.ask(method, path, key=SEND_KEY)
    _assert_problem(answer, 403)
    assert "scope" in answer.body["detail"]
    assert gateway.resolver.asked == gateway.projection.asked == []


async def test_a_key_beyond_its_rate_is_429_and_told_when_to_come_back(gateway: Gateway) -> None:
    assert (await gateway.send(key=SLOW_KEY)).status == 202
    answer = await gateway.send(key=SLOW_KEY)
    _assert_problem(answer, 429)
    assert 1 <= int(answer.headers["Retry-After"]) <= 10
    assert (await gateway.send(key=SEND_KEY)).status == 202


@pytest.mark.parametrize("key", ["", "x" * 256, "tab\tbed", "schlüssel"])
async def test_a_wrong_idempotency_key_is_refused(gateway: Gateway, key: str) -> None:
    answer = await gateway.send(idempotency_key=key)
    _assert_problem(answer, 400)
    assert _names(answer) == {"Idempotency-Key"}


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("status=sent", "status"),
        ("status=refused", "status"),
        ("limit=0", "limit"),
        ("limit=501", "limit"),
        ("limit=ten", "limit"),
        ("clientid=1", "clientid"),
        ("from=yesterday", "from"),
        ("from=2026-01-31T08:00:00", "from"),
        ("from=1769846400", "from"),
        ("to=20260131", "to"),
        ("to=2026-02-30T08:00:00Z", "to"),
        ("clientId=1&staffId=2", "query"),
        ("clientId=1&clientId=2", "clientId"),
        ("gateway=No%20Such", "gateway"),
        ("tag=", "tag"),
        ("clientId=%E9", "clientId"),
        ("tag=%C3%A9%C3", "tag"),
        ("limit=5&%E9=1", "query"),
    ],
)
async def test_a_wrong_query_is_refused_by_name(gateway: Gateway, query: str, field: str) -> None:
    answer = await gateway.ask("GET", f"/sms?{query}")
    _assert_problem(answer, 400)
    assert _names(answer) == {field}
    assert gateway.projection.asked == []


@pytest.mark.parametrize("field", ["from", "to"])
@pytest.mark.parametrize("moment", ["20260131", "2026-01-31T08:00:00", "2026-01-31"])
async def test_a_wrong_moment_is_refused_by_name_of_what_handsets_sent_too(
    gateway: Gateway, field: str, moment: str
) -> None:
    answer = await gateway.ask("GET", f"/inbound?{field}={moment}")
    _assert_problem(answer, 400)
    assert _names(answer) == {field}
    assert gateway.inbound.asked == []


async def test_an_id_that_is_no_uuid_is_refused_by_name(gateway: Gateway) -> None:
    answer = await gateway.ask("GET", f"/sms/{SECRET}")
    _assert_problem(answer, 400)
    assert _names(answer) == {"id"}


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE"])
@pytest.mark.parametrize("person", ["%E9", "a%C3", "%ED%A0%80", "%FF%FE1"])
async def test_a_person_id_that_is_not_utf_8_is_nobodys(gateway: Gateway, method: str, person: str) -> None:
    answer = await gateway.ask(method, f"/clients/{person}", json={"phone": "+254700000001"})
    _assert_problem(answer, 400)
    assert answer.body["errors"] == [{"field": "id", "reason": "is not UTF-8"}]
    assert gateway.resolver.asked == []


@pytest.mark.parametrize("person", ["x" * 65, "%00", "a%0Ab"])
async def test_a_wrong_person_id_is_refused_by_name(gateway: Gateway, person: str) -> None:
    answer = await gateway.ask("PUT", f"/clients/{person}", json={"phone": "+254700000001"})
    _assert_problem(answer, 400)
    assert _names(answer) == {"id"}
    assert gateway.resolver.asked == []


async def test_a_wrong_person_is_refused_before_it_goes_on(gateway: Gateway) -> None:
    answer = await gateway.ask("PUT", "/staff/1", json={"phone": 1, "fax": "2"})
    _assert_problem(answer, 400)
    assert _names(answer) == {"phone", "fax"}
    assert gateway.resolver.asked == []


async def test_a_fault_of_ours_is_a_problem_without_details(
    gateway: Gateway, capsys: pytest.CaptureFixture[str]
) -> None:
    gateway.publisher.error = RuntimeError(SECRET)
    _assert_problem(await gateway.send(), 500)
    assert SECRET not in "".join(capsys.readouterr())
