"""Every error is a problem, the framework's own and those of faulty code included."""

import asyncio
import errno
import json
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from pydantic import BaseModel, Field

from app.http.accept import choose
from app.http.errors import Busy, InvalidInput, reported_at, reported_in
from app.http.problems import KINDS
from app.main import create_app
from app.processes.threads import ThreadPool
from app.settings import Settings
from models.fields import Invalid
from store.locations import Locations
from tests.postgres import PostgresServer

IMPORT = {"name": "pets", "url": "https://example.org/pets.zip"}


class Order(BaseModel):
    steps: int = Field(ge=1, le=100)
    classes: list[int] = []


@pytest.fixture(scope="module")
def faulty(serve, settings) -> Iterator[httpx.Client]:
    """The application with routes that fail in every way that code can."""
    app = create_app(settings)

    @app.get("/fault")
    async def fault() -> None:
        raise RuntimeError("the password is 1234")

    @app.get("/full")
    async def full() -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    @app.post("/orders")
    async def order(order: Order) -> None:
        with reported_at("/classes/0"):
            raise Invalid("class", 7, "it must lie in 0..4")

    with serve(app) as address, httpx.Client(base_url=address, timeout=30) as client:
        yield client


def problem(answer: httpx.Response, status: int) -> dict:
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"
    content = answer.json()
    assert content["status"] == status
    assert content["request_id"] == answer.headers["x-request-id"]
    return content


def test_an_address_that_does_not_exist(client):
    assert problem(client.get("/nowhere"), 404)["type"] == "/problems/not-found"
    assert problem(client.get("/static/../settings.py"), 404)
    assert problem(client.get("/static/%2e%2e/settings.py"), 404)


def test_a_method_that_the_address_lacks(client):
    answer = client.delete("/noise")
    assert problem(answer, 405)["type"] == "/problems/method-not-allowed"
    assert answer.headers["allow"] == "POST"


def test_a_fault_is_answered_without_what_it_said(faulty):
    answer = faulty.get("/fault")
    assert problem(answer, 500)["type"] == "/problems/internal-error"
    assert "1234" not in answer.text
    assert faulty.get("/healthz").status_code == 200


def test_a_full_disk_is_said_to_be_full(faulty):
    assert problem(faulty.get("/full"), 507)["type"] == "/problems/no-space"


def test_a_database_that_is_away_is_said_to_be_away_before_and_in_every_route(serve, tmp_path):
    """By the guard, by what answers an Idempotency-Key, and by routes."""
    with tempfile.TemporaryDirectory(prefix="dif-pg-", ignore_cleanup_errors=True) as folder:
        postgres = PostgresServer(Path(folder))
        postgres.start()
        locations = Locations(tmp_path, database_url=postgres.url)
        service = create_app(Settings(locations=locations, example_model=False))
        open_to_all = create_app(Settings(locations=locations, example_model=False, open=True))
        with serve(service) as address, serve(open_to_all) as open_address:
            assert httpx.get(f"{address}/models", timeout=60).status_code == 200
            postgres.stop()
            time.sleep(1.1)  # for which the guard remembers that no key is needed
            keyed = {"Idempotency-Key": "once"}
            for answer in (
                httpx.get(f"{address}/models", timeout=60),
                httpx.get(f"{open_address}/models", timeout=60),
                httpx.post(f"{open_address}/datasets", json=IMPORT, headers=keyed, timeout=60),
            ):
                assert problem(answer, 503)["detail"] == "the database cannot be reached"
                assert answer.headers["Retry-After"] == "5"
            postgres.start()
            assert httpx.get(f"{address}/models", timeout=60).status_code == 200
        postgres.stop()


def test_json_fields_at_fault_have_pointers(faulty):
    answer = problem(faulty.post("/orders", json={"steps": 0, "classes": [1, "x"]}), 422)
    assert [error["pointer"] for error in answer["errors"]] == ["/steps", "/classes/1"]
    assert "0" in answer["errors"][0]["detail"]
    assert "greater than or equal to 1" in answer["errors"][0]["detail"]


def test_a_model_s_refusal_is_reported_at_its_field(faulty):
    answer = problem(faulty.post("/orders", json={"steps": 1}), 422)
    assert answer["errors"] == [
        {"pointer": "/classes/0", "detail": "class is 7; it must lie in 0..4"}
    ]


