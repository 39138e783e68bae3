"""POST /sample/grid over the checkpoints of a training."""

import base64
import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

DIGITS = Path(__file__).parents[3] / "examples" / "digits" / "digits.zip"
NET = {"block_out_channels": [8, 8], "norm_num_groups": 4, "attention_head_dim": 4}


@pytest.fixture(scope="module")
def job(service) -> str:
    service.put("/datasets/digits", content=DIGITS.read_bytes()).raise_for_status()
    request = {"dataset": "digits", "steps": 40, "batch_size": 4, "net": NET}
    request |= {
        "checkpoint_every": 20,
        "learning_rate": 0.01,
        "keep_checkpoints": 2,
        "model_name": "learned",
    }
    created = service.post("/train-jobs", json=request).raise_for_status().json()
    for _ in range(60):
        answer = service.get(f"/train-jobs/{created['id']}", params={"wait": 5}).json()
        if answer["done"]:
            break
    assert answer["status"] == "succeeded"
    return str(created["id"])


@pytest.fixture(scope="module")
def ask(service, job):
    def post(**body):
        request = {"job": job, "seed": 5, "num_inference_steps": 3}
        request |= {"x": {"setting": "checkpoint", "values": [20, 40]}}
        request |= {"y": {"setting": "class_label", "values": ["7", None]}}
        given = {name: value for name, value in (request | body).items() if value is not ...}
        return service.post("/sample/grid", json=given, headers={"Accept": "application/json"})

    return post


def pixels(file: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(file))).astype(int)


def test_the_last_checkpoint_makes_the_images_of_the_model(ask, service):
    answer = ask().raise_for_status().json()
    used = [cell["used"]["model"] for cell in answer["cells"]]
    assert used == ["learned@20", "learned@40"] * 2
    first, last, *_ = (pixels(base64.b64decode(cell["image"])) for cell in answer["cells"])
    body = {"model": "learned", "seed": 5, "num_inference_steps": 3, "class_label": "7"}
    assert np.abs(last - pixels(service.post("/sample", json=body).content)).max() <= 1
    assert np.abs(last - first).max() > 10
    assert pixels(base64.b64decode(answer["picture"])).shape[1] > 2 * 112


@pytest.mark.parametrize(
    ("body", "pointer", "part"),
    [
        (
            {"x": {"setting": "checkpoint", "values": [20, 30]}},
            "/x/values/1",
            "no such one is kept",
        ),
        ({"x": {"setting": "checkpoint", "values": ["3"]}}, "/x/values/0", "must be a step"),
        ({"job": ...}, "/job", "job is missing"),
        ({"model": "learned"}, "/model", "either models or checkpoints"),
        ({"x": {"setting": "seed", "values": [1]}}, "/job", "neither x nor y has checkpoints"),
    ],
)
def test_what_is_wrong_is_named(ask, body, pointer, part):
    answer = ask(**body)
    assert answer.status_code == 422, answer.text
    (error,) = answer.json()["errors"]
    assert (error["pointer"], part in error["detail"]) == (pointer, True), error


def test_a_training_that_is_not_there_is_not_found(ask):
    assert ask(job="job_none").status_code == 404
