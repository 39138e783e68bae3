"""Downloads: one ETag means the same bytes, and what was interrupted is resumed."""

import hashlib
import os
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from app.main import create_app
from app.settings import Settings
from store.artifacts import PIECE, ArtifactStore
from store.database import Database
from store.jobs import claims
from store.jobs.kinds import JOB_KINDS
from store.jobs.progress import Progress
from store.jobs.sample_images import archive_key
from store.locations import Locations
from tests.app.jobs.test_route import a_job_of


@dataclass(frozen=True)
class Offer:
    """A download, and where its server keeps artifacts."""

    client: httpx.Client
    path: str
    artifacts: ArtifactStore

    def get(self, **headers: str) -> httpx.Response:
        names = {name.replace("_", "-"): value for name, value in headers.items()}
        return self.client.get(self.path, headers=names)


def archive_of_a_job(database: Database, artifacts: ArtifactStore, size: int) -> str:
    """The address of the archive of a sample job that has succeeded."""
    job = a_job_of("sample", database)
    fence = claims.claim(database, job.id, "one", 60)
    assert fence is not None
    artifacts.put_bytes(archive_key(job.id), os.urandom(size))
    claims.succeed(database, job.id, fence, Progress())
    return f"{JOB_KINDS['sample'].address(job.id)}/archive"


@pytest.fixture(params=["model", "onnx", "sample job", "sample job in S3"])
def offer(
    request: pytest.FixtureRequest, client: httpx.Client, settings: Settings, model_archive
) -> Offer:
    if request.param == "sample job in S3":
        return request.getfixturevalue("offer_from_s3")
    artifacts = ArtifactStore(settings.locations.artifacts_url)
    if request.param == "sample job":
        database = Database(settings.locations.database_url)
        path = archive_of_a_job(database, artifacts, size=300_000)
        database.close()
    else:
        client.put("/models/resumed", content=model_archive()).raise_for_status()
        path = "/models/resumed/download" + ("?format=onnx" if request.param == "onnx" else "")
    return Offer(client, path, artifacts)


@pytest.fixture
def offer_from_s3(serve, tmp_path: Path, s3_url: str) -> Iterator[Offer]:
    """More than one piece, in the bucket of a server of its own."""
    settings = Settings(locations=Locations(tmp_path, artifacts_url=s3_url), example_model=False)
    with serve(create_app(settings)) as address, httpx.Client(base_url=address) as client:
        database, artifacts = Database(settings.locations.database_url), ArtifactStore(s3_url)
        path = archive_of_a_job(database, artifacts, size=2 * PIECE + 7)
        database.close()
        yield Offer(client, path, artifacts)


def test_a_range_is_answered_with_its_bytes(offer):
    whole = offer.get()
    content, size = whole.content, len(whole.content)
    assert whole.headers["accept-ranges"] == "bytes"
    assert int(whole.headers["content-length"]) == size
    etag = whole.headers["etag"]
    for asked, start, end in (
        ("bytes=0-0", 0, 1),
        (f"bytes={size // 2}-", size // 2, size),
        (f"bytes=100-{size + 100}", 100, size),
        ("bytes=-5", size - 5, size),
        (f"bytes=-{size + 5}", 0, size),
        ("BYTES=1-3", 1, 4),
    ):
        part = offer.get(Range=asked, If_Range=etag)
        assert part.status_code == 206, asked
        assert part.content == content[start:end], asked
        assert part.headers["content-range"] == f"bytes {start}-{end - 1}/{size}"
        assert int(part.headers["content-length"]) == end - start
        assert part.headers["etag"] == etag


def test_what_is_no_range_of_this_version_is_answered_with_the_whole(offer):
    whole = offer.get()
    etag = whole.headers["etag"]
    for headers in (
        {"Range": "bytes=9-", "If_Range": '"another"'},
        {"Range": "bytes=9-", "If_Range": f"W/{etag}"},  # weak tags do not tell bytes
        {"Range": "bytes=9-", "If_Range": "Sat, 01 Jan 2000 00:00:00 GMT"},
        {"Range": "bytes=0-1,5-6"},
        {"Range": "pixels=0-1"},
        {"Range": "bytes=5-2"},
        {"Range": "bytes=-"},
        {"Range": "bytes=a-b"},
    ):
        answer = offer.get(**headers)
        assert (answer.status_code, answer.content) == (200, whole.content), headers
        assert "content-range" not in answer.headers


def test_a_range_beyond_the_end_is_a_problem_that_tells_the_length(offer):
    size = len(offer.get().content)
    for asked in (f"bytes={size}-", "bytes=-0", f"bytes={size + 9}-{size + 10}"):
        answer = offer.get(Range=asked)
        assert answer.status_code == 416
        assert answer.json()["type"] == "/problems/range-not-satisfiable"
        assert answer.headers["content-range"] == f"bytes */{size}"


def test_the_caller_s_copy_is_not_sent_again(offer):
    etag = offer.get().headers["etag"]
    for known in (etag, f'"other", {etag}', f"W/{etag}", "*"):
        answer = offer.get(If_None_Match=known, Range="bytes=5-")
        assert (answer.status_code, answer.content) == (304, b"")
        assert answer.headers["etag"] == etag
    assert offer.get(If_None_Match='"other"').status_code == 200


def test_curl_resumes_what_was_interrupted(offer, tmp_path):
    content = offer.get().content
    file = tmp_path / "part"
    for received in (len(content) // 3, len(content)):
        file.write_bytes(content[:received])
        address = str(offer.client.base_url.join(offer.path))
        subprocess.run(["curl", "-sS", "-C", "-", "-o", file, address], check=True)
        assert file.read_bytes() == content


def test_every_download_of_one_etag_has_the_same_bytes(offer):
    found = {(answer.headers["etag"], digest(answer)) for answer in (offer.get(), offer.get())}
    assert len(found) == 1


def digest(answer: httpx.Response) -> str:
    return hashlib.sha256(answer.content).hexdigest()


@pytest.fixture
def uploaded(client, model_archive) -> Iterator[str]:
    client.put("/models/tagged", content=model_archive()).raise_for_status()
    yield "/models/tagged"
    client.delete("/models/tagged")


@pytest.mark.parametrize("query", ["", "?format=onnx"])
def test_a_model_is_not_read_to_say_that_it_is_known(client, settings, uploaded, query):
    address = f"{uploaded}/download{query}"
    etag = client.get(address).headers["etag"]
    folder = Path(settings.locations.artifacts_url) / "models" / "tagged"
    aside = folder.rename(folder.with_name("aside"))
    try:
        assert client.get(address, headers={"If-None-Match": etag}).status_code == 304
        answer = client.head(address)
        assert (answer.status_code, answer.headers["etag"]) == (200, etag)
    finally:
        aside.rename(folder)


def test_what_changes_the_bytes_changes_the_etag(client, uploaded, model_archive):
    tags = [client.get(f"{uploaded}/download").headers["etag"]]
    client.patch(uploaded, json={"license": "MIT"}).raise_for_status()
    tags.append(client.get(f"{uploaded}/download").headers["etag"])
    client.delete(uploaded).raise_for_status()
    client.put(uploaded, content=model_archive()).raise_for_status()  # perhaps another README
    tags.append(client.get(f"{uploaded}/download").headers["etag"])
    assert len(set(tags)) == 3
