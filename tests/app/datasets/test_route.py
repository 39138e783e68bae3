"""Uploads: where the classes come from, and what looks odd."""

import io
import json
import zipfile
from collections.abc import Mapping

import pytest
from PIL import Image


def zip_of(files: Mapping[str, str | int]) -> bytes:
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
    answer = client.put("/datasets/pets", content=zip_of(PETS)).json()
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
    answer = client.put("/datasets/edm", content=zip_of(files)).json()
    assert (answer["classes"], answer["labels"]) == ({"0": 2, "1": 2}, "dataset.json:label")
    assert answer["num_rejected"] == 0
    sheet = Image.open(io.BytesIO(client.get("/datasets/edm/preview").content))
    assert [sheet.getpixel((32, y)) for y in (32, 98)] == [(200, 200, 200)] * 2


def test_labels_says_what_is_meant_and_makes_another_dataset(client):
    content = zip_of(PETS | {"pets.csv": "file,owner\npets/train/cat/1.png,ann\n"})
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
    answer = client.put("/datasets/refused", content=zip_of(PETS), params={"labels": labels})
    assert answer.status_code == 422
    (error,) = answer.json()["errors"]
    assert error["parameter"] == "labels"
    assert detail in error["detail"]
    assert client.get("/datasets/refused").status_code == 404
