"""Uploads and the preview: where the classes come from, how files are read, what looks odd, and
what a net sees."""

import io
import json
import zipfile
from collections.abc import Mapping, Sequence

import numpy as np
import pytest
from PIL import Image

from tests.models.images.test_dataset import zip_of
from tests.models.images.test_files import file_of
from tests.models.images.test_reading import CAMERA, RED, gif, mpo, png16

# Labels -------------------------------------------------------------------------------------------


def zipped(files: Mapping[str, str | int]) -> bytes:
    """A zip; a number is the value of a picture."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in files.items():
            picture = io.BytesIO()
            if isinstance(content, int):
                Image.new("L", (12, 10), content).save(picture, "PNG")
            archive.writestr(name, picture.getvalue() or str(content))
    return buffer.getvalue()


PETS = {f"pets/{s}/{c}/{i}.png": i for s in ("train", "test") for c in ("cat", "dog") for i in "12"}
PETS = {name: int(value) for name, value in PETS.items()}


def test_the_answer_says_where_the_classes_come_from_and_what_looks_odd(client):
    answer = client.put("/datasets/pets", content=zipped(PETS)).json()
    assert answer["classes"] == {"cat": 4, "dog": 4}
    assert answer["splits"] == {"train": 4, "test": 4}
    assert answer["labels"] == "folders"
    (warning,) = answer["warnings"]
    assert "fewer than 10 images to learn from: cat (2), dog (2)" in warning
    assert client.get("/datasets/pets").json() == answer


def test_a_label_file_gives_the_classes_also_of_the_preview(client):
    names = [f"00000/img{i:08}.png" for i in range(4)]
    table = json.dumps({"labels": [[name, i % 2] for i, name in enumerate(names)]})
    files = dict.fromkeys(names, 200) | {"dataset.json": table}
    answer = client.put("/datasets/edm", content=zipped(files)).json()
    assert (answer["classes"], answer["labels"]) == ({"0": 2, "1": 2}, "dataset.json:label")
    assert answer["num_rejected"] == 0
    sheet = Image.open(io.BytesIO(client.get("/datasets/edm/preview?image_size=8").content))
    assert [sheet.getpixel((32, y)) for y in (32, 98)] == [(200, 200, 200)] * 2


def test_labels_says_what_is_meant_and_makes_another_dataset(client):
    content = zipped(PETS | {"pets.csv": "file,owner\npets/train/cat/1.png,ann\n"})
    first = client.put("/datasets/meant", content=content, params={"labels": "folders"})
    assert first.status_code == 201
    assert first.json()["classes"] == {"test": 4, "train": 4}
    again = client.put("/datasets/meant", content=content, params={"labels": "folders"})
    assert again.status_code == 200
    other = client.put("/datasets/meant", content=content, params={"labels": "none"})
    assert other.status_code == 409
    assert "other labels" in other.json()["detail"]
    owners = client.put("/datasets/owners", content=content, params={"labels": "pets.csv:owner"})
    assert owners.json()["classes"] == {"ann": 1, "unsorted": 7}


@pytest.mark.parametrize(
    ("labels", "detail"),
    [
        ("breeds", "it must be auto, folders, deepest-folder, none, or a file"),
        ("breeds.csv", "the archive has no such file"),
        ("x" * 501, "at most 500"),
    ],
)
def test_labels_that_the_archive_does_not_have_are_refused_by_name(client, labels, detail):
    answer = client.put("/datasets/refused", content=zipped(PETS), params={"labels": labels})
    assert answer.status_code == 422
    (error,) = answer.json()["errors"]
    assert error["parameter"] == "labels"
    assert detail in error["detail"]
    assert client.get("/datasets/refused").status_code == 404


# Reading ------------------------------------------------------------------------------------------


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


# Both ---------------------------------------------------------------------------------------------


def test_an_upload_has_labels_and_a_reading_and_the_warnings_of_both(client, tmp_path):
    files = {f"{c}/{i}.png": data for c in "ab" for i, data in enumerate(DARK)}
    files["b/2.gif"] = gif([RED, "blue", "lime"])
    archive = zip_of(tmp_path / "a.zip", files).read_bytes()

    def put(**query: str):
        return client.put("/datasets/both", params=query, content=archive)

    first = put(labels="folders", frames="all")
    assert first.status_code == 201
    answer = first.json()
    assert (answer["classes"], answer["labels"]) == ({"a": 2, "b": 5}, "folders")
    assert answer["reading"]["frames"] == "all"
    few, dark = answer["warnings"]
    assert "fewer than 10 images" in few
    assert "range=bits" in dark
    assert put(labels="folders", frames="all").status_code == 200
    assert put(labels="folders").status_code == put(frames="all").status_code == 409
    sheet = Image.open(io.BytesIO(client.get("/datasets/both/preview?image_size=8").content))
    frames = [sheet.getpixel((66 * i + 32, 98)) for i in range(2, 5)]
    assert frames == [(255, 0, 0), (0, 0, 255), (0, 255, 0)]
