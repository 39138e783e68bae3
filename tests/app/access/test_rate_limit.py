"""Limits on the rate of requests: what counts, what is told, and what happens without Valkey."""

import os
import shutil
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from app.access.rate_limit import caller_id
from app.access.scopes import is_free
from app.main import create_app
from app.settings import Settings
from store.access.keys import create_key
from store.access.owners import Caller, Quotas
from store.access.quotas import set_quotas
from store.database import open_database
from store.locations import Locations, valkey_socket
from store.valkey import start_valkey

SCOPES = ("read", "sample", "train", "datasets")


@contextmanager
def running(serve, data_dir: Path, **rates: int) -> Iterator[str]:
    """A service with an embedded Valkey, as app.up starts them."""
    settings = Settings(locations=Locations(data_dir), example_model=False, quotas=Quotas(**rates))
    socket = valkey_socket(data_dir)
    valkey = start_valkey(data_dir, socket)
    try:
        with serve(create_app(settings)) as url:
            yield url
    finally:
        valkey.kill()
        valkey.wait()
        socket.unlink(missing_ok=True)


@pytest.fixture
def keys(tmp_path):
    """make_key(owner, ...): a client's headers."""
    database = open_database(Locations(tmp_path).database_url)
    yield lambda owner, scopes=SCOPES: {
        "Authorization": f"Bearer {create_key(database, owner, scopes)[1]}"
    }
    database.close()


def test_an_owner_has_so_many_requests_in_a_minute(serve, tmp_path, keys):
    first, second, bob = keys("alice"), keys("alice"), keys("bob")
    with (
        running(serve, tmp_path, rate_requests=60) as url,
        httpx.Client(base_url=url, timeout=60) as client,
    ):
        left = []
        for n in range(60):
            answer = client.get("/models", headers=(first, second)[n % 2]).raise_for_status()
            assert answer.headers["RateLimit-Policy"] == '"requests";q=60;w=60'
            name, remaining, wait = answer.headers["RateLimit"].split(";")
            assert (name, wait) == ('"requests"', "t=1")
            left.append(int(remaining.removeprefix("r=")))
        assert left[0] == 59
        assert left == sorted(left, reverse=True)
        refused = client.get("/models/none", headers=first)
        while refused.status_code != 429:  # some came back meanwhile
            refused = client.get("/models/none", headers=first)
        assert refused.json()["type"] == "/problems/rate-limited"
        assert refused.headers["RateLimit"] == '"requests";r=0;t=1'
        assert client.get("/models", headers=bob).is_success
        assert client.get("/healthz").is_success
        time.sleep(int(refused.headers["Retry-After"]))
        assert client.get("/models/none", headers=first).status_code == 404


def test_how_long_to_wait_is_so(serve, tmp_path, picture):
    with (
        running(serve, tmp_path, rate_compute=20) as url,
        httpx.Client(base_url=url, timeout=60) as client,
    ):
        form = {"data": {"t": ["1"]}, "files": {"image": picture()}}
        answers = [client.post("/noise", **form)]
        while answers[-1].is_success:
            answers.append(client.post("/noise", **form))
        assert len(answers) >= 21
        refused, since = answers[-1], time.monotonic()
        wait = int(refused.headers["Retry-After"])
        assert 1 <= wait <= 3
        assert refused.headers["RateLimit"] == f'"compute";r=0;t={wait}'
        while client.post("/noise", **form).status_code == 429:
            time.sleep(0.05)
        assert wait - 1.1 < time.monotonic() - since < wait + 1
        answer = client.post("/sample", json={"model": "none"})
        assert answer.status_code == 429, "it shares the limit of what costs"
        answer = client.get("/models")
        assert answer.is_success
        assert "RateLimit" not in answer.headers, "there is no limit on these"


