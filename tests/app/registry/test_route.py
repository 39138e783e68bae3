"""What the registry says of a model: its license, its origin, its size and its precisions."""

import io
import re
import subprocess
import sys
import time
import zipfile
from uuid import uuid4

import pytest
import yaml
from PIL import Image

from app.registry.example import ARCHIVE
from models.runtime.openvino import resolve_precision


@pytest.fixture
def name():
    return f"model-{uuid4().hex[:8]}"


def with_readme(archive: bytes, text: str) -> bytes:
    buffer = io.BytesIO(archive)
    with zipfile.ZipFile(buffer, "a") as file:
        file.writestr("README.md", text)
    return buffer.getvalue()


def readme_of(client, name: str) -> tuple[dict, str]:
    """Its front matter and its text, in a download."""
    archive = client.get(f"/models/{name}/download").raise_for_status().content
    with zipfile.ZipFile(io.BytesIO(archive)) as file:
        _, header, text = file.read("README.md").decode().split("---\n", 2)
    return yaml.safe_load(header), text


def put(client, name: str, archive: bytes, **query: str):
    return client.put(f"/models/{name}", content=archive, params=query)


def test_an_uploaded_model_says_its_origin_its_size_and_nothing_of_a_license(
    client, name, model_archive
):
    answer = put(client, name, model_archive())
    assert answer.status_code == 201, answer.text
    model = answer.json()
    assert model["license"] is None
    assert model["origin"] == {"kind": "uploaded", "base_model": None, "base_digest": None}
    network = model["network"]
    assert network["float32_bytes"] == 4 * network["num_parameters"]
    with zipfile.ZipFile(io.BytesIO(model_archive())) as file:
        weights = file.getinfo("unet/diffusion_pytorch_model.safetensors").file_size
    assert 0 < weights - network["float32_bytes"] < 20_000  # the file's header
    assert network["flops"] > network["num_parameters"]
    front_matter, text = readme_of(client, name)
    assert front_matter["library_name"] == "diffusers"
    assert "license" not in front_matter
    assert f"# {name}" in text
    assert "| origin | uploaded |" in text
    assert f"{network['num_parameters']:,} parameters" in text


def test_the_precisions_are_those_that_requests_come_to(client, name, model_archive):
    put(client, name, model_archive()).raise_for_status()
    deadline = time.monotonic() + 30
    while (found := client.get(f"/models/{name}").json()["precisions"]) is None:
        assert time.monotonic() < deadline, "the engine does not say its precisions"
        time.sleep(0.1)
    assert set(found) == {"auto", "float32", "bfloat16"}
    for asked, used in found.items():
        request = {"model": name, "num_inference_steps": 1, "precision": asked}
        answer = client.post("/sample", json=request, headers={"Accept": "application/json"})
        assert answer.json()["used"]["precision"] == used
    assert found["bfloat16"] == resolve_precision("bfloat16")
    refusal = client.get(f"/models/{name}").json()["int8_refusal"]
    assert refusal == "the model has not been evaluated in float32 and int8"
    (listed,) = (each for each in client.get("/models").json()["items"] if each["name"] == name)
    assert listed["precisions"] == found


def test_a_license_is_given_with_the_upload_and_changed_later(client, name, model_archive):
    archive = with_readme(model_archive(), "---\nlicense: mit\ntags: [faces]\n---\n# Theirs\n")
    assert put(client, name, archive, license=" CC-BY-4.0 ").json()["license"] == "CC-BY-4.0"
    assert readme_of(client, name)[0] == {
        "license": "cc-by-4.0",
        "library_name": "diffusers",
        "pipeline_tag": "unconditional-image-generation",
        "tags": ["faces"],
    }
    for said, fields in (
        ("ask us", {"license": "other", "license_name": "ask us"}),
        (None, {}),
    ):
        answer = client.patch(f"/models/{name}", json={"license": said})
        assert answer.json()["license"] == said
        assert client.get(f"/models/{name}").json()["license"] == said
        front_matter, text = readme_of(client, name)
        assert {k: v for k, v in front_matter.items() if k.startswith("license")} == fields
        assert "# Theirs" in text


def test_a_license_is_read_from_the_readme_and_travels_with_the_model(client, name, model_archive):
    archive = with_readme(model_archive(), "---\nlicense: apache-2.0\n---\n")
    assert put(client, name, archive).json()["license"] == "apache-2.0"
    download = client.get(f"/models/{name}/download").content
    assert put(client, f"{name}-copy", download).json()["license"] == "apache-2.0"


