"""The whole loop over HTTP, on a real service: upload, train, sample, download, upload again."""

import base64
import io
import json
import os
import signal
import zipfile
from pathlib import Path

import httpx
import numpy as np
import pytest
from PIL import Image
from prometheus_client.parser import text_string_to_metric_families

ROOT = Path(__file__).parents[2]
DIGITS = ROOT / "examples" / "digits" / "digits.zip"
JSON = {"Accept": "application/json"}
TINY_NET = {"block_out_channels": [8, 8], "norm_num_groups": 4, "attention_head_dim": 4}


@pytest.fixture(scope="module")
def dataset(service: httpx.Client) -> dict:
    answer = service.put("/datasets/digits", content=DIGITS.read_bytes())
    assert answer.status_code == 201, answer.text
    return answer.json()


@pytest.fixture(scope="module")
def job(service: httpx.Client, dataset: dict) -> dict:
    request = {
        "dataset": "digits",
        "model_name": "little",
        "steps": 40,
        "batch_size": 16,
        "checkpoint_every": 20,
        "net": TINY_NET,
    }
    answer = service.post("/train-jobs", json=request)
    assert answer.status_code == 202, answer.text
    assert answer.headers["Location"] == f"/train-jobs/{answer.json()['id']}"
    polled = service.get(answer.headers["Location"], params={"wait": 60}).json()
    assert polled["status"] == "succeeded", polled
    return polled


def test_a_dataset_says_what_is_in_it(service, dataset):
    assert dataset["num_images"] == 1797
    assert dataset["channels"] == 1
    assert sum(dataset["classes"].values()) == 1797
    assert service.get("/datasets").json()["items"][0]["name"] == "digits"
    sheet = Image.open(io.BytesIO(service.get("/datasets/digits/preview").content))
    assert sheet.width > 8 * 64


def test_the_same_archive_again_is_the_same_dataset(service, dataset):
    again = service.put("/datasets/digits", content=DIGITS.read_bytes())
    assert again.status_code == 200
    assert again.json()["digest"] == dataset["digest"]


def test_another_archive_under_the_name_is_a_conflict_and_is_not_kept(client, settings):
    assert client.put("/datasets/part", content=_some_digits(5)).status_code == 201
    again = client.put("/datasets/part", content=_some_digits(4))
    assert again.status_code == 409
    assert again.json()["type"] == "/problems/conflict"
    kept = client.get("/datasets/part").json()["digest"]
    folder = Path(settings.locations.artifacts_url) / "datasets" / "part"
    assert {file.name.partition("-")[0] for file in folder.iterdir()} == {kept}


def _some_digits(count: int) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(DIGITS) as whole, zipfile.ZipFile(buffer, "w") as part:
        for name in whole.namelist()[:count]:
            part.writestr(name, whole.read(name))
    return buffer.getvalue()


def test_a_job_tells_its_progress_and_its_recipe(service, job):
    assert job["done"]
    assert job["progress"]["step"] == 40
    assert job["config"]["net"]["block_out_channels"] == [8, 8]
    metrics = service.get(f"/train-jobs/{job['id']}/metrics").json()
    assert [line["step"] for line in metrics["steps"]] == [1, 10, 20, 30, 40]
    assert len(metrics["evaluations"][-1]["levels"]) == 10
    samples = service.get(f"/train-jobs/{job['id']}/samples").json()
    assert samples["steps"][-1] == 40
    grid = service.get(samples["links"][-1])
    assert grid.headers["content-type"] == "image/png"


def test_polling_costs_nothing_while_nothing_changes(service, job):
    answer = service.get(f"/train-jobs/{job['id']}")
    headers = {"If-None-Match": answer.headers["ETag"]}
    again = service.get(f"/train-jobs/{job['id']}", headers=headers)
    assert again.status_code == 304
    assert again.content == b""


