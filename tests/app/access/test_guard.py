"""Every route without a key, with one that is too small, and with somebody else's."""

import io
import re
import time
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

from app.access.scopes import is_open, scopes_for
from app.main import create_app
from app.settings import Settings
from store.access.keys import SCOPES, create_key
from store.access.owners import Quotas
from store.access.quotas import set_quotas
from store.database import open_database
from store.locations import Locations

OPERATIONS = [
    (method.upper(), path)
    for path, operations in create_app(Settings()).openapi()["paths"].items()
    for method in operations
]
GUARDED = [(method, path) for method, path in OPERATIONS if not is_open(path)]
NAMED = [(m, p) for m, p in GUARDED if "{" in p and not re.match("/(keys|schedules)/", p)]
# Where a body is needed to come as far as the records that the path names.
NOBODY = {"key_needed": True, "owner": None, "scopes": [], "usage": {}}
BODIES: dict[tuple[str, str], dict[str, Any]] = {
    ("PATCH", "/models/{name}"): {"license": "MIT"},
    ("PATCH", "/datasets/{name}"): {"visibility": "shared"},
    ("PATCH", "/train-jobs/{job_id}"): {"tags": ["mine"]},
    ("POST", "/datasets/{name}/versions"): {"rename": {"cat": "dog"}},
    ("PATCH", "/pictures/{picture_id}"): {"starred": True},
}


@dataclass(frozen=True)
class Service:
    url: str
    keys: dict[str, str]  # by owner, and by scope for the owner "one"

    def as_(self, who: str) -> httpx.Client:
        headers = {"Authorization": f"Bearer {self.keys[who]}"} if who else {}
        return httpx.Client(base_url=self.url, headers=headers, timeout=60)


@pytest.fixture(scope="module")
def service(serve, tmp_path_factory) -> Iterator[Service]:
    settings = Settings(locations=Locations(tmp_path_factory.mktemp("data")), example_model=False)
    database = open_database(settings.locations.database_url)
    everything = [scope for scope in SCOPES if scope != "admin"]
    keys = {who: create_key(database, who, everything)[1] for who in ("alice", "bob")}
    keys |= {scope: create_key(database, "one", [scope])[1] for scope in SCOPES}
    database.close()
    with serve(create_app(settings)) as url:
        yield Service(url, keys)


@pytest.fixture(scope="module")
def values(service, model_archive) -> dict[str, str]:
    """What alice has, by the parameters of paths; her jobs wait, since there is no worker."""
    with service.as_("alice") as alice:
        dataset = alice.put("/datasets/digits", content=archive()).raise_for_status().json()
        assert (dataset["name"], dataset["owner"]) == ("alice:digits", "alice")
        model = alice.put("/models/faces", content=model_archive()).raise_for_status().json()
        assert (model["name"], model["visibility"]) == ("alice:faces", "private")
        images = alice.get(dataset["links"]["images"]).raise_for_status().json()["items"]
        jobs = {
            "train-jobs": {"dataset": "digits", "steps": 10},
            "evaluations": {"model": "faces", "dataset": "digits"},
            "dataset-imports": None,
        }
        made = {}
        for kind, body in jobs.items():
            if body is None:
                body = {"name": "other", "url": "https://example.org/a.zip"}
                answer = alice.post("/datasets", json=body)
            else:
                answer = alice.post(f"/{kind}", json=body)
            made[kind] = answer.raise_for_status().json()["id"]
        alice.put("/models/old", content=model_archive()).raise_for_status()
        alice.delete("/models/old").raise_for_status()
        (entry,) = alice.get("/trash").raise_for_status().json()["items"]
        made["trash"] = entry["id"]
        order = {"model": "faces", "num_inference_steps": 2}
        image = alice.post("/sample", json=order, headers={"Accept": "image/png"}).content
        kept = alice.post("/pictures", content=image).raise_for_status().json()
        made["pictures"] = kept["items"][0]["id"]
        made["sample-jobs"] = (
            alice.post("/sample", json={"model": "faces"}, headers={"Prefer": "respond-async"})
            .raise_for_status()
            .json()["id"]
        )
    return {"dataset": "alice:digits", "model": "alice:faces", "image": images[0]["id"], **made}


