"""Files that were changed on disk: a problem of its own kind, a mark, and the way back."""

import shutil
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import httpx
import pytest

from app.datasets.parts import Indexes
from app.main import create_app
from app.settings import Settings
from store.locations import Locations
from tests.app.datasets.test_versions import zipped
from tests.models.images.test_dataset import picture

KIND = "/problems/damaged-artifact"
WEIGHTS = "unet/diffusion_pytorch_model.safetensors"
PETS = {f"{name}/{i}.png": picture(40 + 10 * i, 30, 20) for name in "ab" for i in range(3)}


@contextmanager
def serve_from(serve: Callable[..., AbstractContextManager[str]], data_dir: Path):
    app = create_app(Settings(locations=Locations(data_dir), example_model=False))
    with serve(app) as address, httpx.Client(base_url=address, timeout=60) as client:
        yield client


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("data")


@pytest.fixture
def client(serve, data_dir) -> Iterator[httpx.Client]:
    """Of a service, whose engine has no model in memory."""
    with serve_from(serve, data_dir) as client:
        yield client


@pytest.fixture(scope="module")
def stored(serve, data_dir, model_archive) -> Callable[[str], Path]:
    """stored(ending): the one file of the model or of the dataset whose path ends so."""
    with serve_from(serve, data_dir) as client:
        client.put("/models/tones", content=model_archive()).raise_for_status()
        client.put("/datasets/pets", content=zipped(PETS)).raise_for_status()

    def find(ending: str) -> Path:
        files = [p for p in (data_dir / "artifacts").rglob("*") if p.is_file()]
        (found,) = [path for path in files if str(path).endswith(ending)]
        return found

    return find


def invert(path: Path, count: int = 4000) -> None:
    content = bytearray(path.read_bytes())
    begin = max(0, (len(content) - count) // 2)
    content[begin : begin + count] = bytes(b ^ 0xFF for b in content[begin : begin + count])
    path.write_bytes(content)


def check_problem(answer: httpx.Response, key: str) -> None:
    assert answer.status_code == 500, answer.text
    problem = answer.json()
    assert (problem["type"], problem["title"]) == (KIND, "Damaged artifact")
    assert problem["artifact"].endswith(key)
    assert problem["artifact"] in problem["detail"]


@pytest.mark.parametrize("name", [WEIGHTS, "diffusion.json"])
def test_a_model_whose_file_was_changed_is_not_served_and_comes_back_by_an_upload(
    client, stored, model_archive, name
):
    path = stored(name)
    if name == WEIGHTS:
        invert(path)
    else:  # a milder change: it would still load
        path.write_text(path.read_text().replace('"sigma_data": 0.5', '"sigma_data": 0.6'))
    request = {"model": "tones", "num_inference_steps": 2}
    for _ in range(2):  # it is not kept as loaded
        check_problem(client.post("/sample", json=request), name)
    events = client.post("/sample", json=request, headers={"Accept": "text/event-stream"}).text
    assert "event: error" in events
    assert KIND in events
    check_problem(client.get("/models/tones/download"), name)
    check_problem(client.get("/models/tones/download?format=onnx"), name)
    assert name in client.get("/models/tones").json()["damage"]
    kind = client.get(KIND).json()
    assert kind["status"] == 500
    again = client.put("/models/tones", content=model_archive())
    assert (again.status_code, again.json()["damage"]) == (200, None)
    client.post("/sample", json=request).raise_for_status()
    client.get("/models/tones/download").raise_for_status()


def test_a_model_whose_files_are_gone_is_a_fault_of_the_service(client, stored, model_archive):
    folder = stored("model_index.json").parent
    shutil.rmtree(folder)
    check_problem(client.post("/sample", json={"model": "tones"}), folder.name)
    assert "it is missing" in client.get("/models/tones").json()["damage"]
    client.put("/models/tones", content=model_archive()).raise_for_status()
    client.post("/sample", json={"model": "tones"}).raise_for_status()


def test_each_image_of_a_damaged_archive_is_checked_and_the_others_are_served(client, stored):
    (archive,) = [p for p in stored(".index").parent.iterdir() if not p.suffix]
    before = archive.read_bytes()
    images = client.get("/datasets/pets/images").json()["items"]
    at = before.index(PETS["a/1.png"][20:])  # the first of two equal files
    archive.write_bytes(before[:at] + b"\xff\xff" + before[at + 2 :])
    answers = {i["name"]: client.get(i["links"]["file"]) for i in images}
    check_problem(answers.pop("a/1.png"), archive.name)
    assert {answer.status_code for answer in answers.values()} == {200}
    assert "'a/1.png' in it: its sha256" in client.get("/datasets/pets").json()["damage"]
    (damaged,) = [image for image in images if image["name"] == "a/1.png"]
    check_problem(client.get(damaged["links"]["thumbnail"]), archive.name)
    answer = client.put("/datasets/pets", content=zipped(PETS))
    assert (answer.status_code, answer.json()["damage"]) == (200, None)
    assert archive.read_bytes() == before
    client.get(damaged["links"]["file"]).raise_for_status()


@pytest.mark.parametrize("suffix", [".index", ".fingerprints"])
def test_a_damaged_index_or_fingerprint_is_not_read(client, stored, monkeypatch, suffix):
    monkeypatch.setattr("app.datasets.parts.INDEXES", Indexes(10))  # as after a restart
    path = stored(suffix)
    invert(path, 10)
    check_problem(client.get("/datasets/pets/report"), suffix)
    assert suffix in client.get("/datasets/pets").json()["damage"]
    client.put("/datasets/pets", content=zipped(PETS)).raise_for_status()
    client.get("/datasets/pets/report").raise_for_status()


def test_a_manifest_is_compared_with_the_digest_of_its_version(client, stored):
    images = client.get("/datasets/pets/images").json()["items"]
    body = {"remove": [images[0]["id"]]}
    client.post("/datasets/pets/versions", json=body).raise_for_status()
    path = stored(".manifest")
    before = path.read_bytes()
    invert(path, 10)
    check_problem(client.get("/datasets/pets/images"), ".manifest")
    path.write_bytes(before)
    client.get("/datasets/pets/images").raise_for_status()
