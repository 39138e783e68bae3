"""The images of a dataset: the listing, thumbnails and files."""

import hashlib
import io
from base64 import b64decode
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from app.datasets.parts import Indexes
from models.images.index import Index
from store.artifacts import ArtifactStore
from store.database import Database
from store.datasets import DatasetVersion
from tests.app.datasets.test_versions import zipped
from tests.models.images.test_dataset import picture
from tests.models.images.test_reading import gif
from tests.models.images.test_versions import index_of

FILES = {
    "train/cat/1.png": picture(10, 20, 30),
    "train/cat/2.png": picture(20),
    "train/dog/1.gif": gif(["red", "lime"]),
    'test/dog/ä "2".png': picture(40),
}


@pytest.fixture(scope="module")
def listed(client) -> Iterator[list[dict[str, object]]]:
    query = {"frames": "all"}
    client.put("/datasets/some", content=zipped(FILES), params=query).raise_for_status()
    yield client.get("/datasets/some/images").json()["items"]
    client.delete("/datasets/some").raise_for_status()


def test_each_image_is_listed_with_its_class_and_its_file(listed):
    assert [(i["name"], i["frame"], i["class_name"], i["split"]) for i in listed] == [
        ('test/dog/ä "2".png', 0, "dog", "test"),
        ("train/cat/1.png", 0, "cat", "train"),
        ("train/cat/2.png", 0, "cat", "train"),
        ("train/dog/1.gif", 0, "dog", "train"),
        ("train/dog/1.gif", 1, "dog", "train"),
    ]
    assert (listed[1]["height"], listed[1]["width"]) == (30, 20)
    for image in listed:
        assert image["sha256"] == hashlib.sha256(FILES[image["name"]]).hexdigest()
    assert len({image["id"] for image in listed}) == 5


def test_the_listing_comes_in_pages_and_by_class_and_split(client, listed):
    def ids(**query: object) -> tuple[list[str], bool]:
        page = client.get("/datasets/some/images", params=query).raise_for_status().json()
        return [image["id"] for image in page["items"]], page["has_more"]

    every = [image["id"] for image in listed]
    assert ids(limit=2) == (every[:2], True)
    assert ids(limit=2, after=every[1]) == (every[2:4], True)
    assert ids(limit=2, after=every[3]) == (every[4:], False)
    assert ids(**{"class": "dog"}) == ([every[0], *every[3:]], False)
    assert ids(**{"class": "dog", "split": "train", "limit": 1}) == (every[3:4], True)
    assert ids(split="val") == ids(**{"class": "bird"}) == ([], False)
    assert client.get("/datasets/some/images?after=x").status_code == 404
    assert client.get("/datasets/some/images?split=all").status_code == 422
    assert client.get("/datasets/some/images?limit=1001").status_code == 422


def test_images_without_classes_say_so(client):
    client.put("/datasets/flat", content=zipped({"1.png": picture(), "2.png": picture(2)}))
    items = client.get("/datasets/flat/images").json()["items"]
    assert [image["class_name"] for image in items] == [None, None]
    client.delete("/datasets/flat").raise_for_status()


def test_the_first_thumbnails_come_with_the_list_where_they_are_wanted(client, listed):
    answer = client.get("/datasets/some/images?limit=4&embed=3").raise_for_status()
    items = answer.json()["items"]
    for item, image in zip(items[:3], listed[:3], strict=True):
        start, _, content = item["links"].pop("thumbnail").partition(",")
        assert start == "data:image/png;base64"
        assert b64decode(content) == client.get(image["links"]["thumbnail"]).content
        assert item["links"] == {"file": image["links"]["file"]}
    assert items[3] == listed[3]
    assert client.get("/datasets/some/images?embed=101").status_code == 422


def test_a_thumbnail_is_a_small_picture_and_is_kept_for_good(client, listed):
    sizes = {}
    for image in listed:
        answer = client.get(image["links"]["thumbnail"]).raise_for_status()
        assert answer.headers["content-type"] == "image/png"
        shown = Image.open(io.BytesIO(answer.content))
        sizes[image["name"], image["frame"]] = shown.size
    assert sizes["train/cat/1.png", 0] == (40, 60)  # pixels of 2 x 2
    frame = client.get(listed[4]["links"]["thumbnail"])
    assert np.asarray(Image.open(io.BytesIO(frame.content)))[5, 5].tolist() == [0, 255, 0]
    assert "immutable" in frame.headers["cache-control"]
    known = {"If-None-Match": frame.headers["etag"]}
    assert client.get(listed[4]["links"]["thumbnail"], headers=known).status_code == 304


