"""What is made, changed, deleted and downloaded is in the audit log, and nothing else."""

import json

import httpx
import pytest

from app.main import create_app
from app.settings import Settings
from store.access.keys import create_key
from store.database import open_database
from store.locations import Locations
from tests.app.access.test_guard import archive


@pytest.fixture
def keyed(serve, tmp_path):
    """keyed["alice"]: a client with a key of alice's."""
    settings = Settings(locations=Locations(tmp_path), example_model=False)
    database = open_database(settings.locations.database_url)
    keys = {
        "alice": create_key(database, "alice", ["read", "sample", "train", "datasets"]),
        "root": create_key(database, "root", ["admin"]),
    }
    database.close()
    with serve(create_app(settings)) as url:
        clients = {
            who: httpx.Client(base_url=url, headers={"Authorization": f"Bearer {text}"}, timeout=60)
            for who, (_, text) in keys.items()
        }
        yield clients, keys["alice"][0].id
        for client in clients.values():
            client.close()


def test_changes_and_downloads_are_noted_in_order(keyed, model_archive):
    clients, key_id = keyed
    alice, root = clients["alice"], clients["root"]
    alice.put("/datasets/digits", content=archive()).raise_for_status()
    alice.put("/models/faces", content=model_archive()).raise_for_status()
    job = alice.post(
        "/train-jobs",
        json={"dataset": "digits", "steps": 9},
        headers={"Idempotency-Key": "once", "X-Request-ID": "mine"},
    ).json()
    alice.post(
        "/train-jobs",
        json={"dataset": "digits", "steps": 9},
        headers={"Idempotency-Key": "once"},
    ).raise_for_status()
    alice.post(f"/train-jobs/{job['id']}/cancel").raise_for_status()
    alice.get("/models/faces/download").raise_for_status()
    order = {"model": "faces", "num_inference_steps": 2}
    alice.post("/sample", json=order, headers={"Accept": "image/png"}).raise_for_status()
    alice.delete("/models/faces").raise_for_status()
    # None of these changes or hands out anything.
    assert alice.delete("/models/faces").status_code == 404
    assert alice.post("/train-jobs", json={}).status_code == 422
    assert alice.get("/audit").status_code == 403
    alice.get("/datasets/digits").raise_for_status()
    alice.post("/train-jobs/plan", json={"dataset": "digits", "steps": 9}).raise_for_status()

    entries = root.get("/audit", params={"limit": 100}).raise_for_status().json()["items"]
    assert [(e["action"], e["path"], e["made"]) for e in reversed(entries)] == [
        ("PUT /datasets/{name}", "/datasets/digits", "/datasets/alice:digits"),
        ("PUT /models/{name}", "/models/faces", "/models/alice:faces"),
        ("POST /train-jobs", "/train-jobs", job["links"]["self"]),
        ("POST /train-jobs/{job_id}/cancel", f"/train-jobs/{job['id']}/cancel", None),
        ("GET /models/{name}/download", "/models/faces/download", None),
        ("POST /sample", "/sample", None),
        ("DELETE /models/{name}", "/models/faces", None),
    ]
    assert {(e["owner"], e["key_id"], e["address"]) for e in entries} == {
        ("alice", key_id, "127.0.0.1")
    }
    assert entries[-3]["request_id"] == "mine"

    lines = root.get("/audit", headers={"Accept": "application/x-ndjson"}).text.splitlines()
    assert [json.loads(line) for line in lines] == list(reversed(entries))
    first = root.get("/audit", params={"limit": 3}).json()
    assert (first["items"], first["has_more"]) == (entries[:3], True)
    rest = root.get("/audit", params={"limit": 100, "after": entries[2]["number"]}).json()
    assert (rest["items"], rest["has_more"]) == (entries[3:], False)
    assert root.get("/audit", params={"owner": "bob"}).json()["items"] == []
    assert root.request("DELETE", "/audit").status_code == 405


def test_without_keys_changes_are_noted_and_images_are_not(serve, tmp_path, model_archive):
    with (
        serve(create_app(Settings(locations=Locations(tmp_path), example_model=False))) as url,
        httpx.Client(base_url=url, timeout=60) as client,
    ):
        client.put("/models/faces", content=model_archive()).raise_for_status()
        order = {"model": "faces", "num_inference_steps": 2}
        client.post("/sample", json=order, headers={"Accept": "image/png"}).raise_for_status()
        (entry,) = client.get("/audit").raise_for_status().json()["items"]
        assert (entry["action"], entry["owner"]) == ("PUT /models/{name}", None)
