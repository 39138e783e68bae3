"""What is made, changed, deleted and downloaded is in the audit log, and nothing else."""

import io
import json
import os
import subprocess
import sys
import zipfile

import httpx
import pytest
from PIL import Image

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


def test_any_image_leads_to_who_asked_for_it(keyed, model_archive):
    """Whatever file it is in, also by itself out of many, and not to whoever asked for others."""
    clients, _ = keyed
    alice, root = clients["alice"], clients["root"]
    alice.put(
        "/models/faces", content=model_archive(class_names=("dark", "light"))
    ).raise_for_status()

    def ask(tag, accept="image/png", **changes):
        order = {"model": "faces", "num_inference_steps": 2, "seed": 7, **changes}
        headers = {"Accept": accept, "X-Request-ID": tag}
        return alice.post("/sample", json=order, headers=headers).raise_for_status()

    def whose(file):
        found = root.post("/audit/search", content=file).raise_for_status().json()["items"]
        assert {entry["owner"] for entry in found} <= {"alice"}
        return [entry["request_id"] for entry in found]

    three = ask("three", "application/zip", num_images=3, class_label=[0, 1, 1])
    archive = zipfile.ZipFile(io.BytesIO(three.content))
    for picture in archive.namelist():
        assert whose(archive.read(picture)) == ["three"]
    for kind in ("image/png", "image/webp", "image/jpeg", "application/json"):
        tag = kind.partition("/")[2]
        one = ask(f"{tag}-1", kind, class_label=1)
        other = ask(f"{tag}-0", kind, class_label=0)
        assert whose(one.content)[0] == f"{tag}-1"
        assert whose(other.content)[0] == f"{tag}-0"
    walk = zipfile.ZipFile(io.BytesIO(ask("walk", "application/zip", trajectory=True).content))
    assert whose(walk.read(walk.namelist()[-1])) == ["walk"]

    # By itself out of three, by the administrator, who sees it under its full name.
    alone = archive.read(archive.namelist()[1])
    made = root.post("/sample/again", content=alone).raise_for_status().content
    assert made == alone
    found = root.post("/audit/search", content=made).raise_for_status().json()["items"]
    assert [entry["owner"] for entry in found] == ["root", "alice"]

    order = {"model": "faces", "num_inference_steps": 2, "seed": 9}
    job = alice.post("/sample", json=order, headers={"Prefer": "respond-async"})
    (entry,) = root.get("/audit", params={"limit": 1}).json()["items"]
    recipe = json.loads(one.content)["recipe"] | {"request_digest": entry["request_digest"]}
    (found,) = root.post("/audit/search", json=recipe).raise_for_status().json()["items"]
    assert found["made"] == job.headers["location"]


def test_the_command_lists_entries_and_who_asked_for_a_file(keyed, model_archive, tmp_path):
    clients, _ = keyed
    url = str(clients["root"].base_url)
    key = clients["root"].headers["authorization"].removeprefix("Bearer ")
    clients["alice"].put("/models/faces", content=model_archive()).raise_for_status()
    order = {"model": "faces", "num_inference_steps": 2}
    png = {"Accept": "image/png"}
    mine = clients["alice"].post("/sample", json=order, headers=png).raise_for_status().content
    theirs = {**order, "model": "alice:faces"}
    clients["root"].post("/sample", json=theirs, headers=png).raise_for_status()
    (tmp_path / "mine.png").write_bytes(mine)

    def owners(*arguments):
        command = [sys.executable, "-m", "app.cli.main", "--json", "audit", *arguments]
        environment = {**os.environ, "DIFFUSION_URL": url, "DIFFUSION_API_KEY": key}
        done = subprocess.run(command, env=environment, capture_output=True, check=True)
        return [entry["owner"] for entry in json.loads(done.stdout)]

    assert owners("-n", "2") == ["root", "alice"]
    assert owners("--owner", "alice") == ["alice", "alice"]
    assert owners(str(tmp_path / "mine.png")) == ["alice"]


def test_a_file_that_no_request_made_leads_nowhere(keyed, model_archive):
    root = keyed[0]["root"]
    bare = io.BytesIO()
    Image.new("L", (8, 8)).save(bare, "PNG")
    refused = root.post("/audit/search", content=bare.getvalue())
    assert refused.status_code == 422
    assert "carries no recipe" in refused.json()["errors"][0]["detail"]
    root.put("/models/faces", content=model_archive()).raise_for_status()
    order = {"model": "faces", "num_inference_steps": 2}
    headers = {"Accept": "application/json"}
    made = root.post("/sample", json=order, headers=headers).raise_for_status()
    recipe = made.json()["recipe"]
    unknown = recipe | {"request_digest": 64 * "0"}
    assert root.post("/audit/search", json=unknown).raise_for_status().json()["items"] == []
    del recipe["request_digest"]
    refused = root.post("/audit/search", json=recipe)
    assert refused.json()["errors"][0]["pointer"] == "/request_digest"
    assert keyed[0]["alice"].post("/audit/search", json=unknown).status_code == 403
