"""A model names the images that it learned from, whatever becomes of the dataset afterwards."""

import io
import json
import zipfile
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest
from PIL import Image

from store.artifacts import ArtifactStore
from store.database import Database
from store.datasets import get_version
from store.locations import Locations
from tests.app.datasets.test_versions import zipped
from tests.models.images.test_dataset import picture
from worker.dataset_cache import cached_dataset

TINY = {
    "steps": 20,
    "batch_size": 8,
    "checkpoint_every": 10,
    "image_size": 8,
    "net": {"block_out_channels": [8, 8], "norm_num_groups": 4, "attention_head_dim": 4},
}


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("data")


@pytest.fixture(scope="module")
def service(data_dir, run_service) -> Iterator[httpx.Client]:
    settings = {"DIFFUSION_TRAIN_NICENESS": "0"}
    with run_service(data_dir, {"workers": "up: 2 alive"}, **settings) as client:
        yield client


def finished(service: httpx.Client, address: str, request: dict[str, object]) -> dict:
    accepted = service.post(address, json=request)
    assert accepted.status_code == 202, accepted.text
    job = service.get(accepted.headers["location"], params={"wait": 60}).json()
    while not job["done"]:
        job = service.get(accepted.headers["location"], params={"wait": 60}).json()
    assert job["status"] == "succeeded", job
    return job


@pytest.fixture(scope="module")
def learned(service) -> dict:
    """A model of version 3, of 5."""
    files = {f"{c}/{i}.png": picture(10 * i + len(c)) for c in ("a", "bb") for i in range(10)}
    service.put("/datasets/tones", content=zipped(files)).raise_for_status()
    ids = [i["id"] for i in service.get("/datasets/tones/images?limit=50").json()["items"]]
    more = zipped({f"{i}.png": picture(200 + i) for i in range(4)})
    service.post("/datasets/tones/images?class=new", content=more).raise_for_status()
    edit = {"remove": ids[:3], "move": {"bb": ids[3:5]}, "rename": {"a": "ä"}}
    service.post("/datasets/tones/versions", json=edit).raise_for_status()
    finished(service, "/train-jobs", {"dataset": "tones", "model_name": "tones", **TINY})
    for image in ids[6:8]:
        service.post("/datasets/tones/versions", json={"remove": [image]}).raise_for_status()
    return service.get("/models/tones").json()


def test_the_digest_leads_to_exactly_the_images(service, learned, data_dir):
    assert (learned["dataset"], learned["dataset_version"]) == ("tones", 3)
    assert learned["details"]["class_names"] == ["bb", "new", "ä"]
    digest = learned["dataset_digest"]
    described = service.get("/datasets/tones", params={"version": digest}).json()
    assert (described["version"], described["digest"]) == (3, digest)
    assert described["classes"] == {"bb": 12, "new": 4, "ä": 5}
    listed = service.get(f"/datasets/tones/images?limit=50&version={digest}").json()["items"]
    values = []
    for image in listed:
        file = service.get(image["links"]["file"]).raise_for_status().content
        values.append(int(np.asarray(Image.open(io.BytesIO(file)))[0, 0]))
    a, bb = ([10 * i + n for i in range(10)] for n in (1, 2))
    assert values == [*a[3:], *bb, 200, 201, 202, 203]
    # The worker's own reading of that version, from what it prepared for the job.
    locations = Locations(data_dir)
    database = Database(locations.database_url)
    version = get_version(database, "tones", digest)
    database.close()
    artifacts = ArtifactStore(locations.artifacts_url)
    folders = list((data_dir / "cache").glob("*/8x8x1-crop-*"))
    dataset = cached_dataset(version, (8, 8), 1, "crop", artifacts, data_dir, data_dir)
    assert len(folders) == len(list((data_dir / "cache").glob("*/8x8x1-crop-*"))) == 2
    assert dataset.images[:][:, 0, 0, 0].tolist() == values
    names = [dataset.class_names[i] for i in dataset.labels]
    assert names == [image["class_name"] for image in listed]


def test_its_folder_says_the_same(service, learned):
    content = service.get("/models/tones/download").raise_for_status().content
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        found = [json.loads(archive.read(n)) for n in archive.namelist() if n.endswith(".json")]
    (card,) = [document["metadata"] for document in found if "metadata" in document]
    assert (card["dataset"], card["dataset_version"]) == ("tones", 3)
    assert card["dataset_digest"] == learned["dataset_digest"]


def test_what_follows_from_it_reads_the_same_version(service, learned):
    again = {"resume_from": {"job": learned["job_id"]}, "steps": 30, "model_name": "longer"}
    job = finished(service, "/train-jobs", again)
    assert (job["dataset_version"], job["dataset_digest"]) == (3, learned["dataset_digest"])
    plan = service.post("/train-jobs/plan", json={"distill": "tones", "steps": 9}).json()
    assert plan["dataset_version"] == 3
    newest = {"fine_tune": "tones", "dataset": "tones", "steps": 9}
    assert service.post("/train-jobs/plan", json=newest).json()["dataset_version"] == 5
    refused = service.post("/train-jobs", json={**again, "dataset_version": 5})
    assert refused.json()["errors"][0]["pointer"] == "/dataset_version"
    evaluation = {
        "model": "tones",
        "num_images": 20,
        "features": "pixels",
        "num_inference_steps": 2,
    }
    first = finished(service, "/evaluations", evaluation)
    assert (first["dataset_version"], first["dataset_digest"]) == (3, learned["dataset_digest"])
    other = service.post("/evaluations", json={**evaluation, "dataset_version": 5})
    assert other.json()["dataset_version"] == 5
    assert service.delete("/datasets/tones/versions/3").status_code == 409
    assert service.delete("/datasets/tones/versions/4").status_code == 204


def test_a_dataset_that_was_uploaded_anew_is_not_mistaken_for_it(service, learned):
    for job in service.get("/evaluations").raise_for_status().json()["items"]:
        service.post(f"/evaluations/{job['id']}/cancel")
        ended = service.get(f"/evaluations/{job['id']}", params={"wait": 60}).json()
        assert ended["done"]
    service.delete("/datasets/tones").raise_for_status()
    files = {f"{i}.png": picture(i) for i in range(30)}
    service.put("/datasets/tones", content=zipped(files)).raise_for_status()
    again = {"resume_from": {"job": learned["job_id"]}, "steps": 40}
    refused = service.post("/train-jobs", json=again)
    assert refused.status_code == 409
    assert "has other images than job" in refused.json()["detail"]
    assert service.post("/evaluations", json={"model": "tones"}).status_code == 404
