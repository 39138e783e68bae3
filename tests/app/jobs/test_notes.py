"""Trainings have tags and notes, by which they are found again."""

from collections.abc import Iterator

import httpx
import pytest

from store.database import Database
from store.jobs import claims
from store.jobs.progress import TrainProgress
from store.jobs.record import Job
from store.nodes import heartbeat, leave
from store.upkeep.trash import list_trash
from tests.app.jobs.test_route import a_job_of, records  # noqa: F401


@pytest.fixture
def job(client: httpx.Client, records: Database) -> Iterator[Job]:  # noqa: F811
    job = a_job_of("train", records)
    yield job
    client.post(f"/train-jobs/{job.id}/cancel")
    client.delete(f"/train-jobs/{job.id}")


def change(client: httpx.Client, job: Job, **values: object) -> httpx.Response:
    return client.patch(f"/train-jobs/{job.id}", json=values)


def test_what_is_left_out_stays(client, job):
    assert change(client, job, tags=[" wide ", "é", "wide"]).json()["tags"] == ["wide", "é"]
    answer = change(client, job, notes="twice\nthe channels")
    assert (answer.status_code, answer.json()["tags"]) == (200, ["wide", "é"])
    assert change(client, job).json()["notes"] == "twice\nthe channels"
    shown = client.get(f"/train-jobs/{job.id}").json()
    assert (shown["tags"], shown["notes"]) == (["wide", "é"], "twice\nthe channels")
    assert change(client, job, tags=[], notes="").json()["tags"] == []


def test_jobs_are_found_by_a_whole_tag(client, job):
    change(client, job, tags=["wide", 'a "b" é'])

    def found(tag: str) -> list[str]:
        answer = client.get("/train-jobs", params={"tag": tag}).raise_for_status()
        return [item["id"] for item in answer.json()["items"]]

    assert found("wide") == found('a "b" é') == [job.id]
    for tag in ("WIDE", "wid", "wide,", "%", '"', "\0", ""):
        assert found(tag) == []


@pytest.mark.parametrize(
    ("field", "value", "told"),
    [
        ("tags", ["x"] * 21, "20"),
        ("tags", ["x" * 41], "40"),
        ("tags", [""], "1"),
        ("tags", [" "], "spaces"),
        ("tags", ["a,b"], "commas"),
        ("tags", ["a\0"], "control"),
        ("tags", [True], "true or false"),
        ("notes", "x" * 2001, "2000"),
        ("notes", "a\0b", "control"),
        ("priority", 1, "priority"),
    ],
)
def test_a_refusal_names_the_field_and_its_bound(client, job, field, value, told):
    answer = change(client, job, **{field: value})
    assert answer.status_code == 422
    (error,) = answer.json()["errors"]
    assert error["pointer"].startswith(f"/{field}")
    assert told in error["detail"]
    assert client.get(f"/train-jobs/{job.id}").json()["tags"] == []


def test_a_change_is_a_new_version_for_those_who_poll(client, job):
    address = f"/train-jobs/{job.id}"
    known = {"If-None-Match": client.get(address).headers["ETag"]}
    assert client.get(address, headers=known).status_code == 304
    change(client, job, notes="new")
    assert client.get(address, headers=known).json()["notes"] == "new"


def test_a_job_that_runs_keeps_its_notes_and_its_worker_its_fence(client, job, records):  # noqa: F811
    fence = claims.claim(records, job.id, "one", 60)
    change(client, job, tags=["running"]).raise_for_status()
    claims.record_progress(records, job.id, fence, TrainProgress(step=7))
    shown = client.get(f"/train-jobs/{job.id}").json()
    assert (shown["tags"], shown["progress"]["step"]) == (["running"], 7)
    claims.finish(records, job.id, fence, "failed", "crashed", "")
    assert change(client, job, notes="it crashed").json()["notes"] == "it crashed"


def test_only_trainings_have_them(client, records):  # noqa: F811
    order = a_job_of("evaluate", records)
    assert client.patch(f"/evaluations/{order.id}", json={"notes": "x"}).status_code == 405
    client.post(f"/evaluations/{order.id}/cancel")
    client.delete(f"/evaluations/{order.id}")


def test_a_job_comes_back_from_the_trash_with_its_notes(client, records):  # noqa: F811
    job = a_job_of("train", records)
    change(client, job, tags=["kept"], notes="kept, too")
    client.post(f"/train-jobs/{job.id}/cancel")
    client.delete(f"/train-jobs/{job.id}").raise_for_status()
    entry = next(e for e in list_trash(records, limit=50)[0] if e.name == job.id)
    client.post(f"/trash/train-jobs/{entry.id}/restore").raise_for_status()
    shown = client.get(f"/train-jobs/{job.id}").json()
    assert (shown["tags"], shown["notes"]) == (["kept"], "kept, too")
    client.delete(f"/train-jobs/{job.id}").raise_for_status()


# The queue ----------------------------------------------------------------------------------------


def test_the_queue_shows_places_times_and_reasons(client, job, records):  # noqa: F811
    for item in client.get("/queue").json()["items"]:
        if item["id"] != job.id:  # of another test
            client.post(f"{item['links']['self']}/cancel").raise_for_status()
    (item,) = client.get("/queue").json()["items"]
    assert item["waiting"] == "no live worker takes train-jobs: such jobs wait for one"
    assert (item["position"], item["starts_in_seconds"]) == (1, None)
    heartbeat(records, "worker", kinds=["train"])
    (item,) = client.get("/queue").json()["items"]
    assert (item["id"], item["collection"], item["name"]) == (job.id, "train-jobs", "faces")
    assert (item["waiting"], item["position"], item["starts_in_seconds"]) == (None, 1, 0)
    assert client.get(item["links"]["self"]).json()["id"] == job.id
    fence = claims.claim(records, job.id, "one", 60)
    (item,) = client.get("/queue").json()["items"]
    assert (item["waits"], item["position"], item["starts_in_seconds"]) == (False, None, None)
    claims.finish(records, job.id, fence, "failed", "crashed", "")
    leave(records, "worker")
    assert client.get("/queue").json() == {"items": [], "other_running": 0, "other_waiting": 0}
