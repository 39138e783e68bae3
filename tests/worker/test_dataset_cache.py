"""Datasets prepared once for each size, fit and rule, and read as their records say."""

import io
import json
import zipfile
from dataclasses import asdict, replace

import numpy as np
import pytest
from PIL import Image

from models.fields import Invalid
from models.images.dataset import index_archive, inspect_archive
from models.images.formats import Reading
from models.images.labels import LabelRule
from models.images.versions import Changes, Manifest
from store.artifacts import ArtifactStore
from store.datasets import CONTENTS, DatasetRecord, Part, first_version, new_version
from tests.models.images.test_dataset import zip_of
from tests.models.images.test_files import file_of
from tests.models.images.test_reading import gif
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
        record = DatasetRecord(**known)
        version = first_version(record)
        return cached_dataset(version, (8, 8), 1, "crop", artifacts, tmp_path, tmp_path)

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


def test_each_fit_is_a_dataset_of_its_own_and_frames_are_read_as_the_record_says(tmp_path):
    wide = Image.new("RGB", (32, 16), "blue")
    archive = zip_of(tmp_path / "a.zip", {"1.png": file_of(wide), "2.gif": gif(["red", "lime"])})
    artifacts = ArtifactStore(str(tmp_path / "artifacts"))
    artifacts.put_file("key", archive)
    reading = inspect_archive(archive, reading=Reading("all")).reading
    record = DatasetRecord(
        digest="d",
        num_images=3,
        classes={},
        artifact_key="key",
        reading={"frames": "all", "range": "full", "levels": None},
    )
    assert Reading.from_dict(record.reading) == reading

    def images(fit):
        version = first_version(record)
        return cached_dataset(version, (16, 16), 3, fit, artifacts, tmp_path, tmp_path).images

    cropped, padded = images("crop"), images("pad")
    assert cropped.shape == padded.shape == (3, 16, 16, 3)
    assert cropped[0, 0, 0].tolist() == [0, 0, 255]
    assert padded[0, 0, 0].tolist() == [255, 255, 255]
    artifacts.delete("key")
    np.testing.assert_array_equal(images("pad"), padded)  # from the cache


def test_a_version_is_some_images_of_its_parts_which_are_prepared_once(tmp_path):
    artifacts = ArtifactStore(str(tmp_path / "artifacts"))
    parts: list[Part] = []
    indexes = []
    for number, values in enumerate([(10, 20, 30), (40, 50)]):
        files = {f"{'ab'[v // 10 % 2]}/{v}.png": file_of(Image.new("L", (8, 8), v)) for v in values}
        archive = zip_of(tmp_path / "a.zip", files)
        summary, index = index_archive(archive)
        key = f"datasets/p/{number}"
        artifacts.put_file(key, archive)
        reading = asdict(summary.reading)
        labels = asdict(summary.labels)
        parts.append(Part(summary.digest, key, 1, summary.num_images, labels, reading))
        indexes.append(index)
    first = Manifest.of(parts[0].digest, indexes[0])
    both = first.with_part(parts[1].digest, indexes[1], ["new", "a"])
    edited = both.edited(Changes([both.id_of(0)], {"new": [both.id_of(4)]}))

    empty = dict.fromkeys(CONTENTS)

    def opened(manifest: Manifest, used: list[Part], **changes: object):
        artifacts.put_bytes("manifest", manifest.to_bytes())
        values = {"digest": manifest.digest, "classes": manifest.counts, **changes}
        version = new_version(
            "p", 2, used, change="edited", manifest_key="manifest", **{**empty, **values}
        )
        return cached_dataset(version, (8, 8), 1, "crop", artifacts, tmp_path, tmp_path)

    dataset = opened(both, parts)
    assert dataset.images[:][:, 0, 0, 0].tolist() == [20, 10, 30, 40, 50]
    assert (dataset.class_names, dataset.labels.tolist()) == (("a", "b", "new"), [0, 1, 1, 2, 0])
    for part in parts:  # from now on from the cache
        artifacts.delete(part.key)
    dataset = opened(edited, parts)
    assert dataset.images[:][:, 0, 0, 0].tolist() == [10, 30, 40, 50]
    assert (dataset.class_names, dataset.labels.tolist()) == (("b", "new"), [0, 0, 1, 1])
    assert isinstance(opened(first, parts[:1]).images, np.memmap)
    with pytest.raises(Invalid, match="found other images in it; upload it again"):
        opened(both, [parts[0], replace(parts[1], num_images=3)])
    with pytest.raises(Invalid, match="found other classes in it"):
        opened(both, parts, classes={"a": 5})
