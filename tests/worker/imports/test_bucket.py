"""Datasets that lie in a bucket, read from a real S3 server."""

import zipfile
from pathlib import Path

import obstore
import pytest
from obstore.store import from_url

from models.images.readers import ArchiveLimits
from worker.imports.bucket import PIECE, fetch_from_bucket
from worker.job_process import JobFailed

ENOUGH = 2**30


@pytest.fixture
def bucket(s3_url: str) -> str:
    """The URL of an empty one, which ends with "/"."""
    return "/".join(s3_url.split("/")[:3]) + "/"


def put(bucket: str, files: dict[str, bytes]) -> None:
    store = from_url(bucket)
    for key, content in files.items():
        obstore.put(store, key, content)


def fetched(url: str, folder: Path, max_bytes: int = ENOUGH) -> tuple[Path, int]:
    path = folder / "archive"
    return path, fetch_from_bucket(url, path, max_bytes, lambda here, total: None)


def failure(url: str, folder: Path, max_bytes: int = ENOUGH) -> tuple[str, str]:
    with pytest.raises(JobFailed) as failed:
        fetched(url, folder, max_bytes)
    return failed.value.code, str(failed.value)


def contents(path: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(path) as archive:
        return {info.filename: archive.read(info) for info in archive.infolist()}


def test_a_prefix_becomes_one_zip_of_all_that_lies_below_it(bucket, tmp_path):
    files = {f"{c}/{i:02}.png": f"{c}{i}".encode() for c in ("dog", "cat") for i in range(25)}
    files |= {"labels.csv": b"file,breed", "a b/ü#%41?.png": b"odd", "deep/er/x.png": b"x"}
    put(bucket, {f"pets/{name}": content for name, content in files.items()})
    put(bucket, {"pets2/1.png": b"another", "pet": b"another"})
    path, num_skipped = fetched(f"{bucket}pets/", tmp_path)
    assert list(contents(path)) == sorted(files)
    assert contents(path) == files
    assert num_skipped == 0


def test_a_whole_bucket_is_a_prefix_too(bucket, tmp_path):
    put(bucket, {"cat/1.png": b"1", "2.png": b"2"})
    for url in (bucket, bucket.removesuffix("/")):
        assert contents(fetched(url, tmp_path)[0]) == {"2.png": b"2", "cat/1.png": b"1"}


def test_the_same_objects_give_the_same_bytes(bucket, tmp_path):
    first, second = tmp_path / "first", tmp_path / "second"
    for folder, order in ((first, 1), (second, -1)):
        folder.mkdir()
        put(bucket, {f"pets/{i}.png": b"%d" % i * 1000 for i in range(40)[::order]})
        fetched(f"{bucket}pets/", folder)
    assert (first / "archive").read_bytes() == (second / "archive").read_bytes()


def test_progress_counts_the_bytes_of_the_objects(bucket, tmp_path):
    put(bucket, {f"pets/{i}.png": b"x" * i for i in range(1, 5)})
    told: list[tuple[int, int | None]] = []
    received = lambda *now: told.append(now)  # noqa: E731
    fetch_from_bucket(f"{bucket}pets/", tmp_path / "archive", ENOUGH, received)
    assert told == [(1, 10), (3, 10), (6, 10), (10, 10)]


def test_a_key_is_an_archive_which_comes_in_pieces(bucket, tmp_path):
    content = bytes(range(256)) * (PIECE // 256) + b"the rest"
    put(bucket, {"pets.zip": content})
    told: list[tuple[int, int | None]] = []
    received = lambda *now: told.append(now)  # noqa: E731
    fetch_from_bucket(f"{bucket}pets.zip", tmp_path / "archive", ENOUGH, received)
    assert (tmp_path / "archive").read_bytes() == content
    assert told == [(PIECE, len(content)), (len(content), len(content))]


def test_what_is_too_large_together_is_refused_before_it_is_fetched(bucket, tmp_path):
    put(bucket, {f"pets/{i}.png": b"x" * 100 for i in range(10)} | {"pets.zip": b"x" * 1000})
    for key in ("pets/", "pets.zip"):
        code, message = failure(bucket + key, tmp_path, max_bytes=999)
        assert (code, "has 1000 bytes; at most 999" in message) == ("too_large", True)
        assert not (tmp_path / "archive").exists()


def test_objects_that_no_archive_may_hold_are_left_out_and_counted(bucket, tmp_path):
    too_large = b"x" * (ArchiveLimits().max_file_bytes + 1)
    put(bucket, {"pets/1.png": b"1", "pets/film.mp4": too_large})
    path, num_skipped = fetched(f"{bucket}pets/", tmp_path)
    assert (contents(path), num_skipped) == ({"1.png": b"1"}, 1)


def test_what_is_not_there_is_named(bucket, tmp_path):
    put(bucket, {"pets/1.png": b"1"})
    assert failure(f"{bucket}cats/", tmp_path)[0] == "source_not_found"
    code, message = failure(f"{bucket}pets", tmp_path)
    assert (code, "a prefix must end with '/'" in message) == ("source_not_found", True)
    assert failure("s3://no-such-bucket/pets/", tmp_path) == (
        "source_not_found",
        "there is no such bucket",
    )


def test_a_bucket_that_does_not_answer_fails_in_words(bucket, tmp_path, monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setattr("worker.imports.bucket.PATIENCE_SECONDS", 0.1)
    code, message = failure(f"{bucket}pets/", tmp_path)
    assert (code, message) == ("source_unavailable", "the bucket cannot be reached")
