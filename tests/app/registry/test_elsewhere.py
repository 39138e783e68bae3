"""Models that diffusers saved, uploaded as people pack them."""

import base64
import io
import zipfile
from pathlib import Path
from uuid import uuid4

import pytest
import torch
from diffusers import UNet2DModel
from PIL import Image

PEER = {
    "sample_size": 8,
    "in_channels": 1,
    "out_channels": 1,
    "block_out_channels": (8, 8),
    "layers_per_block": 1,
    "down_block_types": ("DownBlock2D", "AttnDownBlock2D"),
    "up_block_types": ("AttnUpBlock2D", "UpBlock2D"),
    "norm_num_groups": 4,
}


@pytest.fixture
def name() -> str:
    return f"model-{uuid4().hex[:8]}"


def files_of(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def zipped(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        for path, data in files.items():
            file.writestr(path, data)
    return buffer.getvalue()


@pytest.fixture
def by_class(tmp_path: Path) -> bytes:
    """A UNet2DModel of three embeddings, as diffusers' trainers write it."""
    torch.manual_seed(0)
    UNet2DModel(**PEER, num_class_embeds=3).save_pretrained(tmp_path / "peer")
    return zipped(files_of(tmp_path / "peer"))


def sample(client, name: str, **request):
    request = {"model": name, "num_inference_steps": 2, "seed": 1, **request}
    return client.post("/sample", json=request, headers={"Accept": "application/json"})


def pixels_of(answer) -> bytes:
    (image,) = answer.raise_for_status().json()["images"]
    return Image.open(io.BytesIO(base64.b64decode(image))).tobytes()


def test_every_embedding_is_a_class_unless_the_uploader_knows_better(client, name, by_class):
    answer = client.put(f"/models/{name}", content=by_class)
    assert answer.status_code == 201, answer.text
    details = answer.json()["details"]
    assert details["class_names"] == ["0", "1", "2"]
    assert details["has_null_class"] is False
    assert sample(client, name, class_label="2").status_code == 200
    for request, field in (
        ({}, "class_label"),
        ({"class_label": "2", "guidance_scale": 2.0}, "guidance_scale"),
    ):
        refused = sample(client, name, **request)
        assert refused.status_code == 422, refused.text
        assert [error["pointer"] for error in refused.json()["errors"]] == [f"/{field}"]
        assert "each embedding of this model is a class" in refused.json()["detail"]
    onnx = client.get(f"/models/{name}/download", params={"format": "onnx", "sampler": "ddim"})
    assert onnx.status_code == 200


def test_the_null_class_is_named_and_travels_with_the_model(client, name, by_class):
    first, known = f"{name}-first", f"{name}-known"
    client.put(f"/models/{first}", content=by_class).raise_for_status()
    answer = client.put(f"/models/{known}", content=by_class, params={"null_class": 0})
    assert answer.status_code == 201, answer.text
    assert answer.json()["details"]["class_names"] == ["1", "2"]
    assert answer.json()["details"]["has_null_class"] is True
    assert sample(client, known, class_label="2", guidance_scale=2.0).status_code == 200
    for theirs, ours in ({"class_label": "2"}, {"class_label": "2"}), ({"class_label": "0"}, {}):
        pixels = [
            pixels_of(sample(client, model, **request))
            for model, request in ((first, theirs), (known, ours))
        ]
        assert pixels[0] == pixels[1]
    download = client.get(f"/models/{known}/download").content
    answer = client.put(f"/models/{known}-copy", content=download)
    assert answer.json()["details"]["class_names"] == ["1", "2"]
    again = client.put(f"/models/{known}", content=by_class)
    assert again.status_code == 409
    assert "another class_names" in again.json()["detail"]


def test_a_null_class_out_of_bounds_is_refused_by_name(client, name, by_class):
    answer = client.put(f"/models/{name}", content=by_class, params={"null_class": 3})
    assert answer.status_code == 422, answer.text
    assert [error["parameter"] for error in answer.json()["errors"]] == ["null_class"]
    assert "null_class is 3; it must lie in 0..2" in answer.json()["detail"]


def test_the_answer_lists_what_was_skipped(client, name, tmp_path):
    torch.manual_seed(0)
    UNet2DModel(**PEER).save_pretrained(tmp_path / "peer")
    pictures = {f"peer/samples/{i}.png": b"" for i in range(100)}
    clutter = {"__MACOSX/peer/._config.json": b"", "peer/diffusion_pytorch_model.bin": b"\x80"}
    own = {f"peer/{path}": data for path, data in files_of(tmp_path / "peer").items()}
    archive = zipped({**clutter, **own, **pictures})
    for status in (201, 200):
        answer = client.put(f"/models/{name}", content=archive)
        assert answer.status_code == status, answer.text
        assert answer.json()["num_skipped"] == 102
        assert len(answer.json()["skipped"]) == 50
        assert answer.json()["skipped"][1] == {
            "name": "peer/diffusion_pytorch_model.bin",
            "reason": "it may be a pickle, which is never opened",
        }
    with zipfile.ZipFile(io.BytesIO(client.get(f"/models/{name}/download").content)) as file:
        assert set(file.namelist()) == {
            "README.md",
            "config.json",
            "diffusion_pytorch_model.safetensors",
        }
