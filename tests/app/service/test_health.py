import asyncio
from collections.abc import Callable, Iterator

import httpx
import pytest
from fastapi import FastAPI

from app.main import create_app
from app.service.health_schema import ComponentDown
from app.services import HealthCheck, Services


async def _answers() -> str:
    return "asked, and it answered"


async def _fails() -> str:
    raise ConnectionRefusedError("secret.example:5432")


async def _has_none() -> str:
    raise ComponentDown("there is none here")


async def _hangs() -> str:
    await asyncio.sleep(3600)
    return "never"


@pytest.fixture(scope="module")
def app(settings) -> FastAPI:
    return create_app(settings)


@pytest.fixture(scope="module")
def own_client(app: FastAPI, serve) -> Iterator[httpx.Client]:
    with serve(app) as address, httpx.Client(base_url=address, timeout=30) as client:
        yield client


@pytest.fixture
def with_checks(app: FastAPI, own_client: httpx.Client) -> Iterator[Callable[..., httpx.Response]]:
    services: Services = app.state.services
    before = services.checks

    def ready(**checks: HealthCheck) -> httpx.Response:
        services.checks = checks
        return own_client.get("/readyz")

    yield ready
    services.checks = before


def test_a_live_process_says_so_whatever_else_is_down(with_checks, own_client) -> None:
    with_checks(database=HealthCheck(_fails, required=True))
    assert own_client.get("/healthz").json() == {"status": "ok"}


def test_ready_when_all_answer(with_checks) -> None:
    answer = with_checks(database=HealthCheck(_answers, required=True), redis=HealthCheck(_answers))
    assert answer.status_code == 200
    assert answer.json()["status"] == "ready"
    assert answer.json()["components"]["redis"]["detail"] == "asked, and it answered"


def test_degraded_and_serving_without_what_is_not_required(with_checks) -> None:
    answer = with_checks(database=HealthCheck(_answers, required=True), redis=HealthCheck(_fails))
    assert answer.status_code == 200
    assert answer.json()["status"] == "degraded"
    assert answer.json()["components"]["redis"]["status"] == "down"


def test_unavailable_until_the_engine_has_answered_once(with_checks) -> None:
    engine = HealthCheck(_fails, starts=True)
    answer = with_checks(database=HealthCheck(_answers, required=True), other=engine)
    assert answer.status_code == 503
    assert "other is down" in answer.json()["detail"]
    assert with_checks(other=HealthCheck(_answers, starts=True)).status_code == 200
    assert with_checks(other=engine).status_code == 200, "it comes back by itself"
    assert with_checks(none=HealthCheck(_has_none, starts=True)).status_code == 200


def test_unavailable_without_the_database(with_checks) -> None:
    answer = with_checks(database=HealthCheck(_fails, required=True), redis=HealthCheck(_answers))
    assert answer.status_code == 503
    assert answer.headers["content-type"] == "application/problem+json"
    assert int(answer.headers["retry-after"]) > 0
    assert answer.json()["components"]["redis"]["status"] == "up"
    assert "secret.example" not in answer.text


def test_a_component_that_hangs_is_down_and_holds_nobody_up(with_checks) -> None:
    answer = with_checks(database=HealthCheck(_hangs, required=True))
    assert answer.status_code == 503
    assert "within 2 s" in answer.json()["detail"]
    assert answer.elapsed.total_seconds() < 4