@pytest.mark.parametrize("sampler", ["ddpm", "ddim", "euler", "heun", "dpmpp_2m", "unipc"])
def test_the_same_seed_gives_the_same_images(service, job, sampler):
    request = {
        "model": "little",
        "num_images": 3,
        "seed": 5,
        "sampler": sampler,
        "num_inference_steps": 5,
        "class_label": ["1", 2, "3"],
        "guidance_scale": 2.0,
    }
    one, two = (service.post("/sample", json=request, headers=JSON).json() for _ in range(2))
    assert one["images"] == two["images"]
    assert one["used"]["class_label"] == [1, 2, 3]
    picture = Image.open(io.BytesIO(base64.b64decode(one["images"][0])))
    assert picture.size == (8, 8)


@pytest.mark.parametrize("media_type", ["image/png", "image/webp", "image/jpeg"])
def test_several_images_come_as_a_grid(service, job, media_type):
    request = {"model": "little", "num_images": 4, "num_inference_steps": 2}
    answer = service.post("/sample", json=request, headers={"Accept": media_type})
    assert answer.headers["content-type"] == media_type
    assert Image.open(io.BytesIO(answer.content)).size == (16, 16)
    assert answer.headers["Diffusion-Seed"].isdigit()


def test_a_zip_has_a_file_for_each_image(service, job):
    request = {"model": "little", "num_images": 3, "num_inference_steps": 2}
    answer = service.post("/sample", json=request, headers={"Accept": "application/zip"})
    with zipfile.ZipFile(io.BytesIO(answer.content)) as archive:
        assert len(archive.namelist()) == 3


def test_a_downloaded_model_can_be_uploaded_and_makes_the_same_images(service, job):
    archive = service.get("/models/little/download").content
    answer = service.put("/models/copy", content=archive)
    assert answer.status_code == 201, answer.text
    request = {"num_images": 2, "seed": 1, "num_inference_steps": 4}
    made = [
        service.post("/sample", json={"model": name, **request}).raise_for_status().content
        for name in ("little", "copy")
    ]
    grids = [Image.open(io.BytesIO(file)).tobytes() for file in made]
    assert grids[0] == grids[1]
    assert service.delete("/models/copy").status_code == 204
    assert service.get("/models/copy").status_code == 404


