"""Datasets at the size of a run, by the rule of their records."""

import io
import json
import zipfile
from dataclasses import asdict

import pytest
from PIL import Image

from models.fields import Invalid
from models.images.dataset import inspect_archive
from models.images.labels import LabelRule
from store.artifacts import ArtifactStore
from store.datasets import DatasetRecord
from worker.dataset_cache import cached_dataset


@pytest.fixture
def opened(tmp_path):
    """opened(files, **changes): the dataset of an archive, whose record has these changes."""
    artifacts = ArtifactStore(str(tmp_path / "artifacts"))

    def open_(files: dict[str, int | str], choice: str = "auto", **changes: object):
        archive = tmp_path / "a.zip"
        with zipfile.ZipFile(archive, "w") as file:
            for name, content in files.items():
                picture = io.BytesIO()
                if isinstance(content, int):
                    Image.new("L", (8, 8), content).save(picture, "PNG")
                file.writestr(name, picture.getvalue() or str(content))
        summary = inspect_archive(archive, choice=choice)
        artifacts.put_file("datasets/a", archive)
        known = {**asdict(summary), "name": "a", "artifact_key": "datasets/a", **changes}
        return cached_dataset(DatasetRecord(**known), (8, 8), 1, artifacts, tmp_path, tmp_path)

    return open_


PETS = {f"{split}/{i}.png": 10 * i for split in ("train", "test") for i in range(1, 4)}


def test_a_label_file_and_splits_are_followed(opened):
    table = {name: f"label {i % 2}" for i, name in enumerate(PETS)}
    dataset = opened(PETS | {"dataset.json": json.dumps(table)})
    assert dataset.class_names == ("label 0", "label 1")
    assert dataset.images[:, 0, 0, 0].tolist() == [10, 20, 30] * 2
    assert dataset.labels.tolist() == [1, 0, 1, 0, 1, 0]
    assert dataset.set_apart.tolist() == [0, 1, 2]


def test_a_dataset_of_an_earlier_version_keeps_its_folders_as_classes(opened):
    old = {"labels": None, "classes": {"test": 3, "train": 3}}
    dataset = opened(PETS, **old)
    assert dataset.class_names == ("test", "train")
    assert dataset.set_apart.tolist() == []
    # The same archive, uploaded anew, is prepared anew, though its digest is the same.
    assert opened(PETS).class_names == ()
    assert opened(PETS).set_apart.tolist() == [0, 1, 2]


def test_classes_that_are_not_those_of_the_record_are_refused(opened):
    with pytest.raises(Invalid, match="found other classes in it; upload it again"):
        opened(PETS, labels=asdict(LabelRule()), classes={"@eaDir": 1, "test": 3, "train": 3})
