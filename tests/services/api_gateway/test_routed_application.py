"""What is counted of each request."""

from prometheus_client import REGISTRY

from tests.services.api_gateway.fakes import Gateway

ID = "019b30cb-7a50-7a55-9d3e-2b1f0c8e7a41"


async def test_each_answer_is_counted_and_timed_under_its_route_which_names_nobody(gateway: Gateway) -> None:
    expected = {("/sms", 202): 1, ("/sms/{id}", 200): 2, ("/clients/{id}", 401): 1, ("unmatched", 404): 1}

    def counted() -> list[float]:
        name = "postrider_http_requests_total"
        labels = ({"route": route, "status": str(status)} for route, status in expected)
        return [REGISTRY.get_sample_value(name, each) or 0.0 for each in labels]

    def timed() -> list[float]:
        name = "postrider_http_request_seconds_count"
        return [REGISTRY.get_sample_value(name, {"route": route}) or 0.0 for route, _ in expected]

    before, timed_before = counted(), timed()
    await gateway.send()
    for path in (f"/sms/{ID}", f"/sms/{ID}", "/nothing"):
        await gateway.ask("GET", path)
    await gateway.ask("GET", "/clients/17", key=None)
    times = list(expected.values())
    assert [now - then for now, then in zip(counted(), before, strict=True)] == times
    assert [now - then for now, then in zip(timed(), timed_before, strict=True)] == times