def test_every_route_but_the_free_ones_is_counted(serve, tmp_path):
    with (
        running(serve, tmp_path, rate_requests=10_000, rate_compute=10_000) as url,
        httpx.Client(base_url=url, timeout=60) as client,
    ):
        document = client.get("/openapi.json").json()
        computing = ("/noise", "/sample", "/sample/again", "/sample/grid")

        for path, operations in document["paths"].items():
            for method, operation in operations.items():
                answer = client.request(method, path)
                policies = answer.headers.get("RateLimit-Policy")
                if is_free(path):
                    assert policies is None, path
                    continue
                computes = method == "post" and path in computing
                assert policies == f'"{"compute" if computes else "requests"}";q=10000;w=60', path
                for status, response in operation["responses"].items():
                    if status.startswith("2") or status == "429":
                        assert {"RateLimit", "RateLimit-Policy"} <= set(response["headers"])
        free = {path for path in document["paths"] if is_free(path)}
        assert {"/healthz", "/readyz"} <= free
        assert not free & {"/session", "/models", "/sample", "/metrics"}
        for path in ("/", "/console/main.js", "/static/docs.js", "/docs"):
            assert "RateLimit" not in client.get(path).raise_for_status().headers
        assert "RateLimit" in client.get("/no/such/address").headers


def test_an_owner_may_have_a_rate_of_its_own_and_administrators_have_none(serve, tmp_path, keys):
    alice, bob, root = keys("alice"), keys("bob"), keys("root", ["admin"])
    database = open_database(Locations(tmp_path).database_url)
    set_quotas(database, "alice", {"rate_requests": 1200})
    set_quotas(database, "bob", {"rate_requests": 0})
    with (
        running(serve, tmp_path, rate_requests=30) as url,
        httpx.Client(base_url=url, timeout=60) as client,
    ):
        for _ in range(40):
            answer = client.get("/models", headers=alice).raise_for_status()
            assert answer.headers["RateLimit-Policy"] == '"requests";q=1200;w=60'
            for who in (bob, root):
                answer = client.get("/models", headers=who).raise_for_status()
                assert "RateLimit" not in answer.headers
        set_quotas(database, "alice", {"rate_requests": 2})
        deadline = time.monotonic() + 10
        while client.get("/models", headers=alice).status_code != 429:
            assert time.monotonic() < deadline
            time.sleep(0.1)
    database.close()


def uncounted(client: httpx.Client) -> float:
    families = text_string_to_metric_families(client.get("/metrics").text)
    return next(f.samples[0].value for f in families if f.name == "diffusion_rate_uncounted")


def test_without_valkey_requests_go_on(serve, tmp_path):
    settings = Settings(
        locations=Locations(tmp_path), example_model=False, quotas=Quotas(rate_requests=3)
    )
    socket = valkey_socket(tmp_path)
    with serve(create_app(settings)) as url, httpx.Client(base_url=url, timeout=60) as client:
        for _ in range(5):
            assert "RateLimit" not in client.get("/samplers").raise_for_status().headers
        assert uncounted(client) >= 5

        valkey = start_valkey(tmp_path, socket)
        wait_until_refused(client)

        os.kill(valkey.pid, signal.SIGSTOP)  # it takes connections and answers nothing
        started = time.monotonic()
        for _ in range(20):
            assert client.get("/samplers").is_success
        assert time.monotonic() - started < 10.0, "each of them waits"
        os.kill(valkey.pid, signal.SIGCONT)
        wait_until_refused(client)

        valkey.kill()
        valkey.wait()
        assert client.get("/samplers").is_success
        shutil.rmtree(tmp_path / "valkey")  # all is forgotten, and costs no more than a window
        valkey = start_valkey(tmp_path, socket)
        wait_until_refused(client)
        valkey.kill()
        valkey.wait()


def wait_until_refused(client: httpx.Client) -> None:
    deadline = time.monotonic() + 10
    while client.get("/samplers").status_code != 429:
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_who_shares_a_limit():
    assert caller_id(Caller("alice", key_id="a"), "10.0.0.1") == "owner:alice"
    assert caller_id(None, "10.0.0.1") != caller_id(None, "10.0.0.2")
    assert caller_id(None, "2001:db8::1") == caller_id(None, "2001:db8::ffff:1:2:3")
    assert caller_id(None, "2001:db8::1") != caller_id(None, "2001:db8:0:1::1")
    assert caller_id(None, None) == caller_id(None, "")