def _with_json(archive: bytes, name: str, **changes: object) -> bytes:
    """The archive with values in one of its JSON files changed."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(archive)) as old, zipfile.ZipFile(buffer, "w") as new:
        for entry in old.namelist():
            data = old.read(entry)
            if entry == name:
                data = json.dumps({**json.loads(data), **changes}).encode()
            new.writestr(entry, data)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("name", "changes", "words"),
    [
        ("diffusion.json", {"image_size": [-8, -8]}, "image_size is -8"),
        ("diffusion.json", {"image_size": [8.0, 8.0]}, "image_size is 8.0"),
        ("diffusion.json", {"class_names": ["a"] * 10}, "class_names holds a name twice"),
        ("unet/config.json", {"norm_num_groups": -4}, "norm_num_groups is -4"),
        ("unet/config.json", {"norm_eps": "x"}, "norm_eps is 'x'"),
    ],
)
def test_a_model_that_could_bring_the_engine_down_is_refused(service, job, name, changes, words):
    archive = service.get("/models/little/download").content
    answer = service.put("/models/ill", content=_with_json(archive, name, **changes))
    assert answer.status_code == 422, answer.text
    assert words in answer.json()["detail"]


def test_the_same_weights_with_other_classes_are_another_model(service, job):
    archive = service.get("/models/little/download").content
    assert service.put("/models/little", content=archive).status_code == 200
    renamed = _with_json(archive, "diffusion.json", class_names=list("abcdefghij"))
    answer = service.put("/models/little", content=renamed)
    assert answer.status_code == 409
    assert "another class_names" in answer.json()["detail"]


def test_a_schedule_of_two_steps_makes_a_model(service, dataset):
    request = {
        "dataset": "digits",
        "model_name": "short",
        "steps": 2,
        "batch_size": 4,
        "net": TINY_NET,
        "schedule": {"num_train_timesteps": 2},
    }
    made = service.post("/train-jobs", json=request).json()
    polled = service.get(f"/train-jobs/{made['id']}", params={"wait": 60}).json()
    assert polled["status"] == "succeeded", polled
    assert service.get(f"/train-jobs/{made['id']}/samples/3").status_code == 404
    answer = service.post("/sample", json={"model": "short", "num_inference_steps": 2})
    assert answer.status_code == 200, answer.text


def test_a_killed_engine_is_back_for_the_next_request(service, job):
    for entry in Path("/proc").iterdir():
        line = entry / "cmdline"
        if entry.name.isdigit() and line.exists():
            words = line.read_bytes().split(b"\0")
            if b"app.engine.process" in words and _is_below(int(entry.name), service):
                os.kill(int(entry.name), signal.SIGKILL)
    answer = service.post("/sample", json={"model": "little", "num_inference_steps": 2})
    assert answer.status_code == 200, answer.text


def _is_below(pid: int, service: httpx.Client) -> bool:
    environment = (Path("/proc") / str(pid) / "environ").read_bytes()
    return f"DIFFUSION_PORT={service.base_url.port}".encode() in environment.split(b"\0")


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        ({"model": "nobody"}, 404, "nobody"),
        ({"model": "a/b"}, 422, "/model"),
        ({"model": "x" * 300}, 422, "/model"),
        ({"model": "little", "sampler": "plms"}, 422, "/sampler"),
        ({"model": "little", "num_inference_steps": 0}, 422, "/num_inference_steps"),
        ({"model": "little", "num_inference_steps": 10**9}, 422, "1..1000"),
        ({"model": "little", "num_images": 10**6}, 422, "1..10000"),
        ({"model": "little", "class_label": "cat"}, 422, "/class_label"),
        ({"model": "little", "class_label": 1.5}, 422, '"/class_label"'),
        ({"model": "little", "init_image": "é"}, 422, "init_image is not base64"),
        ({"model": "little", "class_label": 10}, 422, "0..9"),
        ({"model": "little", "guidance_scale": 3.0}, 422, "/guidance_scale"),
        ({"model": "little", "seed": -1}, 422, "/seed"),
        ({"model": "little", "eta": 0.5, "sampler": "euler"}, 422, "/eta"),
    ],
)
def test_a_sample_that_cannot_be_is_refused_by_field_and_bound(service, job, body, status, words):
    answer = service.post("/sample", json=body)
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    assert words in answer.text


@pytest.mark.parametrize(
    ("field", "value"), [("guidance_scale", "NaN"), ("guidance_interval", "[NaN, 500]")]
)
def test_guidance_that_is_not_a_number_is_refused(service, job, field, value):
    body = f'{{"model": "little", "class_label": 1, "{field}": {value}}}'
    answer = service.post("/sample", content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code == 422
    assert f"/{field}" in answer.text


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        ({"dataset": "nothing", "steps": 1}, 404, "nothing"),
        ({"dataset": "digits", "steps": 0}, 422, "/steps"),
        ({"dataset": "digits", "minutes": -1}, 422, "/minutes"),
        ({"dataset": "digits", "image_size": 4}, 422, "8..256"),
        ({"dataset": "digits", "image_size": 9, "net": TINY_NET}, 422, "multiple of 2"),
        ({"dataset": "digits", "model_name": "little"}, 409, "little"),
        ({"dataset": "digits", "preset": "gan"}, 422, "/preset"),
        ({"dataset": "digits", "image_size": "x"}, 422, '"/image_size"'),
        ({"dataset": "digits", "model_name": "a..b"}, 422, "/model_name"),
        ({"dataset": "digits", "learning_rate": 1e9}, 422, "/learning_rate"),
        ({"dataset": "digits", "prediction_type": "flow"}, 422, "/prediction_type"),
        ({"dataset": "digits", "net": {"dropout": 1.0}}, 422, "/net/dropout"),
        ({"dataset": "digits", "net": {"norm_num_groups": 0}}, 422, "/net/norm_num_groups"),
        ({"dataset": "digits", "schedule": {"beta_end": 2}}, 422, "/schedule/beta_end"),
        ({"dataset": "digits", "preset": "edm", "schedule": {"rho": 0}}, 422, "/schedule/rho"),
        ({"dataset": "digits", "surprise": 1}, 422, "/surprise"),
    ],
)
def test_a_job_that_cannot_work_is_refused_when_it_is_asked_for(service, job, body, status, words):
    answer = service.post("/train-jobs", json=body)
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    assert words in answer.text


def _archive(**files: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return buffer.getvalue()


def _png() -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "neither a zip nor a tar"),
        (b"plain text", "neither a zip nor a tar"),
        (_archive(), "0 usable"),
        (_archive(**{"one.png": _png()}), "at least 2"),
        (_archive(**{"a.png": b"text", "b.png": _png()[:40]}), "not an image"),
        (_archive(**{"../a.png": _png(), "b.zip": _archive()}), "leaves the archive"),
    ],
)
def test_an_archive_without_images_is_refused_with_the_reason(service, content, words):
    answer = service.put("/datasets/bad", content=content)
    assert answer.status_code == 422, answer.text
    assert words in answer.json()["detail"]
    assert service.get("/datasets/bad").status_code == 404


@pytest.mark.parametrize("name", ["x" * 300, "UPPER", "-a", "a..b", "%00"])
def test_a_bad_name_is_refused(service, name):
    answer = service.put(f"/datasets/{name}", content=DIGITS.read_bytes())
    assert answer.status_code in (404, 422)
    assert answer.headers["content-type"] == "application/problem+json"


def test_a_model_with_a_pickle_is_refused(service):
    archive = _archive(**{"unet/diffusion_pytorch_model.bin": b"\x80\x04"})
    answer = service.put("/models/pickled", content=archive)
    assert answer.status_code == 422
    assert "safetensors" in answer.json()["detail"]


def test_a_queued_or_running_job_can_be_cancelled_once(service, dataset):
    request = {"dataset": "digits", "steps": 10**6, "net": TINY_NET, "model_name": "never"}
    job = service.post("/train-jobs", json=request).json()
    assert service.delete("/datasets/digits").status_code == 409
    assert service.post(f"/train-jobs/{job['id']}/cancel").status_code == 202
    done = service.get(f"/train-jobs/{job['id']}", params={"wait": 60}).json()
    assert done["status"] == "cancelled"
    again = service.post(f"/train-jobs/{job['id']}/cancel")
    assert again.status_code == 409
    assert "cancelled" in again.json()["detail"]


# Sample jobs --------------------------------------------------------------------------------------


def test_many_images_become_a_job_for_the_workers(service, job):
    request = {"model": "little", "num_images": 70, "num_inference_steps": 2, "seed": 5}
    accepted = service.post("/sample", json=request)
    assert accepted.status_code == 202, accepted.text
    address = accepted.headers["Location"]
    assert address == f"/sample-jobs/{accepted.json()['id']}"
    assert "Preference-Applied" not in accepted.headers
    done = service.get(address, params={"wait": 60}).json()
    assert done["status"] == "succeeded", done
    assert done["progress"]["images"] == done["progress"]["num_images"] == 70
    assert done["used"]["seed"] == 5
    page = service.get(done["links"]["images"], params={"limit": 60}).json()
    assert [item["index"] for item in page["items"]] == list(range(60))
    assert page["has_more"]
    rest = service.get(done["links"]["images"], params={"after": 59}).json()
    assert [item["index"] for item in rest["items"]] == list(range(60, 70))
    image = service.get(rest["items"][-1]["href"])
    assert Image.open(io.BytesIO(image.content)).size == (8, 8)
    archive = service.get(done["links"]["archive"])
    assert archive.headers["content-type"] == "application/zip"
    with zipfile.ZipFile(io.BytesIO(archive.content)) as files:
        assert len(files.namelist()) == 70
        assert files.read(files.namelist()[69]) == image.content
    assert done["id"] in [item["id"] for item in service.get("/sample-jobs").json()["items"]]
    assert done["id"] not in [item["id"] for item in service.get("/train-jobs").json()["items"]]
    assert service.get(f"/train-jobs/{done['id']}").status_code == 404
    assert service.post(f"{address}/cancel").status_code == 409
    assert service.delete(address).status_code == 204
    assert service.get(address).status_code == 404
    assert service.get(rest["items"][-1]["href"]).status_code == 404


def test_a_job_gives_the_pixels_of_an_answer(service, job):
    request = {"model": "little", "num_images": 3, "seed": 11, "deterministic": True}
    at_once = service.post("/sample", json=request, headers={"Accept": "application/zip"})
    accepted = service.post("/sample", json=request, headers={"Prefer": "wait=5, respond-async"})
    assert accepted.status_code == 202
    assert accepted.headers["Preference-Applied"] == "respond-async"
    done = service.get(accepted.headers["Location"], params={"wait": 60}).json()
    assert done["status"] == "succeeded", done
    archive = service.get(done["links"]["archive"])
    assert _pixels_of(archive.content) == _pixels_of(at_once.content)


def test_who_waits_gets_no_job(service, job):
    """A trajectory, a deadline and events are for those who wait."""
    prefer = {"Prefer": "respond-async"}
    request = {"model": "little", "num_inference_steps": 3}
    for own in ({"trajectory": True}, {"deadline_seconds": 60}):
        assert service.post("/sample", json=request | own, headers=prefer).status_code == 200
    too_many = {**request, "num_images": 65, "trajectory": True}
    answer = service.post("/sample", json=too_many, headers=prefer)
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["pointer"] == "/num_images"
    beyond = {**request, "num_images": 10_001}
    answer = service.post("/sample", json=beyond)
    assert answer.status_code == 422
    assert "10000" in answer.json()["errors"][0]["detail"]


def _pixels_of(archive: bytes) -> list[bytes]:
    with zipfile.ZipFile(io.BytesIO(archive)) as files:
        return [Image.open(io.BytesIO(files.read(n))).tobytes() for n in sorted(files.namelist())]


# Metrics ------------------------------------------------------------------------------------------


def test_metrics_count_what_the_engine_did(service, job):
    def values() -> dict[str, float]:
        families = text_string_to_metric_families(service.get("/metrics").text)
        return {
            sample.name: sample.value
            for family in families
            for sample in family.samples
            if sample.labels.get("model", "little") == "little"
            and sample.labels.get("steps", "10") == "10"
            and "le" not in sample.labels
        }

    request = {"model": "little", "num_images": 3, "num_inference_steps": 7}
    assert service.post("/sample", json=request).status_code == 200
    before = values()
    assert service.post("/sample", json=request).status_code == 200
    after = values()
    grown = {name: after[name] - before[name] for name in after}
    assert grown["diffusion_engine_steps_total"] >= 7
    assert grown["diffusion_engine_rows_total"] == 21
    assert grown["diffusion_engine_evaluations_total"] == 21
    assert grown["diffusion_engine_padding_total"] >= 0
    assert grown["diffusion_engine_step_seconds_total"] > 0
    assert grown["diffusion_sample_seconds_count"] == 1
    assert after["diffusion_engine_up"] == 1
    assert after["diffusion_engine_queue_depth"] == 0
    assert after["diffusion_engine_backlog_seconds"] == 0
