"""Data sets by name: the same content again is no news, other content is refused."""

import threading

import pytest

from store.database import Database
from store.datasets import (
    DatasetRecord,
    create_dataset,
    delete_dataset,
    get_dataset,
    list_datasets,
)
from store.errors import DatasetConflict, DatasetNotFound, InvalidName
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
    assert delete_dataset(database, "photos").artifact_key == "datasets/d1"
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
