"""Artefacts are there whole or not at all, and never outside their place."""

import contextlib
import os
import resource
import shutil
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from obstore.exceptions import GenericError, PreconditionError

from store.artifacts import PIECE, ArtifactStore, StorageError
from store.errors import ArtifactNotFound
from tests.s3 import KEYS_PER_PAGE, S3Server

ROOT = Path(__file__).parents[2]
CLIMBING = ["", ".", "..", "../a", "a/../b", "a/../../b", "/a", "a\\b", "a\0b"]


@pytest.fixture(params=["folder", "s3"])
def artifacts(request: pytest.FixtureRequest, tmp_path: Path) -> ArtifactStore:
    if request.param == "s3":
        return ArtifactStore(request.getfixturevalue("s3_url"))
    return ArtifactStore(str(tmp_path / "artifacts"))


def files_in(folder: Path) -> list[str]:
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())


@pytest.mark.parametrize(
    "data",
    [b"", b"x", os.urandom(PIECE), os.urandom(2 * PIECE + 1)],
    ids=["none", "one", "a piece", "pieces"],
)
def test_bytes_come_back_as_they_were(artifacts, data):
    artifacts.put_bytes("a/b/c.bin", data)
    assert artifacts.get_bytes("a/b/c.bin") == data
    assert b"".join(artifacts.stream("a/b/c.bin")) == data
    assert artifacts.size("a/b/c.bin") == len(data)


@pytest.mark.parametrize(
    ("start", "end"),
    [(0, 1), (5, None), (3, 3 + PIECE), (3, 4 + PIECE), (1, 2 * PIECE), (PIECE + 1, None)],
)
def test_a_range_of_bytes_is_read_alone(artifacts, start, end):
    data = os.urandom(2 * PIECE + 1)
    artifacts.put_bytes("a", data)
    assert b"".join(artifacts.stream("a", start, end)) == data[start:end]


@pytest.mark.parametrize(("start", "end"), [(0, 3), (2, 10), (9, 99), (0, 99)])
def test_a_range_may_reach_beyond_the_end(artifacts, start, end):
    artifacts.put_bytes("a/b", b"0123456789")
    assert artifacts.read("a/b", start, end) == b"0123456789"[start:end]
    with pytest.raises(ArtifactNotFound):
        artifacts.read("a/c", start, end)


def test_a_file_comes_back_as_it_was(artifacts, tmp_path):
    source, target = tmp_path / "source", tmp_path / "new" / "target"
    for data in (b"", os.urandom(2 * PIECE + 1)):
        source.write_bytes(data)
        artifacts.put_file("files/one", source)
        artifacts.download("files/one", target)
        assert target.read_bytes() == data
        assert files_in(target.parent) == ["target"]


def test_a_folder_comes_back_as_it_was(artifacts, tmp_path):
    source, target = tmp_path / "source", tmp_path / "target"
    contents = {"a": b"1", "deep/b": b"2", "deep/er/c": b""}
    for name, data in contents.items():
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_bytes(data)
    artifacts.upload_folder(source, "models/m")
    artifacts.download_folder("models/m", target)
    assert {name: (target / name).read_bytes() for name in files_in(target)} == contents


def test_a_folder_of_more_files_than_a_listing_holds_comes_back_and_goes_away(artifacts, tmp_path):
    source, target = tmp_path / "source", tmp_path / "target"
    source.mkdir()
    names = [f"{i:02}" for i in range(2 * KEYS_PER_PAGE + 1)]
    for name in names:
        (source / name).write_text(name)
    artifacts.upload_folder(source, "jobs/1/images")
    artifacts.download_folder("jobs/1/images", target)
    assert files_in(target) == names
    artifacts.delete_prefix("jobs/1")
    assert artifacts.keys("jobs") == []


def test_a_deleted_prefix_leaves_no_folder(tmp_path):
    artifacts = ArtifactStore(str(tmp_path))
    artifacts.put_bytes("models/a/deep/1", b"")
    artifacts.delete_prefix("models/a")
    assert not (tmp_path / "models/a").exists()


def test_what_a_killed_writer_left_is_swept_after_a_day(tmp_path):
    for name, age in (("old", 90_000), ("new", 60)):
        part = tmp_path / ".parts" / name
        part.parent.mkdir(exist_ok=True)
        part.write_bytes(b"half")
        os.utime(part, times=(time.time() - age,) * 2)
    ArtifactStore(str(tmp_path))
    assert files_in(tmp_path) == [".parts/new"]


def test_writing_again_replaces(artifacts):
    artifacts.put_bytes("a", b"long before")
    artifacts.put_bytes("a", b"after")
    assert artifacts.get_bytes("a") == b"after"


def test_who_reads_while_it_is_replaced_gets_one_version_or_an_error(artifacts):
    artifacts.put_bytes("a", b"1" * 3 * PIECE)
    chunks = artifacts.stream("a")
    read = [next(chunks)]
    artifacts.put_bytes("a", b"2" * 3 * PIECE)
    with contextlib.suppress(PreconditionError):
        read += chunks
    assert not any(chunk.strip(b"1") for chunk in read)


def test_a_prefix_is_a_folder_and_no_beginning_of_a_name(artifacts):
    for key in ("models/a/2", "models/a/1", "models/ab/1", "models/b"):
        artifacts.put_bytes(key, b"")
    assert artifacts.keys("models/a") == ["models/a/1", "models/a/2"]
    artifacts.delete_prefix("models/a")
    assert artifacts.keys("models") == ["models/ab/1", "models/b"]


