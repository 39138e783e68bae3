"""Jobs that fetch datasets: real processes, real servers."""

import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import obstore
import pytest
from obstore.store import from_url
from PIL import Image

from models.images.dataset import inspect_archive
from store.datasets import get_dataset
from store.errors import DatasetNotFound
from store.jobs import requests
from store.jobs.configs import ImportConfig
from store.jobs.events import events_after
from store.jobs.record import Job
from tests.file_server import Asked, a_source
from tests.models.images.test_dataset import zip_of
from tests.models.images.test_files import file_of
from tests.s3 import S3Server
from tests.worker.conftest import Place
from worker.imports.bucket import fetch_from_bucket
from worker.queue import submit

PETS = {
    f"{c}/{i}.png": file_of(Image.new("L", (12, 10), 40 * i + 10))
    for c in ("cat", "dog")
    for i in range(3)
}


@pytest.fixture(scope="module")
def place(open_place, s3_server: S3Server) -> Iterator[Place]:
    """With a worker that may fetch from this host."""
    with open_place() as place:
        place.start_worker("import", DIFFUSION_IMPORT_ALLOW_PRIVATE="1", **s3_server.environment)
        yield place


@pytest.fixture(scope="module")
def archive(tmp_path_factory) -> Path:
    return zip_of(tmp_path_factory.mktemp("pets") / "pets.zip", PETS)


def accept(place: Place, url: str, name: str = "pets", **given: object) -> Job:
    """What POST /datasets does."""
    config = {
        "labels": "auto",
        "frames": "refuse",
        "range": "full",
        "max_bytes": 10**8,
        "max_pixels": 10**6,
        **given,
    }
    config = ImportConfig(name=name, url=url, **config).to_dict()
    job = requests.create_job(place.database, "import", config=config)
    submit(place.queue, job.id, "import")
    return job


def finished(place: Place, job: Job) -> Job:
    return place.wait(job, lambda j: j.done)


def assert_nothing_is_left(place: Place, name: str = "pets") -> None:
    with pytest.raises(DatasetNotFound):
        get_dataset(place.database, name)
    assert place.artifacts.keys(f"datasets/{name}") == []


def wait_for_the_end_of_processes(place: Place, job: Job) -> None:
    place.wait(job, lambda j: not place.workers_on(job) and not place.job_folders())


class Slow:
    """An answer that stops halfway until `go_on` is set."""

    def __init__(self, content: bytes) -> None:
        self.content, self.go_on = content, threading.Event()

    def __call__(self, asked: Asked) -> None:
        half = len(self.content) // 2
        asked.say(self.content[:half], length=len(self.content))
        self.go_on.wait(60)
        asked.wfile.write(self.content[half:])


def test_an_archive_becomes_the_dataset_that_an_upload_would_make(place, archive):
    content = archive.read_bytes()
    with a_source(lambda asked: asked.say(content)) as source:
        job = finished(place, accept(place, source.url(), "fetched"))
    assert job.status == "succeeded", job.error_message
    expected = inspect_archive(archive)
    record = get_dataset(place.database, "fetched")
    assert (record.digest, record.classes) == (expected.digest, {"cat": 3, "dog": 3})
    assert place.artifacts.get_bytes(record.artifact_key) == content
    assert job.progress == {
        "stage": "done",
        "progress": 1.0,
        "num_bytes": len(content),
        "total_bytes": len(content),
        "num_skipped": 0,
        "num_images": 6,
    }
    events, _ = events_after(place.database, job.id, 0, 100)
    assert [event.type for event in events] == ["queued", "started", "completed"]
    assert events[-1].data == {"dataset": "fetched"}


def test_labels_and_readings_are_those_of_the_request(place, archive):
    content = archive.read_bytes()
    with a_source(lambda asked: asked.say(content)) as source:
        job = accept(place, source.url(), "plain", labels="none", range="bits")
        assert finished(place, job).status == "succeeded"
    record = get_dataset(place.database, "plain")
    assert (record.classes, record.reading["range"]) == ({}, "bits")


def test_a_prefix_of_a_bucket_becomes_the_dataset_of_its_zip(place, s3_url, archive, tmp_path):
    bucket = "/".join(s3_url.split("/")[:3])
    store = from_url(bucket)
    for name, content in {**PETS, "notes.txt": b"not an image"}.items():
        obstore.put(store, f"mine/pets/{name}", content)
    job = finished(place, accept(place, f"{bucket}/mine/pets/", "bucket"))
    assert job.status == "succeeded", job.error_message
    record = get_dataset(place.database, "bucket")
    assert record.classes == {"cat": 3, "dog": 3}
    assert [rejected["name"] for rejected in record.rejected] == ["notes.txt"]
    path = tmp_path / "again"
    fetch_from_bucket(f"{bucket}/mine/pets/", path, 10**8, lambda here, total: None)
    assert inspect_archive(path).digest == record.digest
    assert place.artifacts.get_bytes(record.artifact_key) == path.read_bytes()


