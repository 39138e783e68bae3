"""Requests for datasets to fetch: what is accepted, what is refused, and what is shown of them."""

import pytest

from store.database import Database
from store.jobs import requests
from tests.app.datasets.test_route import PETS, zipped

ANSWERED = {"id", "status", "url", "dataset", "progress", "links", "waiting", "error"}


def problem(client, **body: object) -> tuple[int, dict]:
    answer = client.post("/datasets", json={"name": "cats", **body})
    return answer.status_code, answer.json()


def test_a_request_becomes_a_job_whose_record_has_all_of_it(client, settings):
    url = "https://example.org/cats.zip?signature=open-sesame#top"
    options = {"labels": "cats.csv:breed", "frames": "first", "range": "data"}
    answer = client.post("/datasets", json={"name": "cats", "url": url, **options})
    assert answer.status_code == 202, answer.text
    job, address = answer.json(), answer.headers["Location"]
    assert set(job) >= ANSWERED
    assert address == job["links"]["self"] == f"/dataset-imports/{job['id']}"
    assert (job["dataset"], job["url"]) == ("cats", "https://example.org/cats.zip")
    assert job["progress"] == {
        "stage": "queued",
        "progress": 0.0,
        "num_bytes": 0,
        "total_bytes": None,
        "num_skipped": 0,
        "num_images": 0,
    }
    assert "open-sesame" not in client.get(address).text + client.get("/dataset-imports").text
    database = Database(settings.locations.database_url)
    assert requests.get_job(database, job["id"]).config == {
        "name": "cats",
        "url": url,
        **options,
        "max_bytes": settings.max_dataset_bytes,
        "max_pixels": settings.max_pixels,
    }
    database.close()
    client.post(job["links"]["cancel"]).raise_for_status()
    client.delete(address).raise_for_status()


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("ftp://example.org/cats.zip", "pattern"),
        ("cats.zip", "pattern"),
        ("https://me:open-sesame@example.org/cats.zip", "url has credentials in it"),
        ("https://", "url must name a host"),
        ("https://example.org:0/", "url has port 0"),
        ("https://example.org/my cats.zip", "url has ' ' in it; such characters must be percent"),
        ("https://example.org/" + "a" * 2048, "2048 characters"),
        ("s3://Photos/cats/", "url must name a bucket of 3..63 characters"),
        ("s3://", "url must name a bucket"),
        ("s3://photos/a//b/", "an empty part"),
        ("s3://photos/../secret", "'..'"),
        ("s3://photos/" + "ä" * 600, "a key of 1200 bytes; it may have 1024"),
        ("s3://other/cats/", "bucket 'other', which DIFFUSION_IMPORT_BUCKETS does not list"),
    ],
)
def test_an_address_that_cannot_be_fetched_is_refused_at_once(client, url, said):
    status, answer = problem(client, url=url)
    assert (status, answer["errors"][0]["pointer"]) == (422, "/url")
    assert said in answer["detail"]
    assert "open-sesame" not in answer["detail"]


@pytest.mark.parametrize("url", ["s3://photos/cats/", "s3://photos/cats.zip", "s3://photos"])
def test_a_bucket_that_is_listed_is_accepted(client, url):
    answer = client.post("/datasets", json={"name": "cats", "url": url})
    assert (answer.status_code, answer.json()["url"]) == (202, url)
    client.post(answer.json()["links"]["cancel"]).raise_for_status()


@pytest.mark.parametrize(
    ("given", "pointer"),
    [
        ({"labels": "cats.txt"}, "/labels"),
        ({"frames": "last"}, "/frames"),
        ({"range": "none"}, "/range"),
        ({"name": "no such/name"}, "/name"),
        ({"colour": "red"}, "/colour"),
    ],
)
def test_a_field_that_is_wrong_is_named(client, given, pointer):
    status, answer = problem(client, url="https://example.org/cats.zip", **given)
    assert (status, answer["errors"][0]["pointer"]) == (422, pointer)


def test_a_name_that_is_taken_is_refused_before_the_download(client):
    client.put("/datasets/taken", content=zipped(PETS)).raise_for_status()
    status, answer = problem(client, name="taken", url="https://example.org/cats.zip")
    assert (status, "there is a dataset 'taken' already" in answer["detail"]) == (409, True)


def test_the_body_has_the_bound_of_other_bodies_not_that_of_archives(client, settings):
    content = b" " * (settings.max_upload_bytes + 1)
    answer = client.post("/datasets", content=content, headers={"Content-Type": "application/json"})
    assert answer.status_code == 413
