"""PUT /datasets and the preview: how files are read, and what a net sees of them."""

import io
from collections.abc import Sequence

import numpy as np
import pytest
from PIL import Image

from tests.models.images.test_dataset import zip_of
from tests.models.images.test_files import file_of
from tests.models.images.test_reading import CAMERA, RED, gif, mpo, png16


@pytest.fixture
def put(client, tmp_path):
    """put(name, files, **query): the answer to an upload."""

    def upload(name: str, files: Sequence[bytes], **query: str):
        archive = zip_of(tmp_path / "a.zip", {f"{i}.img": data for i, data in enumerate(files)})
        return client.put(f"/datasets/{name}", params=query, content=archive.read_bytes())

    return upload


DARK = [png16(CAMERA), png16(CAMERA // 2)]


def test_dark_images_are_warned_of_and_a_range_mends_them(put, client):
    warned = put("dark", DARK)
    assert warned.status_code == 201
    assert "range=bits" in warned.json()["warnings"][0]
    assert warned.json()["reading"] == {"frames": "refuse", "range": "full", "levels": None}
    mended = put("mended", DARK, range="bits").json()
    assert mended["warnings"] == []
    assert mended["reading"] == {"frames": "refuse", "range": "bits", "levels": [0, 4095]}
    assert client.get("/datasets/mended").json() == mended
    sheets = [client.get(f"/datasets/{name}/preview").content for name in ("dark", "mended")]
    dark, bright = (np.asarray(Image.open(io.BytesIO(sheet))) for sheet in sheets)
    assert dark[:64, :64].max() <= 16
    assert bright[:64, :64].max() > 240


def test_the_same_files_read_otherwise_are_other_content(put):
    assert put("twice", DARK).status_code == 201
    assert put("twice", DARK).status_code == 200
    assert put("twice", DARK, range="data").status_code == 409


def test_frames_are_refused_unless_they_are_asked_for(put):
    files = [mpo(), mpo(), gif([RED, "blue", "lime"])]
    plain = put("still", files).json()
    assert (plain["num_images"], plain["num_rejected"]) == (2, 1)
    assert "3 frames" in plain["rejected"][0]["reason"]
    assert put("first", files, frames="first").json()["num_images"] == 3
    assert put("all", files, frames="all").json()["num_images"] == 5


@pytest.mark.parametrize("query", [{"frames": "some"}, {"range": "14"}])
def test_other_readings_are_refused_at_their_parameter(put, query):
    answer = put("other", DARK, **query)
    assert answer.status_code == 422
    (error,) = answer.json()["errors"]
    assert (error["parameter"], error["in"]) == (next(iter(query)), "query")


def test_the_preview_shows_what_a_net_would_see(put, client):
    wide = Image.new("RGB", (40, 20), "blue")
    put("wide", [file_of(wide), file_of(wide)]).raise_for_status()

    def sheet(**query: str) -> np.ndarray:
        answer = client.get("/datasets/wide/preview", params=query)
        assert answer.status_code == 200, answer.text
        return np.asarray(Image.open(io.BytesIO(answer.content)))

    assert sheet().shape == (16 * 2, 8 * 40 * 2 + 7 * 2, 3)  # pixels of 16 x 40, enlarged
    padded = sheet(image_size="32", fit="pad")
    assert padded.shape[0] == 64
    assert padded[2, 2].tolist() == [255, 255, 255]
    assert padded[32, 2].tolist() == [0, 0, 255]
    assert sheet(image_size="32")[2, 2].tolist() == [0, 0, 255]
    refused = client.get("/datasets/wide/preview", params={"image_size": "4x300"})
    assert refused.status_code == 422
    assert refused.json()["errors"][0]["parameter"] == "image_size"
