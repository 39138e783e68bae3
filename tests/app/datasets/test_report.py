"""The answer to a request for a report: its first images and groups, with the whole counts."""

import numpy as np

from app.datasets.report import MAX_GROUPS, MAX_IMAGES, MAX_OF_GROUP, report_answer
from client.answers import DatasetReport, DuplicateGroup
from models.images.findings import find
from models.images.fingerprints import FINGERPRINT


def rows(count: int) -> np.ndarray:
    """Fingerprints of as many different images."""
    rng = np.random.default_rng(0)
    rows = np.zeros(count, FINGERPRINT)
    rows["sha256"] = rng.integers(0, 256, (count, 32), np.uint8)
    rows["luma"] = rng.integers(0, 256, (count, 16, 16), np.uint8)
    rows["deviation"], rows["sharpness"], rows["height"], rows["width"] = 50, 2, 64, 64
    return rows


def answer(rows: np.ndarray, classes=(), splits=()) -> DatasetReport:
    report = report_answer("pets", 3, find(rows, classes, splits), "image-{}".format)
    assert DatasetReport.model_validate_json(report.model_dump_json()) == report
    return report


def test_a_report_without_findings():
    assert answer(rows(20)).model_dump() == {
        "dataset": "pets",
        "version": 3,
        "num_images": 20,
        "findings": [],
        "complete": True,
        "links": {"self": "/datasets/pets/report?version=3", "dataset": "/datasets/pets?version=3"},
    }


def test_groups_name_their_images_and_what_they_cross():
    images = rows(5)[[0, 1, 2, 3, 4, 1]]
    (finding,) = answer(images, splits=["train"] * 5 + ["test"]).findings
    assert (finding.kind, finding.num_images, finding.num_groups) == ("exact-duplicate", 2, 1)
    assert finding.images == ["image-5", "image-1"]
    assert finding.groups == [
        DuplicateGroup(
            images=["image-5", "image-1"], num_images=2, across_splits=True, across_classes=False
        )
    ]


def test_lists_are_bounded_and_counts_are_not():
    images = np.repeat(rows(MAX_GROUPS + 10), MAX_OF_GROUP + 5)
    images["sharpness"] = 0.1
    exact, blurred = answer(images).findings
    assert (exact.kind, blurred.kind) == ("exact-duplicate", "blurred")
    assert exact.num_images == blurred.num_images == (MAX_GROUPS + 10) * (MAX_OF_GROUP + 5)
    assert len(exact.images) == len(blurred.images) == MAX_IMAGES
    assert (exact.num_groups, len(exact.groups)) == (MAX_GROUPS + 10, MAX_GROUPS)
    assert {(len(group.images), group.num_images) for group in exact.groups} == {
        (MAX_OF_GROUP, MAX_OF_GROUP + 5)
    }
    assert (blurred.num_groups, blurred.groups) == (0, [])
