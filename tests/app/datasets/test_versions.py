"""Versions of a dataset: edits by HTTP, what they refuse, and what becomes of the files."""

import io
import tarfile
import threading
import zipfile
from collections.abc import Iterator, Mapping

import httpx
import numpy as np
import pytest
from PIL import Image

from app.settings import Settings
from store.artifacts import ArtifactStore
from store.database import Database, now
from store.jobs import requests
from store.models import ModelRecord, create_model, delete_model
from store.upkeep.orphans import orphaned_artifacts
from tests.models.images.test_dataset import picture
from tests.models.images.test_reading import CAMERA, png16

PETS = {f"{c}/{i}.png": picture(10 * i + len(c)) for c in ("cat", "doggy") for i in range(4)}


def zipped(files: Mapping[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(zipfile.ZipInfo(name), data)  # without a date
    return buffer.getvalue()


class Pets:
    """A dataset "edited" of four cats and four dogs, by HTTP."""

    def __init__(self, client: httpx.Client) -> None:
        self.client = client
        self.upload(zipped(PETS)).raise_for_status()

    def upload(self, content: bytes, **query: object) -> httpx.Response:
        return self.client.put("/datasets/edited", content=content, params=query)

    def edit(self, **body: object) -> httpx.Response:
        return self.client.post("/datasets/edited/versions", json=body)

    def add(self, content: bytes, **query: object) -> httpx.Response:
        return self.client.post("/datasets/edited/images", content=content, params=query)

    def images(self, **query: object) -> list[dict[str, object]]:
        answer = self.client.get("/datasets/edited/images", params={"limit": 1000, **query})
        answer.raise_for_status()
        return answer.json()["items"]

    def ids(self, **query: object) -> list[str]:
        return [str(image["id"]) for image in self.images(**query)]

    def names(self, **query: object) -> list[str]:
        return [str(image["name"]) for image in self.images(**query)]

    def described(self, **query: object) -> dict[str, object]:
        answer = self.client.get("/datasets/edited", params=query)
        answer.raise_for_status()
        return answer.json()


@pytest.fixture
def pets(client) -> Iterator[Pets]:
    yield Pets(client)
    delete_edited(client)


@pytest.fixture(scope="module")
def database(base_url: str, settings: Settings) -> Iterator[Database]:
    database = Database(settings.locations.database_url)
    yield database
    database.close()


@pytest.fixture(scope="module")
def artifacts(settings: Settings) -> ArtifactStore:
    return ArtifactStore(settings.locations.artifacts_url)


# Edits --------------------------------------------------------------------------------------------


def test_an_upload_is_the_first_version_and_stays_the_same_upload(pets):
    first = pets.described()
    assert first["version"] == 1
    assert pets.described(version=1) == first | {"links": pets.described(version=1)["links"]}
    assert pets.described(version=first["digest"])["version"] == 1
    pets.edit(remove=pets.ids()[:1]).raise_for_status()
    again = pets.upload(zipped(PETS))
    assert again.status_code == 200
    assert again.json()["version"] == 2
    assert pets.upload(zipped(PETS), labels="none").status_code == 409


def test_an_edit_makes_a_version_and_leaves_the_earlier_one(pets):
    ids = pets.ids()
    before = pets.described()
    answer = pets.edit(
        parent=1,
        remove=ids[:1],
        move={"doggy": ids[1:2], "bird": ids[2:3]},
        rename={"doggy": "dog"},
    )
    assert answer.status_code == 201
    made = answer.json()
    assert (made["version"], made["num_images"]) == (2, 7)
    assert made["classes"] == {"bird": 1, "cat": 1, "dog": 5}
    assert answer.headers["location"] == "/datasets/edited?version=2"
    described = pets.client.get(answer.headers["location"]).json()
    assert described == made
    assert pets.described() | {"links": 0, "created_at": 0} == made | {"links": 0, "created_at": 0}
    assert pets.ids() == ids[1:]
    assert [i["class_name"] for i in pets.images()] == ["dog", "bird", "cat"] + ["dog"] * 4
    assert pets.ids(version=1) == pets.ids(version=before["digest"]) == ids
    versions = pets.client.get("/datasets/edited/versions").json()["items"]
    assert [v["number"] for v in versions] == [2, 1]
    assert [v["change"] for v in versions] == [
        "removed 1 image; moved 1 image to 'doggy'; moved 1 image to 'bird'; "
        "renamed 'doggy' to 'dog'",
        "uploaded",
    ]
    page = pets.client.get("/datasets/edited/versions", params={"limit": 1}).json()
    assert (len(page["items"]), page["has_more"]) == (1, True)
    page = pets.client.get("/datasets/edited/versions", params={"after": 2}).json()
    assert ([v["number"] for v in page["items"]], page["has_more"]) == ([1], False)


def test_an_edit_without_effect_makes_no_version(pets):
    answer = pets.edit(move={"cat": pets.ids(**{"class": "cat"})})
    assert (answer.status_code, answer.json()["version"]) == (200, 1)


def test_a_stale_edit_is_a_conflict(pets):
    ids = pets.ids()
    pets.edit(parent=1, remove=ids[:1]).raise_for_status()
    late = pets.edit(parent=1, remove=ids[1:2])
    assert late.status_code == 409
    assert "is of version 1 of dataset 'edited'; the newest is 2" in late.json()["detail"]
    assert pets.add(picture(99), parent=1).status_code == 409
    assert pets.described()["version"] == 2


def test_of_edits_at_once_none_is_lost(pets):
    ids = pets.ids()
    work = [
        *(lambda i=i: pets.edit(remove=[ids[i]]) for i in (0, 1, 4)),
        *(lambda v=v: pets.add(picture(v), **{"class": "new"}) for v in (101, 102, 103)),
    ]
    answers: list[httpx.Response] = []
    threads = [threading.Thread(target=lambda w=w: answers.append(w())) for w in work]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [answer.status_code for answer in answers] == [201] * 6
    assert sorted(answer.json()["version"] for answer in answers) == list(range(2, 8))
    assert pets.described()["classes"] == {"cat": 2, "doggy": 3, "new": 3}


def test_of_stale_edits_at_once_one_is_made(pets):
    ids = pets.ids()
    statuses: list[int] = []
    threads = [
        threading.Thread(
            target=lambda i=i: statuses.append(pets.edit(parent=1, remove=[i]).status_code)
        )
        for i in ids[:4]
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(statuses) == [201, 409, 409, 409]
    assert pets.described()["num_images"] == 7


@pytest.mark.parametrize(
    ("body", "pointer", "words"),
    [
        ({"remove": ["0" * 12 + "-1"]}, "/remove", "the version has no image of this id"),
        ({"remove": "all"}, "/remove", "list"),
        ({"remove": [True]}, "/remove", "true or false"),
        ({"move": {"": []}}, "/move/", "at least 1 character"),
        ({"move": {"x" * 201: []}}, "/move/", "at most 200 characters"),
        ({"rename": {"bird": "cat"}}, "/rename", "there are cat, doggy"),
        ({"rename": {"cat": "a\0"}}, "/rename", "the name of a class has 1..200 characters"),
        ({"rename": {"cat": " a"}}, "/rename", "without spaces"),
        ({"parent": 0}, "/parent", "greater than or equal to 1"),
        ({"removed": []}, "/removed", "not permitted"),
    ],
)
def test_an_edit_that_cannot_be_is_refused_at_its_field(pets, body, pointer, words):
    answer = pets.edit(**body)
    assert answer.status_code == 422, answer.text
    (error,) = answer.json()["errors"]
    assert error["pointer"].startswith(pointer)
    assert words in error["detail"]
    assert pets.described()["version"] == 1


def test_a_version_has_at_least_two_images(pets):
    answer = pets.edit(remove=pets.ids()[1:])
    assert answer.status_code == 422
    assert "1 images to learn from would be left; at least 2" in answer.json()["detail"]


def test_the_body_of_an_edit_is_not_as_large_as_an_archive(pets, settings):
    body = b'{"remove": ["' + b"x" * settings.max_upload_bytes + b'"]}'
    headers = {"Content-Type": "application/json"}
    answer = pets.client.post("/datasets/edited/versions", content=body, headers=headers)
    assert answer.status_code == 413
    noise = np.random.default_rng(0).integers(0, 256, settings.max_upload_bytes, np.uint8)
    large = zipped({"cat/9.png": picture(9), "noise.bin": noise.tobytes()})
    assert pets.add(large).status_code == 201


def test_unknown_datasets_and_versions_are_not_found(pets):
    client = pets.client
    for answer in (
        client.post("/datasets/none/versions", json={}),
        client.post("/datasets/none/images", content=picture()),
        client.get("/datasets/none/versions"),
        client.get("/datasets/edited?version=2"),
        client.get(f"/datasets/edited?version={'0' * 64}"),
        client.get("/datasets/edited/images?version=2"),
        client.get("/datasets/edited/preview?version=2"),
        client.delete("/datasets/edited/versions/2"),
        client.delete(f"/datasets/edited/versions/{10**12}"),
        client.get("/datasets/edited/versions?after=1&limit=1").json()
        and client.get("/datasets/x"),
    ):
        assert answer.status_code == 404, answer.text
    assert client.get("/datasets/edited?version=first").status_code == 422


# Additions ----------------------------------------------------------------------------------------


def test_an_archive_and_a_single_image_are_added(pets):
    answer = pets.add(zipped({"cat/9.png": picture(91), "notes.txt": b"hello"}))
    assert answer.status_code == 201
    made = answer.json()
    assert (made["version"], made["classes"]) == (2, {"cat": 5, "doggy": 4})
    assert made["rejected"][0]["name"] == "notes.txt"
    one = pets.add(picture(92), filename="new.png", **{"class": "bird"}).json()
    assert (one["version"], one["classes"]) == (3, {"bird": 1, "cat": 5, "doggy": 4})
    assert one["warnings"] == [
        "3 of 3 classes have fewer than 10 images to learn from: bird (1), cat (5), doggy (4)"
    ]
    assert pets.names()[-2:] == ["cat/9.png", "new.png"]
    changes = [v["change"] for v in pets.client.get("/datasets/edited/versions").json()["items"]]
    assert changes == ["added 1 image", "added 1 image", "uploaded"]


def test_the_same_addition_again_changes_nothing_and_brings_back_what_was_removed(pets):
    more = zipped({"cat/9.png": picture(91), "cat/10.png": picture(92)})
    pets.add(more).raise_for_status()
    again = pets.add(more)
    assert (again.status_code, again.json()["version"]) == (200, 2)
    new = pets.ids()[-2:]
    pets.edit(remove=new[:1], move={"doggy": new[1:]}).raise_for_status()
    back = pets.add(more).json()
    assert back["version"] == 4
    assert pets.ids()[-2:] == new
    assert back["classes"] == {"cat": 5, "doggy": 5}


def test_classes_of_an_addition_come_from_where_it_says(pets):
    table = zipped(
        {"a.png": picture(91), "b.png": picture(92), "l.csv": b"f,c\na.png,x\nb.png,y\n"}
    )
    assert pets.add(table, labels="l.csv:c").json()["classes"]["x"] == 1
    deep = zipped({"new/photos/doggy/1.png": picture(93), "new/photos/doggy/2.png": picture(94)})
    assert pets.add(deep).json()["classes"]["doggy"] == 6
    assert pets.add(zipped({"1.png": picture(95)})).json()["classes"]["unsorted"] == 1


@pytest.mark.parametrize(
    ("content", "query", "place", "words"),
    [
        (b"hello", {}, None, "holds 0 usable images, at least 1 are needed"),
        (zipped({"a.txt": b"hello"}), {}, None, "holds 0 usable images, at least 1"),
        (picture(), {"filename": "../a.png"}, "filename", "no '/'"),
        (picture(), {"filename": ".a"}, "filename", "no '.' at its beginning"),
        (picture(), {"class": ""}, "class", "at least 1 character"),
        (picture(), {"class": " a"}, "class", "without spaces"),
        (picture(), {"labels": "breeds"}, "labels", "it must be auto"),
        (zipped(PETS), {"labels": "breeds.csv"}, "labels", "no such file"),
    ],
)
def test_what_cannot_be_added_is_refused(pets, content, query, place, words):
    answer = pets.add(content, **query)
    assert answer.status_code == 422, answer.text
    (error,) = answer.json()["errors"]
    assert error.get("parameter") == place
    assert words in error["detail"]
    assert pets.described()["version"] == 1


def test_additions_are_read_as_the_dataset_is(client):
    dark = {f"{i}.png": png16(CAMERA // (i + 1)) for i in range(2)}
    client.put(
        "/datasets/dark-added", content=zipped(dark), params={"range": "bits"}
    ).raise_for_status()
    more = zipped({"2.png": png16(CAMERA // 8)})
    added = client.post("/datasets/dark-added/images", content=more).json()
    assert added["reading"] == {"frames": "refuse", "range": "bits", "levels": [0, 4095]}
    client.delete("/datasets/dark-added").raise_for_status()


# Deletion -----------------------------------------------------------------------------------------


def delete_edited(client: httpx.Client) -> None:
    """Delete it, and remove it from the trash."""
    client.delete("/datasets/edited").raise_for_status()
    entry = client.get("/trash", params={"limit": 1}).json()["items"][0]
    client.delete(entry["links"]["remove"]).raise_for_status()


def stored(artifacts: ArtifactStore) -> list[str]:
    return artifacts.keys("datasets/edited")


def test_a_version_leaves_with_what_only_it_needed(pets, artifacts, database):
    first = stored(artifacts)
    assert [key.partition(".")[2] for key in first] == ["", "fingerprints", "index"]
    pets.add(picture(91)).raise_for_status()
    added = set(stored(artifacts)) - set(first)
    assert len(added) == 4  # the archive, its index, its fingerprints, the manifest
    pets.edit(remove=pets.ids()[-1:]).raise_for_status()
    assert orphaned_artifacts(database, artifacts, now()) == []
    assert pets.client.delete("/datasets/edited/versions/3").status_code == 409
    assert pets.client.delete("/datasets/edited/versions/2").status_code == 204
    assert added.isdisjoint(stored(artifacts))
    assert len(stored(artifacts)) == 4  # the upload and the manifest of version 3
    assert pets.client.delete("/datasets/edited/versions/2").status_code == 404
    assert pets.client.delete("/datasets/edited/versions/1").status_code == 204
    assert set(first) <= set(stored(artifacts))  # of version 3, too
    assert pets.names()[0] == "cat/0.png"
    assert pets.upload(zipped(PETS)).status_code == 200


def test_refused_and_useless_additions_leave_no_files(pets, artifacts):
    before = stored(artifacts)
    assert pets.add(b"hello").status_code == 422
    assert pets.add(zipped(PETS)).status_code == 200  # all of it is there
    assert stored(artifacts) == before


def test_a_dataset_leaves_with_all_its_versions(client, artifacts):
    pets = Pets(client)
    pets.add(picture(91)).raise_for_status()
    pets.edit(remove=pets.ids()[:1]).raise_for_status()
    assert len(stored(artifacts)) == 8
    delete_edited(client)
    assert stored(artifacts) == []
    Pets(client)
    assert pets.described()["version"] == 1
    delete_edited(client)


def test_a_version_stays_while_a_job_or_a_model_names_it(pets, database):
    request = {"dataset": "edited", "steps": 1}
    job = pets.client.post("/train-jobs", json=request).json()
    assert (job["dataset_version"], job["dataset_digest"]) == (1, pets.described()["digest"])
    pets.edit(remove=pets.ids()[:1]).raise_for_status()
    refused = pets.client.delete("/datasets/edited/versions/1")
    assert refused.status_code == 409
    assert f"job '{job['id']}' names version 1" in refused.json()["detail"]
    pets.client.post(f"/train-jobs/{job['id']}/cancel").raise_for_status()
    assert pets.client.delete("/datasets/edited/versions/1").status_code == 409
    digest = job["dataset_digest"]
    model = ModelRecord(
        name="edited-1",
        digest="0",
        details={},
        artifact_prefix="models/edited-1",
        num_bytes=1,
        dataset="edited",
        dataset_version=1,
        dataset_digest=digest,
    )
    create_model(database, model)
    pets.client.delete(f"/train-jobs/{job['id']}").raise_for_status()
    assert "model 'edited-1'" in pets.client.delete("/datasets/edited/versions/1").json()["detail"]
    delete_model(database, "edited-1")
    assert pets.client.delete("/datasets/edited/versions/1").status_code == 204


# Jobs ---------------------------------------------------------------------------------------------


def test_a_job_names_the_version_that_it_reads(pets, database):
    pets.edit(remove=pets.ids()[:1], rename={"doggy": "dog"}).raise_for_status()
    plan = pets.client.post("/train-jobs/plan", json={"dataset": "edited", "steps": 1}).json()
    assert (plan["dataset_version"], plan["config"]["class_names"]) == (2, ["cat", "dog"])
    older = {"dataset": "edited", "steps": 1, "dataset_version": 1}
    plan = pets.client.post("/train-jobs/plan", json=older).json()
    assert (plan["dataset_version"], plan["config"]["class_names"]) == (1, ["cat", "doggy"])
    job = pets.client.post("/train-jobs", json=older).json()
    assert job["dataset_version"] == 1
    assert requests.get_job(database, job["id"]).dataset_digest == job["dataset_digest"]
    missing = pets.client.post("/train-jobs", json={**older, "dataset_version": 3})
    assert missing.status_code == 404
    assert "dataset 'edited' has no version 3" in missing.json()["detail"]
    pets.client.post(f"/train-jobs/{job['id']}/cancel").raise_for_status()
    pets.client.delete(f"/train-jobs/{job['id']}").raise_for_status()


def test_the_preview_is_that_of_the_version(pets):
    def values(**query: object) -> list[int]:
        answer = pets.client.get("/datasets/edited/preview", params={"image_size": 8, **query})
        sheet = np.asarray(Image.open(io.BytesIO(answer.raise_for_status().content)))
        return sheet[32, 32::66, 0].tolist()

    assert values() == [3, 13, 23, 33] + [255] * 4
    pets.edit(remove=pets.ids()[1:3]).raise_for_status()
    assert values() == [3, 33] + [255] * 6
    assert values(version=1) == [3, 13, 23, 33] + [255] * 4


def tarred(files: Mapping[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def test_a_compressed_tar_is_edited_and_shown_like_a_zip(client):
    client.put("/datasets/tar", content=tarred(PETS)).raise_for_status()
    images = client.get("/datasets/tar/images").json()["items"]
    for image in images:
        content = client.get(image["links"]["file"]).raise_for_status().content
        assert content == PETS[image["name"]]
    client.post("/datasets/tar/versions", json={"remove": [images[0]["id"]]}).raise_for_status()
    client.get("/datasets/tar/preview").raise_for_status()
    client.delete("/datasets/tar").raise_for_status()


def test_unpacked_archives_take_no_more_room_than_they_may(client, settings, monkeypatch):
    monkeypatch.setattr("app.datasets.parts.UNPACKED_BYTES", 1000)
    cache = settings.locations.data_dir / "cache"
    images = {}
    for value in (1, 2, 3):
        files = {f"{i}.png": picture(10 * i + value, 40, 40) for i in range(8)}
        client.put(f"/datasets/tar-{value}", content=tarred(files)).raise_for_status()
        (image, *_) = client.get(f"/datasets/tar-{value}/images").json()["items"]
        images[image["links"]["file"]] = files[image["name"]]
    for _ in range(2):
        for address, content in images.items():
            assert client.get(address).raise_for_status().content == content
            digest = client.get(address.partition("/images")[0]).json()["digest"]
            assert [f.parent.name for f in cache.glob("*/files")] == [digest]
    for value in (1, 2, 3):
        client.delete(f"/datasets/tar-{value}").raise_for_status()
