"""A client that is generated from the OpenAPI document, as docs/clients.md says."""

import base64
import importlib
import io
import json
import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from PIL import Image

ROOT = Path(__file__).parents[3]
GENERATOR = "openapi-python-client==0.29.1"
PACKAGE = "generated_client"


@pytest.fixture(scope="module")
def generator(request, tmp_path_factory) -> Path:
    """The generator, in an environment of its own, since it needs an earlier typer than the command
    line; installed once, into pytest's cache."""
    folder = Path(request.config.cache.mkdir(GENERATOR.replace("==", "-")))
    command = folder / "bin" / "openapi-python-client"
    if not command.exists():
        pins = (ROOT / "constraints.txt").read_text().splitlines()
        constraints = tmp_path_factory.mktemp("pins") / "constraints.txt"
        constraints.write_text("\n".join(pin for pin in pins if not pin.startswith("typer==")))
        python, pip = folder / "bin" / "python", [sys.executable, "-m", "pip", "--quiet"]
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
        install = ["install", "--no-compile", "--constraint", constraints, GENERATOR]
        done = subprocess.run(
            [*pip, "--python", python, *install], capture_output=True, text=True, timeout=300
        )
        if done.returncode and os.environ.get("DIFFUSION_TEST_GENERATOR") != "required":
            pytest.skip(f"{GENERATOR} cannot be installed: {done.stderr[-300:]}")
        assert done.returncode == 0, done.stderr
    return command


@pytest.fixture(scope="module")
def generated(generator, client, tmp_path_factory):
    """generated("api.sample.sample"): a module of the client; to generate it gave no warning."""
    folder = tmp_path_factory.mktemp("generated")
    (config,) = re.findall(
        r"^    content_type_overrides:\n(?:      .*\n)+",
        (ROOT / "docs" / "clients.md").read_text(),
        re.MULTILINE,
    )
    assert len(config.splitlines()) == 3
    (folder / "config.yml").write_text(config)
    (folder / "openapi.json").write_bytes(client.get("/openapi.json").content)
    files = ["--path", folder / "openapi.json", "--config", folder / "config.yml"]
    done = subprocess.run(
        [generator, "generate", *files, "--meta", "none", "--output-path", folder / PACKAGE],
        capture_output=True,
        text=True,
        env={**os.environ, "PATH": f"{generator.parent}{os.pathsep}{os.environ['PATH']}"},
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "warning" not in done.stdout.lower(), done.stdout
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(folder))
        yield lambda name: importlib.import_module(f"{PACKAGE}.{name}")


@pytest.fixture(scope="module")
def theirs(generated, base_url):
    """The client for JSON, where there is a choice."""
    with generated("client").Client(base_url, headers={"Accept": "application/json"}) as client:
        yield client


@pytest.fixture(scope="module")
def model(client, model_archive) -> str:
    archive = model_archive(class_names=("cat", "dog"))
    client.put("/models/generated", content=archive).raise_for_status()
    return "generated"


def call(generated, theirs, tag: str, operation: str, **arguments):
    """What the operation of this id answers."""
    return generated(f"api.{tag}.{operation}").sync(client=theirs, **arguments)


def test_it_samples(generated, theirs, model):
    models = generated("models")
    body = models.SampleBody(model=model, num_images=2, seed=7, num_inference_steps=2)
    made = call(generated, theirs, "sample", "sample", body=body)
    assert isinstance(made, models.SampleAnswer)
    assert made.used.seed == 7
    pictures = [Image.open(io.BytesIO(base64.b64decode(one))) for one in made.images]
    assert [picture.size for picture in pictures] == [(8, 8)] * 2
    refused = call(generated, theirs, "sample", "sample", body=models.SampleBody(model="nobody"))
    assert isinstance(refused, models.Problem)
    assert refused.status == 404


def test_it_downloads(generated, theirs, client, model):
    file = call(generated, theirs, "models", "download_model", name=model)
    with zipfile.ZipFile(file.payload) as archive:
        assert "unet/config.json" in archive.namelist()
    (image,) = client.post(
        "/sample",
        json={"model": model, "num_inference_steps": 2},
        headers={"Accept": "application/json"},
    ).json()["images"]
    png = generated("types").File(payload=io.BytesIO(base64.b64decode(image)))
    again = call(generated, theirs, "sample", "sample_again", body=png)
    assert again.images == [image]
    assert "images" in call(generated, theirs, "service", "metrics")


def test_the_facts_of_a_model_are_typed(generated, theirs, model):
    details = call(generated, theirs, "models", "get_model", name=model).details
    assert details.image_size == [8, 8]
    assert details.class_names == ["cat", "dog"]
    assert details.schedule.num_train_timesteps == 1000
    assert details.prediction_type.value == "v"


def test_a_training_is_typed(generated, theirs, client):
    archive = (ROOT / "examples" / "digits" / "digits.zip").read_bytes()
    client.put("/datasets/generated", content=archive).raise_for_status()
    models = generated("models")
    body = models.TrainRequest(dataset="generated", steps=5, net=models.NetOptions(dropout=0.25))
    for operation in ("plan_train_job", "create_train_job"):
        answer = call(generated, theirs, "training", operation, body=body)
        assert answer.config.steps == 5
        assert answer.config.net.dropout == 0.25
        assert answer.config.preset.value == "edm"
        assert "batch_size" in answer.config.reasons
        json.dumps(answer.to_dict())
    assert answer.progress.to_dict() == {}
    (job,) = call(generated, theirs, "training", "list_train_jobs", limit=1).items
    assert job.config == answer.config
    assert call(generated, theirs, "training", "delete_train_job", job_id=job.id).status == 409
    call(generated, theirs, "training", "cancel_train_job", job_id=job.id)
