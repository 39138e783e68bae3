"""POST /evaluations: a real worker says how good a model is."""

import io
from base64 import b64decode
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.models.images.test_dataset import zip_of
from tests.models.images.test_files import file_of

DIGITS = Path(__file__).parents[3] / "examples" / "digits" / "digits.zip"
JSON = {"Accept": "application/json"}
NET = {"block_out_channels": [16, 16], "norm_num_groups": 4, "attention_head_dim": 16}


def finished(service, answer):
    assert answer.status_code == 202, answer.text
    for _ in range(5):  # minutes
        job = service.get(answer.headers["location"], params={"wait": 60}).json()
        if job["done"]:
            return job
    pytest.fail(f"not done after a long wait: {job}")


@pytest.fixture(scope="module")
def model(service):
    """A net that has hardly learned anything."""
    service.put("/datasets/digits", content=DIGITS.read_bytes()).raise_for_status()
    request = {"dataset": "digits", "model_name": "young", "steps": 20, "net": NET, "fit": "pad"}
    job = finished(service, service.post("/train-jobs", json=request))
    assert job["status"] == "succeeded", job["error"]
    return "young"


def test_a_model_is_compared_with_what_it_learned_from(service, model):
    request = {"model": model, "num_images": 100, "num_inference_steps": 5, "likelihood_images": 8}
    job = finished(service, service.post("/evaluations", json=request))
    assert job["status"] == "succeeded", job["error"]
    assert job["dataset"] == "digits"
    assert job["progress"] == {"stage": "done", "progress": 1.0}
    result = job["result"]
    assert result["features"] == "classifier"
    assert result["feature_accuracy"] > 0.8
    assert result["made"]["num_images"] == result["real"]["num_images"] == 100
    assert result["made"]["frechet"] > 2 * result["real"]["frechet"]
    assert result["made"]["pixel_frechet"] > 2 * result["real"]["pixel_frechet"]
    assert 1.0 < result["memorisation"]["unseen"] < 3.0
    assert 0.0 < result["likelihood"]["bits_per_dimension"] < 20.0
    assert result["likelihood"]["num_images"] == 8

    picture = service.get(job["links"]["neighbours"])
    assert picture.headers["content-type"] == "image/png"
    assert Image.open(io.BytesIO(picture.content)).width > 100

    scores = service.get(f"/models/{model}").json()["details"]["scores"]
    used = result["config"]["precision"]
    assert scores == {used: {**result, "evaluation": job["id"]}}
    assert job["config"] == result["config"]
    assert service.get("/evaluations").json()["items"][0]["id"] == job["id"]


def test_real_images_come_to_their_size_as_in_the_training(service, model, tmp_path):
    """The picture has the nearest real ones beside each image: with white edges, as of pad."""
    assert service.get(f"/models/{model}").json()["details"]["fit"] == "pad"
    wide = {f"{i % 10}/{i}.png": file_of(Image.new("L", (16, 8), 4 * i)) for i in range(40)}
    archive = zip_of(tmp_path / "wide.zip", wide)
    service.put("/datasets/wide", content=archive.read_bytes()).raise_for_status()
    request = {"model": model, "dataset": "wide", "num_images": 8, "num_inference_steps": 2}
    request |= {"features": "pixels", "likelihood_images": 0}
    job = finished(service, service.post("/evaluations", json=request))
    assert job["status"] == "succeeded", job["error"]
    picture = decoded(service.get(job["links"]["neighbours"]).content)
    nearest = picture[:48:6, 50:98:6]  # the first one's, of 8 x 8, six times as large
    assert nearest[[0, 1, 6, 7]].min() == 255
    assert nearest[2:6].max() < 160


def test_it_measures_the_images_that_are_served_in_the_precision_that_is_served(
    service, model_archive
):
    service.put("/datasets/digits", content=DIGITS.read_bytes()).raise_for_status()
    service.put("/models/served", content=model_archive()).raise_for_status()
    common = {"model": "served", "num_images": 8, "num_inference_steps": 5, "seed": 3}
    for asked in ("float32", "bfloat16"):
        request = {**common, "dataset": "digits", "features": "pixels", "precision": asked}
        job = finished(service, service.post("/evaluations", json=request))
        assert job["status"] == "succeeded", job["error"]
        picture = service.get(job["links"]["neighbours"]).content
        request = {**common, "precision": asked}
        made = service.post("/sample", json=request, headers=JSON).json()
        assert job["config"]["precision"] == made["used"]["precision"]
        assert made_in(picture) == {decoded(b64decode(image)).tobytes() for image in made["images"]}
        scores = service.get("/models/served").json()["details"]["scores"]
        assert scores[made["used"]["precision"]]["evaluation"] == job["id"]


