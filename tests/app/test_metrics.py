"""GET /metrics, read by Prometheus' own parser."""

import httpx
from prometheus_client.parser import text_string_to_metric_families

from app.metrics import step_class


def read(client: httpx.Client) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    answer = client.get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain")
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(answer.text)
        for sample in family.samples
    }


def test_requests_are_counted_by_route_and_status(client):
    def count(values, route, status):
        labels = (("method", "GET"), ("route", route), ("status", status))
        return values.get(("diffusion_requests_total", labels), 0)

    before = read(client)
    for name in ("linear", "cosine", "nonsense"):
        client.get(f"/schedules/{name}")
    client.get("/no/such/address")
    after = read(client)
    route = "/schedules/{name}"
    assert count(after, route, "200") - count(before, route, "200") == 2
    assert count(after, route, "404") - count(before, route, "404") == 1
    assert count(after, "none", "404") - count(before, "none", "404") == 1
    seconds = ("diffusion_request_seconds_count", (("route", route),))
    assert after[seconds] - before.get(seconds, 0) == 3


def test_step_classes_are_upper_bounds():
    assert [step_class(n) for n in (1, 10, 11, 100, 1000, 1001)] == [
        "10",
        "10",
        "25",
        "100",
        "1000",
        "more",
    ]