def test_a_file_is_the_one_that_was_uploaded_and_is_not_run(client, listed):
    for image in listed:
        answer = client.get(image["links"]["file"]).raise_for_status()
        assert answer.content == FILES[image["name"]]
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["content-disposition"].startswith("attachment;")
        kind = "gif" if image["name"].endswith("gif") else "png"
        assert answer.headers["content-type"] == f"image/{kind}"
        known = {"If-None-Match": answer.headers["etag"]}
        assert client.get(image["links"]["file"], headers=known).status_code == 304
    name = client.get(listed[0]["links"]["file"]).headers["content-disposition"]
    assert name.endswith("filename*=UTF-8''%C3%A4%20%222%22.png")


@pytest.mark.parametrize("part", ["thumbnail", "file"])
def test_an_image_that_is_not_there_is_not_found(client, listed, part):
    prefix = str(listed[0]["id"]).partition("-")[0]
    for image in (f"{prefix}-5", f"{prefix}-99999", f"{prefix}-05", "0" * 12 + "-0", "x", "..%2f"):
        assert client.get(f"/datasets/some/images/{image}/{part}").status_code == 404, image
    assert client.get(f"/datasets/none/images/{prefix}-0/{part}").status_code == 404


def test_a_dataset_from_before_there_were_versions_is_listed_and_edited(
    client, settings, monkeypatch
):
    """As 0012 leaves it: without an index, and by folders whatever their names."""
    files = {f"{split}/{i}.png": picture(10 * i) for split in ("test", "train") for i in range(3)}
    answer = client.put("/datasets/old", content=zipped(files), params={"labels": "folders"})
    assert answer.json()["classes"] == {"test": 3, "train": 3}
    artifacts = ArtifactStore(settings.locations.artifacts_url)
    (index,) = [key for key in artifacts.keys("datasets/old") if key.endswith(".index")]
    content = artifacts.get_bytes(index)
    artifacts.delete(index)
    monkeypatch.setattr("app.datasets.parts.INDEXES", Indexes(10))
    database = Database(settings.locations.database_url)
    with database.session() as session:
        version = session.get(DatasetVersion, ("old", 1))
        before = {"num_images": None, "max_pixels": None, "labels": None, "files": None}
        version.parts_json = [{**version.parts_json[0], **before}]
        version.labels = None
    database.close()
    found = client.get("/datasets/old/images").json()["items"]
    made, wanted = (Index.from_bytes(data) for data in (artifacts.get_bytes(index), content))
    assert made.to_bytes() == replace(wanted, warnings=[]).to_bytes()  # those of folders are over
    assert [(i["name"], i["class_name"]) for i in found] == [(n, n[:-6]) for n in sorted(files)]
    client.get(found[0]["links"]["thumbnail"]).raise_for_status()
    body = {"remove": [found[0]["id"]], "rename": {"test": "t"}}
    edited = client.post("/datasets/old/versions", json=body).raise_for_status().json()
    assert edited["classes"] == {"t": 2, "train": 3}
    client.delete("/datasets/old").raise_for_status()


def test_few_indexes_stay_in_memory(settings):
    store = ArtifactStore(settings.locations.artifacts_url)
    indexes, index = Indexes(10), index_of([("cat", "train")] * 4)
    for name in "abc":
        indexes.add(store, name, index)
        assert indexes.get(store, "a") is index  # which is used, and so stays
    assert indexes.get(store, "b") is None
    indexes.add(store, "large", index_of([("cat", "train")] * 20))
    assert len(indexes.get(store, "large") or ()) == 20
    assert indexes.get(store, "a") is None


def test_an_upload_in_which_other_images_are_found_now_is_refused(client, settings):
    client.put("/datasets/other", content=zipped(FILES)).raise_for_status()
    database = Database(settings.locations.database_url)
    with database.session() as session:
        version = session.get(DatasetVersion, ("other", 1))
        version.classes = {"cat": 1, "dog": 2}
    database.close()
    answer = client.get("/datasets/other/images")
    assert answer.status_code == 409
    assert "upload it again" in answer.json()["detail"]
    client.delete("/datasets/other").raise_for_status()
