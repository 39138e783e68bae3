"""/trash on a real server: what was deleted comes back with its artifacts, or goes at once."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import httpx
import pytest

from app.main import create_app
from app.settings import Settings
from store.locations import Locations
from store.upkeep.keeping import Keeping

IMAGE = {"model": "faces", "seed": 1, "num_inference_steps": 3, "precision": "float32"}


def files(data_dir: Path) -> list[Path]:
    return [path for path in (data_dir / "artifacts" / "models").rglob("*") if path.is_file()]


@pytest.fixture
def client(serve, tmp_path) -> Iterator[httpx.Client]:
    app = create_app(Settings(locations=Locations(tmp_path), example_model=False))
    with serve(app) as address, httpx.Client(base_url=address, timeout=60) as client:
        yield client


def test_a_deleted_model_comes_back_with_its_weights(client, model_archive):
    client.put("/models/faces", content=model_archive()).raise_for_status()
    before = client.get("/models/faces").json()
    image = client.post("/sample", json=IMAGE).raise_for_status().content
    assert client.delete("/models/faces").status_code == 204
    assert client.post("/sample", json=IMAGE).status_code == 404
    (entry,) = client.get("/trash").json()["items"]
    assert (entry["collection"], entry["name"]) == ("models", "faces")
    assert entry["num_bytes"] == before["num_bytes"]
    assert client.put("/models/faces", content=model_archive()).status_code == 201  # a free name
    taken = client.post(entry["links"]["restore"])
    assert (taken.status_code, taken.json()["type"]) == (409, "/problems/conflict")
    assert "there is a model 'faces' by now" in taken.json()["detail"]
    client.delete("/models/faces").raise_for_status()
    second = client.get("/trash").json()["items"][0]
    client.delete(second["links"]["remove"]).raise_for_status()  # which leaves the first alone
    restored = client.post(entry["links"]["restore"])
    assert (restored.status_code, restored.headers["Location"]) == (200, "/models/faces")
    assert client.get("/models/faces").json() == before
    assert client.post("/sample", json=IMAGE).raise_for_status().content == image
    assert client.get("/trash").json() == {"items": [], "has_more": False}
    again = client.post(entry["links"]["restore"])
    assert (again.status_code, again.json()["type"]) == (404, "/problems/not-found")


def test_the_command_lists_restores_and_empties(client, model_archive, tmp_path):
    for name in ("a", "b"):
        client.put(f"/models/{name}", content=model_archive()).raise_for_status()
        client.delete(f"/models/{name}").raise_for_status()

    def run(*arguments: str) -> str:
        command = [sys.executable, "-m", "app.cli.main", "--url", str(client.base_url), "trash"]
        done = subprocess.run([*command, *arguments], capture_output=True, text=True)
        assert (done.returncode, done.stderr) == (0, "")
        return done.stdout

    newest, oldest = client.get("/trash").json()["items"]
    assert newest["id"] in run("ls")
    assert run("restore", oldest["id"]) == "models/a is back\n"
    assert client.get("/models/a").status_code == 200
    assert run("empty", "--yes") == "removed 1\n"
    models = tmp_path / "artifacts" / "models"
    assert {path.relative_to(models).parts[0] for path in files(tmp_path)} == {"a"}


def test_nothing_is_kept_where_the_settings_say_so(
    serve: "AbstractContextManager[str]", tmp_path, model_archive
):
    keeping = Keeping(keep_trash=0)
    app = create_app(Settings(locations=Locations(tmp_path), example_model=False, keeping=keeping))
    with serve(app) as address, httpx.Client(base_url=address, timeout=60) as client:
        client.put("/models/faces", content=model_archive()).raise_for_status()
        assert files(tmp_path)
        client.delete("/models/faces").raise_for_status()
        assert client.get("/trash").json()["items"] == []
        assert files(tmp_path) == []