def test_the_same_model_again_keeps_its_license_and_says_so(client, name, model_archive):
    archive = with_readme(model_archive(), "---\nlicense: apache-2.0\n---\n")
    put(client, name, archive, license="MIT").raise_for_status()
    for query in ({}, {"license": "MIT"}):
        answer = put(client, name, archive, **query)
        assert (answer.status_code, answer.json()["license"]) == (200, "MIT")
    answer = put(client, name, archive, license="Apache-2.0")
    assert answer.status_code == 409
    assert "another license; PATCH changes it" in answer.json()["detail"]


@pytest.mark.parametrize("said", ["", "x" * 201, "two\nlines", 5])
def test_a_license_out_of_bounds_is_refused_by_name(client, name, model_archive, said):
    put(client, name, model_archive()).raise_for_status()
    answer = client.patch(f"/models/{name}", json={"license": said})
    assert answer.status_code == 422, answer.text
    assert [error["pointer"] for error in answer.json()["errors"]] == ["/license"]
    if isinstance(said, str):
        assert "1..200 printable characters" in answer.json()["detail"]
        answer = put(client, f"{name}-2", model_archive(), license=said)
        assert answer.status_code == 422, answer.text
        assert [error["parameter"] for error in answer.json()["errors"]] == ["license"]
    if said == "x" * 201:
        answer = put(
            client, f"{name}-2", with_readme(model_archive(), f"---\nlicense: {said}\n---\n")
        )
        assert answer.status_code == 422
        assert "license is" in answer.json()["detail"]


def test_only_what_is_said_of_a_model_can_be_changed(client, name, model_archive):
    assert client.patch(f"/models/{name}", json={"license": "MIT"}).status_code == 404
    put(client, name, model_archive()).raise_for_status()
    before = client.patch(f"/models/{name}", json={"license": "MIT"}).raise_for_status().json()
    assert client.patch(f"/models/{name}", json={}).json() == before
    shared = client.patch(f"/models/{name}", json={"visibility": "shared"}).json()
    assert (shared["license"], shared["visibility"]) == ("MIT", "shared")
    for body, pointer in (({"digest": "0"}, "/digest"), ({"visibility": None}, "/visibility")):
        answer = client.patch(f"/models/{name}", json=body)
        assert answer.status_code == 422
        assert pointer in [error["pointer"] for error in answer.json()["errors"]]


def program_of(archive: bytes, folder) -> str:
    """Unpack a download, and return the program in its README."""
    with zipfile.ZipFile(io.BytesIO(archive)) as file:
        file.extractall(folder)
    (program,) = re.findall(r"```python\n(.*?)```", (folder / "README.md").read_text(), re.DOTALL)
    return program


def run_program(program: str, folder) -> list[tuple[int, int]]:
    """Run it there, as its reader would, and return the sizes of the images that it makes."""
    (folder / "program.py").write_text(program)
    done = subprocess.run(
        [sys.executable, "program.py"], cwd=folder, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    sizes = []
    for path in sorted(folder.glob("*.png")):
        with Image.open(path) as image:
            sizes.append(image.size)
    return sizes


@pytest.mark.parametrize("class_names", [(), ("cat", "dog")])
def test_the_program_in_a_download_makes_images(client, name, model_archive, tmp_path, class_names):
    given = model_archive((16, 8), class_names=class_names)
    put(client, name, given).raise_for_status()
    downloaded = client.get(f"/models/{name}/download").content
    program = program_of(downloaded, tmp_path)
    assert ("class_labels" in program) == bool(class_names)
    assert run_program(program, tmp_path) == [(8, 16)] * 4

    answer = put(client, f"{name}-back", downloaded)
    assert (answer.status_code, answer.json()["skipped"]) == (201, [])
    again = client.get(f"/models/{name}-back/download").content
    with zipfile.ZipFile(io.BytesIO(again)) as file:
        assert file.read("README.md") == (tmp_path / "README.md").read_bytes()


def test_a_readme_of_somebody_else_gets_the_program(client, name, model_archive):
    archive = with_readme(model_archive(class_names=("cat", "dog")), "# Theirs\n")
    put(client, name, archive).raise_for_status()
    _, text = readme_of(client, name)
    assert text.strip().startswith("# Theirs\n\n## With diffusers\n")
    assert "class_labels=labels" in text


def test_the_program_of_the_model_that_comes_with_the_service_makes_emoji(tmp_path):
    program = program_of(ARCHIVE.read_bytes(), tmp_path)
    assert "class_labels=labels" in program
    assert run_program(program, tmp_path) == []  # it was made before programs wrote files