def test_json_that_is_none_is_malformed(faulty):
    headers = {"Content-Type": "application/json"}
    answer = faulty.post("/orders", content=b'{"steps": ', headers=headers)
    assert problem(answer, 400)["type"] == "/problems/malformed"


def test_json_that_is_no_object_is_told_so(faulty):
    answer = problem(faulty.post("/orders", json=[1]), 422)
    assert answer["detail"] == "the body; it must be a JSON object"


@pytest.mark.parametrize("content_type", ["", "text/plain", "application/x-www-form-urlencoded"])
def test_a_body_that_is_not_called_json_is_of_the_wrong_type(faulty, content_type):
    headers = {"Content-Type": content_type} if content_type else {}
    answer = faulty.post("/orders", content=b'{"steps": 1}', headers=headers)
    assert "it must be application/json" in problem(answer, 415)["detail"]


def test_a_bad_name_in_the_path_is_named(client):
    answer = problem(client.put("/datasets/UPPER", content=b""), 422)
    assert answer["errors"][0]["parameter"] == "name"
    assert answer["errors"][0]["in"] == "path"


@pytest.mark.parametrize("path", ["/datasets/new", "/models/new"])
def test_an_archive_in_a_form_is_of_the_wrong_type(client, path):
    answer = client.put(path, files={"file": ("new.zip", b"PK")})
    assert "not a form" in problem(answer, 415)["detail"]


def test_a_list_that_follows_what_does_not_exist_is_not_found(client):
    for path in ("/datasets", "/models", "/train-jobs"):
        assert "'nobody'" in problem(client.get(path, params={"after": "nobody"}), 404)["detail"]


def test_the_caller_s_request_id_is_kept_where_it_is_a_plain_word(client):
    answer = client.get("/healthz", headers={"X-Request-ID": "upload-7"})
    assert answer.headers["x-request-id"] == "upload-7"
    answer = client.get("/healthz", headers={"X-Request-ID": 'a "quoted" id'})
    assert '"' not in answer.headers["x-request-id"]


def test_every_problem_type_can_be_looked_up(client):
    for kind in KINDS:
        described = client.get(kind.type).json()
        assert described["status"] == kind.status
        assert described["title"] == kind.title
    assert client.get("/problems/none-such").status_code == 404


def test_accept_is_read_as_the_standard_says():
    offered = ("image/png", "image/webp", "application/json")
    assert choose(None, offered) == "image/png"
    assert choose("*/*", offered) == "image/png"
    assert choose("application/json", offered) == "application/json"
    assert choose("image/webp;q=0.5, application/json;q=0.9", offered) == "application/json"
    assert choose("image/png;q=0, image/*", offered) == "image/webp"
    assert choose("text/html, */*;q=0.1", offered) == "image/png"
    assert choose("IMAGE/WEBP", offered) == "image/webp"


def test_more_work_than_may_wait_is_refused_with_when_to_come_back():
    async def fill(pool: ThreadPool, gate: threading.Event) -> None:
        first = asyncio.create_task(pool.run(gate.wait))
        await asyncio.sleep(0)
        with pytest.raises(Busy) as refusal:
            await pool.run(gate.wait)
        assert int(refusal.value.headers["Retry-After"]) >= 1
        gate.set()
        assert await first
        assert await pool.run(gate.wait)

    pool = ThreadPool("tests", threads=1, max_waiting=0)
    asyncio.run(fill(pool, threading.Event()))
    pool.close()


def test_errors_of_one_place_are_told_once():
    with pytest.raises(InvalidInput) as refusal, reported_at("t", "form"):
        raise Invalid("t", 5, "it must lie in 0..4")
    (error,) = refusal.value.errors
    assert (error.parameter, error.place) == ("t", "form")
    assert json.loads(error.model_dump_json(by_alias=True))["in"] == "form"


def test_a_refusal_is_reported_by_its_field_not_by_its_words():
    with pytest.raises(InvalidInput) as refusal, reported_in(Order):
        raise Invalid.because("too many for this model", field="steps", value=99)
    assert [error.pointer for error in refusal.value.errors] == ["/steps"]


def test_an_error_of_ours_is_not_reported_as_the_caller_s():
    with pytest.raises(ValueError, match="steps is a word"), reported_in(Order):
        raise ValueError("steps is a word at the start of some internal error")
