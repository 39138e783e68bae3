"""Data sets by name: the same content again is no news, other content is refused."""

import threading

import pytest

from store.database import Database
from store.datasets import (
    CONTENTS,
    DatasetRecord,
    DatasetVersion,
    Part,
    add_version,
    create_dataset,
    delete_dataset,
    delete_version,
    find_part,
    get_dataset,
    get_version,
    list_datasets,
    list_versions,
    new_version,
)
from store.errors import (
    DatasetConflict,
    DatasetNotFound,
    InvalidName,
    StaleVersion,
    VersionNotFound,
)
from store.jobs import claims, record, requests


def a_dataset(name: str = "photos", digest: str = "d1") -> DatasetRecord:
    return DatasetRecord(
        name=name,
        digest=digest,
        num_bytes=2**40,
        num_images=3,
        channels=3,
        classes={"cats": 2, "dogs": 1},
        sizes=[{"height": 8, "width": 9, "count": 3}],
        rejected=[{"name": "notes.txt", "reason": "not an image"}],
        num_rejected=1,
        artifact_key=f"datasets/{digest}",
        reading={"frames": "all", "range": "data", "levels": [7, 4000]},
        warnings=["dark"],
    )


def stored(digest: str) -> set[str]:
    """The keys of an archive and of what is kept beside it."""
    return {f"datasets/{digest}{suffix}" for suffix in ("", ".index", ".fingerprints")}


def a_job_on(database: Database, dataset: str) -> record.Job:
    return requests.create_job(database, "train", dataset=dataset, model_name="m", config={})


def test_a_dataset_is_kept_with_all_that_was_found_in_it(database):
    _, is_new = create_dataset(database, a_dataset())
    kept = get_dataset(database, "photos")
    assert is_new
    assert kept.num_bytes == 2**40
    assert kept.classes == {"cats": 2, "dogs": 1}
    assert kept.sizes == [{"height": 8, "width": 9, "count": 3}]
    assert kept.reading == {"frames": "all", "range": "data", "levels": [7, 4000]}
    assert kept.warnings == ["dark"]
    assert kept.rejected == [{"name": "notes.txt", "reason": "not an image"}]


def test_the_same_content_again_is_the_dataset_that_is_there(database):
    first, _ = create_dataset(database, a_dataset())
    again, is_new = create_dataset(database, a_dataset())
    assert not is_new
    assert again.created_at == first.created_at