@pytest.mark.parametrize(
    ("answer", "given", "code", "said"),
    [
        (lambda asked: asked.say(b"", 404), {}, "source_not_found", "answered 404"),
        (lambda asked: asked.say(b"x" * 101), {"max_bytes": 100}, "too_large", "at most 100"),
        (lambda asked: asked.say(b"<html>"), {}, "invalid", "neither a zip nor"),
        (
            lambda asked: asked.say(b"", 302, Location="http://[::1/"),
            {},
            "source_refused",
            "Invalid IPv6",
        ),
    ],
)
def test_a_failure_is_kept_in_the_record_with_its_reason(place, answer, given, code, said):
    with a_source(answer) as source:
        job = finished(place, accept(place, source.url("/pets.zip?key=open-sesame"), **given))
    assert (job.status, job.error_code) == ("failed", code)
    assert said in job.error_message
    assert "open-sesame" not in job.error_message
    assert_nothing_is_left(place)
    wait_for_the_end_of_processes(place, job)


def test_a_name_that_was_taken_meanwhile_fails_the_job(place, archive):
    with a_source(lambda asked: asked.say(archive.read_bytes())) as source:
        job = finished(place, accept(place, source.url(), "tones"))
        assert (job.status, job.error_code) == ("failed", "dataset_exists")
        again = [finished(place, accept(place, source.url(), "same")) for _ in range(2)]
    assert [job.status for job in again] == ["succeeded", "succeeded"]


def test_by_default_no_host_is_called_whose_address_is_not_public(open_place, archive):
    with open_place() as place, a_source(lambda asked: asked.say(archive.read_bytes())) as source:
        place.start_worker("import")
        job = finished(place, accept(place, source.url()))
        assert_nothing_is_left(place)
    assert (job.status, job.error_code) == ("failed", "address_refused")
    assert source.asked == []


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_killed_process_begins_again(place, archive, number):
    slow = Slow(archive.read_bytes())
    with a_source(slow) as source:
        job = accept(place, source.url(), f"killed-{number}")
        place.wait(job, lambda j: j.status == "running" and source.asked and place.workers_on(j))
        (process,) = place.workers_on(job)
        os.kill(process, number)
        slow.go_on.set()
        job = finished(place, job)
    assert job.status == "succeeded", job.error_message
    assert (job.fence, len(source.asked)) == (2, 2)
    assert get_dataset(place.database, f"killed-{number}").num_images == 6
    wait_for_the_end_of_processes(place, job)


def test_a_job_can_be_cancelled_and_leaves_nothing(place, archive):
    slow = Slow(archive.read_bytes())
    with a_source(slow) as source:
        job = accept(place, source.url())
        place.wait(job, lambda j: source.asked and j.progress)
        requests.request_cancel(place.database, job.id)
        threading.Timer(1.0, slow.go_on.set).start()  # what waits for bytes sees it then
        job = finished(place, job)
    assert job.status == "cancelled"
    assert_nothing_is_left(place)
    wait_for_the_end_of_processes(place, job)


def test_a_job_can_be_cancelled_while_it_inspects(place, tmp_path):
    large = file_of(Image.new("L", (1000, 1000), 10))
    path = zip_of(tmp_path / "many.zip", {f"{i}.png": large for i in range(2000)})
    with a_source(lambda asked: asked.say(path.read_bytes())) as source:
        job = accept(place, source.url(), "many")
        place.wait(job, lambda j: j.progress.get("num_images", 0) > 0)
        requests.request_cancel(place.database, job.id)
        job = finished(place, job)
    assert job.status == "cancelled"
    assert 0 < job.progress["num_images"] < 2000
    assert_nothing_is_left(place, "many")


def test_nothing_secret_of_an_address_is_logged(place, archive):
    with a_source(lambda asked: asked.say(b"", 503 if len(source.asked) < 2 else 404)) as source:
        job = finished(place, accept(place, source.url("/pets.zip?key=open-sesame")))
    log = place.artifacts.get_bytes(f"jobs/{job.id}/attempt-1/log.jsonl").decode()
    assert "answered 503" in log
    assert "open-sesame" not in log
    assert "open-sesame" not in (place.locations.data_dir / "worker.log").read_text()