@lru_cache
def archive() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        for n in range(8):
            picture = io.BytesIO()
            Image.fromarray(np.full((8, 8), 30 * n, np.uint8)).save(picture, "PNG")
            file.writestr(f"{'cat' if n % 2 else 'dog'}/{n}.png", picture.getvalue())
    return buffer.getvalue()


def address(path: str, values: dict[str, str]) -> str:
    collection = path.split("/")[1]
    filled = {
        "name": values["model" if collection == "models" else "dataset"],
        "job_id": values.get(collection, "job_0"),
        "image": values["image"],
        "picture_id": values["pictures"],
        "key_id": "000000000000",
        "collection": "models",
        "entry_id": values["trash"],
    }
    return re.sub(r"\{(\w+)\}", lambda found: filled.get(found[1], "1"), path)


def call(client: httpx.Client, method: str, path: str, values: dict[str, str]) -> httpx.Response:
    body = BODIES.get((method, path))
    content = archive() if method == "PUT" or path.endswith("/images") else None
    request: dict[str, Any] = {"json": body} if body else {"content": content}
    return client.request(method, address(path, values), **request)


def state(service: Service) -> list[Any]:
    """All that alice has."""
    with service.as_("alice") as alice:
        return [
            alice.get(f"/{kind}").raise_for_status().json()
            for kind in (
                *("datasets", "models", "train-jobs", "evaluations", "sample-jobs"),
                *("dataset-imports", "datasets/digits/versions", "trash", "pictures"),
            )
        ]


@pytest.mark.parametrize(("method", "path"), GUARDED)
def test_no_route_is_open_without_a_key(method, path, service, values):
    with service.as_("") as nobody:
        answer = call(nobody, method, path, values)
        assert answer.status_code == 401, answer.text
        assert answer.headers["WWW-Authenticate"] == "Bearer"
        assert answer.json()["type"] == "/problems/unauthorized"
        for wrong in ("Bearer x", "Bearer dk_000000000000_" + "A" * 43, "Basic eDp5"):
            answer = nobody.request(method, address(path, values), headers={"Authorization": wrong})
            assert answer.status_code == 401, (wrong, answer.text)


@pytest.mark.parametrize(("method", "path"), GUARDED)
def test_a_key_is_good_for_its_scopes_only(method, path, service, values):
    wanted = scopes_for(method, address(path, values))
    for scope in SCOPES:
        if scope not in (*wanted, "admin"):
            with service.as_(scope) as one:
                answer = call(one, method, path, values)
                assert answer.status_code == 403, (scope, answer.text)
                assert f"this key is for {scope}; this needs" in answer.json()["detail"]


@pytest.mark.parametrize(("method", "path"), NAMED)
def test_what_is_somebody_elses_is_not_there(method, path, service, values):
    before = state(service)
    with service.as_("bob") as bob:
        answer = call(bob, method, path, values)
        expected = 422 if method == "PUT" else 404  # a name of alice's cannot be given
        assert answer.status_code == expected, answer.text
    assert state(service) == before


def test_the_queue_counts_the_jobs_of_others_and_does_not_show_them(service, values):
    with service.as_("alice") as alice, service.as_("bob") as bob:
        hers, his = (each.get("/queue").raise_for_status().json() for each in (alice, bob))
        (job,) = (item for item in hers["items"] if item["id"] == values["train-jobs"])
    assert (his["items"], his["other_running"]) == ([], 0)
    assert his["other_waiting"] == len(hers["items"]) > 0
    assert job["owner"] == "alice"


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/sample", {"model": "{model}"}),
        ("/sample/grid", {"model": "{model}", "x": {"setting": "seed", "values": ["7"]}}),
        ("/train-jobs", {"dataset": "{dataset}"}),
        ("/train-jobs/plan", {"dataset": "{dataset}"}),
        ("/train-jobs", {"resume_from": {"job": "{train-jobs}"}}),
        ("/evaluations", {"model": "{model}"}),
    ],
)
def test_nor_can_it_be_named_in_a_body(path, body, service, values):
    def filled(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: filled(inner) for key, inner in value.items()}
        if isinstance(value, list):
            return [filled(inner) for inner in value]
        return values[value.strip("{}")] if value.startswith("{") else value

    with service.as_("bob") as bob:
        assert bob.post(path, json=filled(body)).status_code == 404
        mine = bob.put("/datasets/digits", content=archive()).raise_for_status().json()
        assert mine["name"] == "bob:digits"
        for field in ("fine_tune", "distill"):
            answer = bob.post("/train-jobs", json={"dataset": "digits", field: values["model"]})
            assert answer.status_code == 404, answer.text