def test_of_racing_uploads_exactly_one_is_new(database):
    start = threading.Barrier(8)
    news: list[bool] = []

    def race() -> None:
        start.wait()
        news.append(create_dataset(database, a_dataset())[1])

    threads = [threading.Thread(target=race) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(news) == [False] * 7 + [True]


def test_other_content_under_a_taken_name_is_refused(database):
    create_dataset(database, a_dataset(digest="d1"))
    with pytest.raises(DatasetConflict, match="'photos' with other content"):
        create_dataset(database, a_dataset(digest="d2"))
    assert get_dataset(database, "photos").digest == "d1"


@pytest.mark.parametrize(
    "name",
    ["", "a/b", "/a", "..", "a..b", ".a", "-a", "A", "a b", "a\n", "é", "a\0", "a" * 64, "a" * 300],
)
def test_a_name_that_is_no_name_is_refused(database, name):
    with pytest.raises(InvalidName, match=r"dataset is .*1..63 characters") as refusal:
        create_dataset(database, a_dataset(name))
    assert len(str(refusal.value)) < 400
    assert list_datasets(database, limit=10) == ([], False)


@pytest.mark.parametrize("name", ["a", "0", "a" * 63, "faces-2.1_final"])
def test_a_plain_name_is_accepted(database, name):
    create_dataset(database, a_dataset(name))
    assert get_dataset(database, name).name == name


def test_an_unknown_dataset_is_not_found(database):
    with pytest.raises(DatasetNotFound, match="'photos'"):
        get_dataset(database, "photos")
    with pytest.raises(DatasetNotFound, match="'photos'"):
        delete_dataset(database, "photos")


def test_datasets_come_in_pages_newest_first(database):
    names = ["c", "a", "e", "b", "d"]
    for name in names:
        create_dataset(database, a_dataset(name))
    seen, after, more = [], None, True
    while more:
        page, more = list_datasets(database, limit=2, after=after)
        seen += [record.name for record in page]
        after = seen[-1]
    assert seen == names[::-1]


def test_a_deleted_dataset_is_gone_and_its_name_free(database):
    create_dataset(database, a_dataset(digest="d1"))
    assert set(delete_dataset(database, "photos").artifacts) == stored("d1")
    _, is_new = create_dataset(database, a_dataset(digest="d2"))
    assert is_new


@pytest.mark.parametrize("status", ["queued", "running"])
def test_a_dataset_in_use_cannot_be_deleted(database, status):
    create_dataset(database, a_dataset())
    job = a_job_on(database, "photos")
    if status == "running":
        claims.claim(database, job.id, "one", 60)
    with pytest.raises(DatasetConflict, match=f"{job.id}.*needs dataset 'photos'"):
        delete_dataset(database, "photos")
    assert get_dataset(database, "photos").name == "photos"


def test_a_dataset_can_be_deleted_when_its_jobs_are_done(database):
    create_dataset(database, a_dataset())
    requests.request_cancel(database, a_job_on(database, "photos").id)
    delete_dataset(database, "photos")
    with pytest.raises(DatasetNotFound):
        get_dataset(database, "photos")


# Versions -----------------------------------------------------------------------------------------


def next_version(before: DatasetVersion, *added: str, **changes: object) -> DatasetVersion:
    """The version that follows, with these parts added."""
    parts = [*before.parts, *(Part(d, f"datasets/{d}", 7, 1, None, {}) for d in added)]
    contents = {name: getattr(before, name) for name in CONTENTS}
    values = {"number": before.number + 1, "change": "edited", **changes}
    values |= {"digest": f"v{values['number']}", "manifest_key": f"m{values['number']}"} | changes
    return new_version(before.dataset, parts=parts, **{**contents, **values})


@pytest.fixture
def first(database) -> DatasetVersion:
    create_dataset(database, a_dataset(), max_pixels=99)
    return get_version(database, "photos")


def test_an_upload_is_the_first_version(database, first):
    assert (first.number, first.digest, first.change, first.manifest_key) == (
        *(1, "d1", "uploaded"),
        None,
    )
    reading = {"frames": "all", "range": "data", "levels": [7, 4000]}
    assert first.parts == [Part("d1", "datasets/d1", 2**40, 3, None, reading, 99)]
    assert get_dataset(database, "photos").version == 1
    assert get_version(database, "photos", 1).digest == "d1"
    assert get_version(database, "photos", "d1").number == 1


def test_the_record_describes_the_newest_version(database, first):
    add_version(database, next_version(first, "d2", num_images=4, classes={"cats": 4}))
    record = get_dataset(database, "photos")
    assert (record.version, record.digest, record.num_images) == (2, "v2", 4)
    assert record.classes == {"cats": 4}
    assert get_version(database, "photos").number == 2
    assert get_version(database, "photos", "d1").classes == {"cats": 2, "dogs": 1}
    assert find_part(database, "photos", "d2").key == "datasets/d2"
    assert find_part(database, "photos", "d3") is None
    for unknown in (3, "d2"):
        with pytest.raises(VersionNotFound, match=f"'photos' has no version {unknown}"):
            get_version(database, "photos", unknown)


def test_the_same_upload_is_known_after_edits(database, first):
    add_version(database, next_version(first, "d2"))
    again, is_new = create_dataset(database, a_dataset())
    assert (again.version, is_new) == (2, False)
    with pytest.raises(DatasetConflict):
        create_dataset(database, a_dataset(digest="d2"))


def test_of_racing_edits_exactly_one_is_made(database, first):
    start = threading.Barrier(6)
    made: list[bool] = []

    def race() -> None:
        version = next_version(first)
        start.wait()
        try:
            add_version(database, version)
            made.append(True)
        except StaleVersion:
            made.append(False)

    threads = [threading.Thread(target=race) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(made) == [False] * 5 + [True]
    assert [v.number for v in list_versions(database, "photos", limit=9)[0]] == [2, 1]


def test_versions_come_in_pages_newest_first(database, first):
    version = first
    for _ in range(4):
        version = add_version(database, next_version(version))
    seen: list[int] = []
    more = True
    while more:
        page, more = list_versions(database, "photos", limit=2, after=seen[-1] if seen else None)
        seen += [version.number for version in page]
    assert seen == [5, 4, 3, 2, 1]


def test_of_two_versions_with_one_digest_the_newest_is_found(database, first):
    second = add_version(database, next_version(first, digest="same"))
    add_version(database, next_version(second, digest="same"))
    assert get_version(database, "photos", "same").number == 3


def test_a_version_leaves_with_the_artifacts_that_only_it_needs(database, first):
    second = add_version(database, next_version(first, "d2"))
    third = next_version(second)
    third.parts_json = third.parts_json[:1]
    add_version(database, third)
    assert delete_version(database, "photos", 2) == {"m2"} | stored("d2")
    assert delete_version(database, "photos", 1) == set()
    with pytest.raises(VersionNotFound):
        delete_version(database, "photos", 1)
    with pytest.raises(DatasetConflict, match="version 3 is the newest"):
        delete_version(database, "photos", 3)
    assert set(delete_dataset(database, "photos").artifacts) == {"m3"} | stored("d1")
    create_dataset(database, a_dataset(digest="d9"))
    assert get_version(database, "photos").number == 1


def test_a_version_that_a_job_names_stays(database, first):
    job = a_job_on(database, "photos")
    assert (job.dataset_version, job.dataset_digest) == (1, "d1")
    add_version(database, next_version(first))
    requests.request_cancel(database, job.id)
    with pytest.raises(DatasetConflict, match=f"job '{job.id}' names version 1"):
        delete_version(database, "photos", 1)
    requests.delete_job(database, job.id, "train")
    delete_version(database, "photos", 1)


def test_a_job_names_the_newest_version_or_the_one_that_it_is_to_read(database, first):
    add_version(database, next_version(first))
    assert a_job_on(database, "photos").dataset_digest == "v2"
    older = requests.create_job(database, "train", dataset="photos", version=1, config={})
    assert (older.dataset_version, older.dataset_digest) == (1, "d1")
    with pytest.raises(VersionNotFound):
        requests.create_job(database, "train", dataset="photos", version=3, config={})
