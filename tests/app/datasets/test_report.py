"""The answer to a request for a report: its first images and groups, with the whole counts."""

import io
import zipfile
from uuid import uuid4

import numpy as np
from PIL import Image

from app.datasets.report_route import MAX_GROUPS, MAX_IMAGES, MAX_OF_GROUP, report_answer
from client.answers import DatasetReport, DuplicateGroup, ImageAnswer
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


def image_at(position: int) -> ImageAnswer:
    return ImageAnswer(
        id=f"image-{position}",
        name=f"{position}.png",
        frame=0,
        class_name=None,
        split="train",
        height=64,
        width=64,
        sha256="0" * 64,
        links={},
    )


def answer(rows: np.ndarray, classes=(), splits=()) -> DatasetReport:
    report = report_answer("pets", 3, find(rows, classes, splits), image_at)
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
    assert [image.id for image in finding.images] == ["image-5", "image-1"]
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


# Over HTTP ----------------------------------------------------------------------------------------


def archive_of(images: dict[str, np.ndarray]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, pixels in images.items():
            file = io.BytesIO()
            Image.fromarray(pixels).save(file, "PNG")
            archive.writestr(name, file.getvalue())
    return buffer.getvalue()


def textures(count: int) -> list[np.ndarray]:
    rng = np.random.default_rng(1)
    coarse = rng.integers(0, 256, (count, 8, 8, 3), np.uint8)
    return [
        np.asarray(Image.fromarray(c).resize((32, 32), Image.Resampling.BICUBIC)) for c in coarse
    ]


def test_the_report_names_the_images_of_the_version(client):
    pictures = textures(24)
    files = {f"train/{'cat' if i % 2 else 'dog'}/{i}.png": p for i, p in enumerate(pictures)}
    files |= {"test/cat/copy.png": pictures[0], "test/dog/other.png": textures(25)[24]}
    name = f"report-{uuid4().hex[:8]}"
    client.put(f"/datasets/{name}", content=archive_of(files)).raise_for_status()
    dataset = client.get(f"/datasets/{name}").json()
    report = client.get(dataset["links"]["report"]).raise_for_status().json()
    copies = next(f for f in report["findings"] if f["kind"] == "exact-duplicate")
    assert {i["name"].rpartition("/")[2] for i in copies["images"]} == {"copy.png", "0.png"}
    (group,) = copies["groups"]
    assert (group["across_splits"], group["across_classes"]) == (True, True)
    kept, copy = group["images"]
    assert kept == next(i["id"] for i in copies["images"] if i["split"] == "test")
    edit = {"parent": 1, "remove": [copy]}
    client.post(f"/datasets/{name}/versions", json=edit).raise_for_status()
    now = client.get(f"/datasets/{name}/report").raise_for_status().json()
    assert now["version"] == 2
    assert "exact-duplicate" not in [f["kind"] for f in now["findings"]]
    then = client.get(f"/datasets/{name}/report?version=1").json()
    assert then == report