def test_lists_hold_what_is_ones_own(service, values):
    with service.as_("read") as one:
        for kind in (
            *("datasets", "models", "train-jobs", "evaluations", "dataset-imports", "pictures"),
        ):
            assert one.get(f"/{kind}").raise_for_status().json()["items"] == []
    with service.as_("admin") as admin:
        assert values["dataset"] in {d["name"] for d in admin.get("/datasets").json()["items"]}
        assert admin.get(f"/train-jobs/{values['train-jobs']}").json()["owner"] == "alice"


def test_what_is_shared_can_be_used_and_not_changed(service, values):
    with service.as_("alice") as alice, service.as_("bob") as bob:
        for kind, name in (("models", "faces"), ("datasets", "digits")):
            answer = alice.patch(f"/{kind}/{name}", json={"visibility": "shared"})
            assert answer.raise_for_status().json()["visibility"] == "shared"
        before = state(service)
        try:
            assert bob.get("/models/alice:faces").is_success
            assert bob.get("/datasets/alice:digits/preview").is_success
            job = bob.post("/train-jobs", json={"dataset": "alice:digits", "steps": 10})
            assert job.json()["model_name"].startswith("bob:digits-"), job.text
            scores = bob.post(
                "/evaluations", json={"model": "alice:faces", "dataset": "alice:digits"}
            )
            assert scores.status_code == 403, "they would be part of her model's card"
            for method, path in NAMED:
                changes = method in ("PATCH", "DELETE") or path.endswith(("/versions", "/images"))
                if method == "GET" or path.split("/")[1] not in ("models", "datasets"):
                    continue
                assert changes or method == "PUT", (method, path)
                answer = call(bob, method, path, values)
                assert answer.status_code == (422 if method == "PUT" else 403), (path, answer.text)
            assert state(service) == before
        finally:
            for kind, name in (("models", "faces"), ("datasets", "digits")):
                alice.patch(f"/{kind}/{name}", json={"visibility": "private"})
    with service.as_("bob") as bob:
        assert bob.get("/models/alice:faces").status_code == 404


def test_a_revoked_key_is_refused_within_a_second(service):
    with service.as_("admin") as admin:
        made = admin.post("/keys", json={"owner": "carol", "scopes": ["read"]})
        assert made.status_code == 201
        assert made.headers["Cache-Control"] == "no-store"
        key = made.json()
        headers = {"Authorization": f"Bearer {key['key']}"}
        assert httpx.get(f"{service.url}/models", headers=headers).is_success
        assert admin.delete(f"/keys/{key['id']}").status_code == 204
        listed = {k["id"]: k for k in admin.get("/keys").json()["items"]}
        assert listed[key["id"]]["revoked_at"]
        assert "key" not in listed[key["id"]]
        assert admin.delete("/keys/nothing").status_code == 404
        for body, pointer in (
            ({"owner": "A b"}, "/owner"),
            ({"owner": "a", "scopes": ["all"]}, "/scopes/0"),
            ({"owner": "a", "scopes": []}, "/scopes"),
        ):
            refused = admin.post("/keys", json=body)
            assert refused.status_code == 422
            assert refused.json()["errors"][0]["pointer"] == pointer

    deadline = time.monotonic() + 10
    while httpx.get(f"{service.url}/models", headers=headers).status_code != 401:
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_a_browser_signs_in_with_a_cookie(service):
    with httpx.Client(base_url=service.url) as browser:
        assert browser.get("/session").json() == NOBODY
        assert browser.post("/session", json={"key": "dk_x"}).status_code == 401
        answer = browser.post("/session", json={"key": service.keys["alice"]})
        assert answer.json()["owner"] == "alice"
        cookie = answer.headers["Set-Cookie"]
        assert "HttpOnly" in cookie
        assert "SameSite=strict" in cookie
        assert browser.get("/models").is_success
        assert browser.delete("/session").status_code == 204
        assert browser.get("/models").status_code == 401


# Quotas -------------------------------------------------------------------------------------------


