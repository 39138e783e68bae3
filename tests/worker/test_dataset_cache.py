"""Datasets prepared once for each size and fit, and read as their record says."""

import numpy as np
from PIL import Image

from models.images.dataset import inspect_archive
from models.images.formats import Reading
from store.artifacts import ArtifactStore
from store.datasets import DatasetRecord
from tests.models.images.test_dataset import zip_of
from tests.models.images.test_files import file_of
from tests.models.images.test_reading import gif
from worker.dataset_cache import cached_dataset


def test_each_fit_is_a_dataset_of_its_own_and_frames_are_read_as_the_record_says(tmp_path):
    wide = Image.new("RGB", (32, 16), "blue")
    archive = zip_of(tmp_path / "a.zip", {"1.png": file_of(wide), "2.gif": gif(["red", "lime"])})
    artifacts = ArtifactStore(str(tmp_path / "artifacts"))
    artifacts.put_file("key", archive)
    reading = inspect_archive(archive, reading=Reading("all")).reading
    record = DatasetRecord(
        digest="d",
        artifact_key="key",
        reading={"frames": "all", "range": "full", "levels": None},
    )
    assert Reading.from_dict(record.reading) == reading

    def images(fit):
        return cached_dataset(record, (16, 16), 3, fit, artifacts, tmp_path, tmp_path).images

    cropped, padded = images("crop"), images("pad")
    assert cropped.shape == padded.shape == (3, 16, 16, 3)
    assert cropped[0, 0, 0].tolist() == [0, 0, 255]
    assert padded[0, 0, 0].tolist() == [255, 255, 255]
    artifacts.delete("key")
    np.testing.assert_array_equal(images("pad"), padded)  # from the cache
