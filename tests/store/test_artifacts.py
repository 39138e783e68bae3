"""Artefacts are there whole or not at all, and never outside their place."""

import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from store.artifacts import ArtifactStore
from store.errors import ArtifactNotFound

ROOT = Path(__file__).parents[2]
CLIMBING = ["", ".", "..", "../a", "a/../b", "a/../../b", "/a", "a\\b", "a\0b"]


def files_in(folder: Path) -> list[str]:
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())


@pytest.mark.parametrize("data", [b"", b"x", os.urandom(3_000_000)], ids=["none", "one", "many"])
def test_bytes_come_back_as_they_were(artifacts, data):
    artifacts.put_bytes("a/b/c.bin", data)
    assert artifacts.get_bytes("a/b/c.bin") == data
    assert b"".join(artifacts.stream("a/b/c.bin")) == data
    assert artifacts.size("a/b/c.bin") == len(data)


def test_a_file_comes_back_as_it_was(artifacts, tmp_path):
    source, target = tmp_path / "source", tmp_path / "new" / "target"
    source.write_bytes(os.urandom(3_000_000))
    artifacts.put_file("files/one", source)
    artifacts.download("files/one", target)
    assert target.read_bytes() == source.read_bytes()
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
def test_a_key_that_climbs_is_refused_everywhere(tmp_path, key):
    (tmp_path / "a").write_bytes(b"secret")
    artifacts = ArtifactStore(str(tmp_path / "artifacts"))
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
        with pytest.raises(ValueError, match="is no key of an artefact"):
            use(key)
    assert files_in(tmp_path) == ["a"]


def test_a_write_that_fails_leaves_what_was_there(artifacts, tmp_path):
    artifacts.put_bytes("a/b", b"before")
    with pytest.raises(TypeError):
        artifacts.put_bytes("a/b", object())
    with pytest.raises(FileNotFoundError):
        artifacts.put_file("a/c", tmp_path / "missing")
    assert files_in(tmp_path / "artifacts") == ["a/b"]
    assert artifacts.get_bytes("a/b") == b"before"


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


def test_a_process_killed_while_it_writes_leaves_no_artefact(tmp_path):
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