def test_int8_is_offered_once_the_model_is_as_good_in_it_as_in_float32(service, model):
    request = {"model": model, "num_images": 40, "num_inference_steps": 5, "features": "pixels"}
    request["likelihood_images"] = 0
    sample = {"model": model, "num_images": 3, "seed": 4, "precision": "int8"}

    def evaluated(precision, **changes):
        body = {**request, "precision": precision, **changes}
        job = finished(service, service.post("/evaluations", json=body))
        assert job["status"] == "succeeded", job["error"]
        return job["result"]

    def refusal():
        found = service.get(f"/models/{model}").json()
        assert "int8" not in found["precisions"]
        answer = service.post("/sample", json=sample, headers=JSON)
        assert answer.status_code == 422
        (error,) = answer.json()["errors"]
        assert error["pointer"] == "/precision"
        assert found["int8_refusal"] in error["detail"]
        return error["detail"]

    exact = evaluated("float32")
    assert "has not been evaluated in int8; by POST /evaluations" in refusal()
    evaluated("int8", num_images=20)
    assert "differ in num_images" in refusal()
    rounded = evaluated("int8")
    assert rounded["config"]["precision"] == "int8"
    assert rounded["real"] == exact["real"]
    assert rounded["made"] != exact["made"]
    assert rounded["made"]["frechet"] <= 1.03 * exact["made"]["frechet"]

    found = service.get(f"/models/{model}").json()
    assert (found["precisions"]["int8"], found["int8_refusal"]) == ("int8", None)
    assert found["precisions"]["auto"] != "int8"
    answer = service.post("/sample", json=sample, headers=JSON)
    assert answer.json()["used"]["precision"] == answer.headers["Diffusion-Precision"] == "int8"
    images = [decoded(b64decode(image)) for image in answer.json()["images"]]
    plain = service.post("/sample", json={**sample, "precision": "float32"}, headers=JSON).json()
    difference = images - np.stack([decoded(b64decode(i)) for i in plain["images"]]).astype(int)
    assert 0 < np.abs(difference).mean() < 3

    job = finished(
        service, service.post("/sample", json=sample, headers=JSON | {"Prefer": "respond-async"})
    )
    assert job["used"]["precision"] == "int8"
    for index, image in enumerate(images):
        made = service.get(f"{job['links']['self']}/images/{index}").content
        assert np.array_equal(decoded(made), image)


def decoded(content):
    return np.asarray(Image.open(io.BytesIO(content)))


def made_in(picture):
    """The eight images of 8 x 8 in a picture of neighbours, each six times as large there."""
    pixels = decoded(picture)
    tiles = [pixels[y : y + 48 : 6, x : x + 48 : 6] for y in range(0, 224, 56) for x in (0, 206)]
    return {tile.tobytes() for tile in tiles}


def test_the_same_request_finds_the_same_numbers(service, model):
    request = {
        "model": model,
        "num_images": 50,
        "num_inference_steps": 2,
        "features": "random",
        "likelihood_images": 0,
    }
    one, two = (finished(service, service.post("/evaluations", json=request)) for _ in range(2))
    assert one["id"] != two["id"]
    for result in (one["result"], two["result"]):
        del result["seconds"]
    assert one["result"] == two["result"]
    assert one["result"]["likelihood"] is None


def test_a_running_evaluation_can_be_cancelled(service, model):
    request = {"model": model, "num_images": 20_000, "num_inference_steps": 500}
    job = service.post("/evaluations", json=request).json()
    assert service.post(job["links"]["cancel"]).status_code == 202
    job = service.get(job["links"]["self"], params={"wait": 60}).json()
    assert job["status"] == "cancelled"
    assert service.get(f"/evaluations/{job['id']}/neighbours").status_code == 404


@pytest.mark.parametrize(
    ("change", "status", "pointer"),
    [
        ({"model": "nobody"}, 404, None),
        ({"dataset": "nothing"}, 404, None),
        ({"num_images": 7}, 422, "/num_images"),
        ({"features": "inception"}, 422, "/features"),
        ({"features": "vision_transformer"}, 422, "/features"),
        ({"sampler": "consistency"}, 422, "/sampler"),
        ({"guidance_scale": 21}, 422, "/guidance_scale"),
        ({"precision": "int4"}, 422, "/precision"),
        ({"colour": "red"}, 422, "/colour"),
    ],
    ids=str,
)
def test_what_cannot_be_is_refused_by_name(service, model, change, status, pointer):
    answer = service.post("/evaluations", json={"model": model, **change})
    assert answer.status_code == status, answer.text
    if pointer:
        assert [error["pointer"] for error in answer.json()["errors"]] == [pointer]


@pytest.mark.parametrize(("seed", "is_known"), [(0, True), (1, False)])
def test_what_the_teacher_learned_from_is_not_unseen(service, model, seed, is_known):
    """With another seed the student's held-out images are among those of its teacher."""
    name = f"student-{seed}"
    request = {"distill": model, "model_name": name, "steps": 3, "seed": seed}
    assert finished(service, service.post("/train-jobs", json=request))["status"] == "succeeded"
    request = {"model": name, "num_images": 20, "features": "pixels", "likelihood_images": 0}
    result = finished(service, service.post("/evaluations", json=request))["result"]
    assert (result["memorisation"]["unseen"] is not None) == is_known


def test_an_uploaded_model_needs_a_data_set_to_be_compared_with(service, model):
    archive = service.get(f"/models/{model}/download").content
    service.put("/models/guest", content=archive).raise_for_status()
    answer = service.post("/evaluations", json={"model": "guest"})
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["pointer"] == "/dataset"
    request = {
        "model": "guest",
        "dataset": "digits",
        "num_images": 20,
        "num_inference_steps": 2,
        "features": "pixels",
    }
    result = finished(service, service.post("/evaluations", json=request))["result"]
    assert result["memorisation"]["unseen"] is None  # nobody knows what it learned from
    assert result["likelihood"] is None