def test_a_quota_that_is_used_up_is_answered_429(serve, tmp_path, model_archive):
    quotas = Quotas(quota_bytes=2_000_000, quota_jobs=1, quota_train_minutes=30, quota_images=5)
    settings = Settings(locations=Locations(tmp_path), quotas=quotas, example_model=False)
    database = open_database(settings.locations.database_url)
    _, key = create_key(database, "alice", ["read", "sample", "train", "datasets"])
    headers = {"Authorization": f"Bearer {key}"}
    with (
        serve(create_app(settings)) as url,
        httpx.Client(base_url=url, headers=headers, timeout=60) as alice,
    ):
        alice.put("/datasets/digits", content=archive()).raise_for_status()
        alice.put("/models/faces", content=model_archive()).raise_for_status()
        order = {"model": "faces", "num_images": 3, "num_inference_steps": 2}
        alice.post("/sample", json=order, headers={"Accept": "image/png"}).raise_for_status()
        refused = alice.post("/sample", json=order)
        assert refused.status_code == 429, refused.text
        assert refused.json()["type"] == "/problems/quota-exceeded"
        assert 0 < int(refused.headers["Retry-After"]) <= 86_400
        steps = alice.post("/train-jobs", json={"dataset": "digits", "steps": 10})
        assert [error["pointer"] for error in steps.json()["errors"]] == ["/minutes"]
        request = {"dataset": "digits", "minutes": 20}
        alice.post("/train-jobs", json=request).raise_for_status()
        refused = alice.post("/train-jobs", json=request)
        assert refused.status_code == 429
        assert "Retry-After" not in refused.headers, "more will not come by waiting"
        usage = alice.get("/session").json()["usage"]
        assert usage["images"] == {"used": 3, "quota": 5}
        assert usage["jobs"] == {"used": 1, "quota": 1}
        set_quotas(database, "alice", {"bytes": 1})
        answer = alice.put("/datasets/more", content=archive())
        assert answer.status_code == 429
        assert "your quota is 1 bytes" in answer.json()["detail"]
        assert alice.get("/datasets/more").status_code == 404
        assert list(tmp_path.rglob("*more*")) == []
    database.close()


# Hosts and origins --------------------------------------------------------------------------------


@pytest.mark.parametrize("host", ["evil.example", "evil.example:8000", "127.0.0.1.evil.example"])
def test_a_name_that_is_not_ours_is_refused(host, client):
    answer = client.get("/models", headers={"Host": host})
    assert answer.status_code == 421
    assert "DIFFUSION_TRUSTED_HOSTS" in answer.json()["detail"]
    assert client.get("/healthz", headers={"Host": host}).status_code == 421


@pytest.mark.parametrize(
    "host", ["127.0.0.1:1", "localhost", "LOCALHOST:80", "[::1]:8000", "10.1.2.3"]
)
def test_addresses_and_this_machine_are(host, client):
    assert client.get("/models", headers={"Host": host}).is_success


def test_names_can_be_trusted(serve, tmp_path):
    settings = Settings(
        locations=Locations(tmp_path),
        example_model=False,
        trusted_hosts=("images.example.org", "*.inside.example"),
    )
    with serve(create_app(settings)) as url:
        for host, status in (
            ("images.example.org", 200),
            ("images.example.org:8443", 200),
            ("a.inside.example", 200),
            ("inside.example", 421),
            ("evilinside.example", 421),
        ):
            assert httpx.get(f"{url}/models", headers={"Host": host}).status_code == status


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://127.0.0.1:1"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
    ],
)
def test_other_pages_change_nothing(headers, client):
    for method, path in (
        ("POST", "/train-jobs/job_0/cancel"),
        ("DELETE", "/models/x"),
        ("POST", "/noise"),
        ("PUT", "/datasets/x"),
    ):
        answer = client.request(method, path, headers=headers)
        assert answer.status_code == 403, answer.text
        assert "another origin" in answer.json()["detail"]
    assert client.get("/models", headers=headers).is_success


def test_our_own_page_and_programs_do(client, base_url):
    for headers in ({"Origin": base_url, "Sec-Fetch-Site": "same-origin"}, {}):
        assert client.delete("/models/x", headers=headers).status_code == 404


def test_without_keys_none_can_be_made_over_http(client):
    answer = client.post("/keys", json={"owner": "me"})
    assert answer.status_code == 403
    assert "made on the server" in answer.json()["detail"]