def test_what_is_deleted_is_gone_and_may_be_deleted_again(artifacts):
    artifacts.put_bytes("a", b"1")
    artifacts.delete("a")
    artifacts.delete("a")
    with pytest.raises(ArtifactNotFound, match="'a'"):
        artifacts.get_bytes("a")


def test_what_is_missing_is_not_found(artifacts, tmp_path):
    for read in (
        artifacts.get_bytes,
        artifacts.size,
        lambda key: list(artifacts.stream(key)),
        lambda key: artifacts.download(key, tmp_path / "target"),
        lambda key: artifacts.download_folder(key, tmp_path / "target"),
    ):
        with pytest.raises(ArtifactNotFound, match="'no/where'"):
            read("no/where")
    assert files_in(tmp_path) == []
    assert artifacts.keys("no/where") == []


@pytest.mark.parametrize("key", CLIMBING)
def test_a_key_that_climbs_is_refused_everywhere(artifacts, tmp_path, key):
    (tmp_path / "a").write_bytes(b"secret")
    for use in (
        artifacts.get_bytes,
        artifacts.size,
        artifacts.keys,
        artifacts.delete,
        lambda key: artifacts.put_bytes(key, b"x"),
        lambda key: artifacts.put_file(key, tmp_path / "a"),
        lambda key: artifacts.download(key, tmp_path / "target"),
        lambda key: list(artifacts.stream(key)),
    ):
        with pytest.raises(ValueError, match="is not the key of an artifact"):
            use(key)
    assert files_in(tmp_path) == ["a"]


def test_a_write_that_fails_leaves_what_was_there(artifacts, tmp_path):
    artifacts.put_bytes("a/b", b"before")
    is_folder = (tmp_path / "artifacts").exists()
    with pytest.raises(TypeError if is_folder else ValueError):
        artifacts.put_bytes("a/b", object())
    with pytest.raises(FileNotFoundError):
        artifacts.put_file("a/c", tmp_path / "missing")
    assert artifacts.keys("a") == ["a/b"]
    assert files_in(tmp_path) == (["artifacts/a/b"] if is_folder else [])
    assert artifacts.get_bytes("a/b") == b"before"


def test_a_store_that_is_away_for_a_moment_is_waited_for_and_no_longer(s3_server, monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]  # free again in a moment
    for name, value in s3_server.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{port}")
    with pytest.raises(GenericError, match="error sending request"):
        ArtifactStore("s3://late", patience_seconds=0.3).put_bytes("a", b"1")
    with ThreadPoolExecutor(1) as writer:
        patient = ArtifactStore("s3://late", patience_seconds=60.0)
        writing = writer.submit(patient.put_bytes, "a", b"1")
        time.sleep(1.0)
        server = S3Server(port, "late")
        writing.result()
    assert patient.get_bytes("a") == b"1"
    server.stop()


def test_a_store_that_can_be_reached_says_what_it_is(tmp_path, s3_url):
    assert "GiB free" in ArtifactStore(str(tmp_path)).state()
    assert ArtifactStore(s3_url).state() == "the bucket answers"


def test_a_store_that_is_out_of_reach_says_so(monkeypatch, tmp_path):
    folder = tmp_path / "gone"
    store = ArtifactStore(str(folder))
    shutil.rmtree(folder)
    with pytest.raises(FileNotFoundError):
        store.state()
    with socket.create_server(("127.0.0.1", 0)) as probe:
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{probe.getsockname()[1]}")
    monkeypatch.setenv("AWS_ALLOW_HTTP", "true")
    monkeypatch.setenv("AWS_SKIP_SIGNATURE", "true")
    with pytest.raises(StorageError):
        ArtifactStore("s3://nowhere/folder", patience_seconds=0.1).state()


@pytest.mark.parametrize("method", ["put_bytes", "put_file", "download"])
def test_a_full_disk_leaves_nothing_half_written(tmp_path, method):
    source = tmp_path / "source"
    source.write_bytes(b"x" * 3_000_000)
    artifacts = ArtifactStore(str(tmp_path / "artifacts"))
    artifacts.put_bytes("big", source.read_bytes())
    script = f"""
import sys
from pathlib import Path
from store.artifacts import ArtifactStore

artifacts, source = ArtifactStore(sys.argv[1]), Path(sys.argv[2])
try:
    {{
        "put_bytes": lambda: artifacts.put_bytes("new", source.read_bytes()),
        "put_file": lambda: artifacts.put_file("new", source),
        "download": lambda: artifacts.download("big", source.with_name("target")),
    }}[{method!r}]()
except OSError:
    sys.exit(7)
"""
    run = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path / "artifacts"), str(source)],
        cwd=ROOT,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (10**6, 10**6)),
    )
    assert run.returncode == 7
    assert files_in(tmp_path) == ["artifacts/big", "source"]


def test_a_process_killed_while_it_writes_leaves_no_artifact(tmp_path):
    pipe = tmp_path / "pipe"  # a source that never ends keeps the writer in the middle
    os.mkfifo(pipe)
    artifacts = ArtifactStore(str(tmp_path / "artifacts"))
    script = """
import sys
from pathlib import Path
from store.artifacts import ArtifactStore

ArtifactStore(sys.argv[1]).put_file("models/m/weights", Path(sys.argv[2]))
"""
    writer = subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path / "artifacts"), str(pipe)], cwd=ROOT
    )
    with pipe.open("wb") as source:
        source.write(b"x" * (1 << 20))
        source.flush()
        writer.kill()
        assert writer.wait() == -signal.SIGKILL
    assert artifacts.keys("models/m") == []
    with pytest.raises(ArtifactNotFound):
        artifacts.download_folder("models/m", tmp_path / "target")
