"""Artifacts: images, checkpoints, model folders, by key; on local disk or S3-compatible storage."""

import contextlib
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

import obstore
from obstore.exceptions import (
    BaseError as StorageError,  # for example a bucket that is out of reach
)
from obstore.store import LocalStore, ObjectStore, from_url

from host.folders import fsync
from store.errors import ArtifactNotFound

if TYPE_CHECKING:
    from obstore import GetOptions
    from obstore.store import RetryConfig

__all__ = ["ArtifactStore", "StorageError", "retry_for"]

PARTS = ".parts"
ABANDONED_SECONDS = 86_400
PIECE = 8 << 20  # bytes per request when an artifact is streamed from another host


class ArtifactStore:
    def __init__(self, url: str, patience_seconds: float = 30.0) -> None:
        """Open the store at `url`: a local directory, file://... or s3://...

        A call to S3 that fails for want of a connection is repeated for `patience_seconds`, at
        most 300 (by then its signature has expired).
        """
        self._root: Path | None = None
        if "://" not in url or url.startswith("file://"):
            self._root = Path(url.removeprefix("file://")).resolve()
            self._root.mkdir(parents=True, exist_ok=True)
            self._store: ObjectStore = LocalStore(self._root)
            _remove_abandoned(self._root / PARTS)
        else:
            self._store = from_url(url, retry_config=retry_for(patience_seconds))

    def put_bytes(self, key: str, data: bytes) -> None:
        """Write an artifact whole or not at all; it is on disk when this returns."""
        _check(key)
        if self._root is None:
            obstore.put(self._store, key, data)
            return
        with self._staged(key) as part:
            part.write(data)

    def put_file(self, key: str, path: Path) -> None:
        _check(key)
        if self._root is None:
            obstore.put(self._store, key, path)
            return
        with self._staged(key) as part, path.open("rb") as source:
            while chunk := source.read(1 << 20):
                part.write(chunk)

    def get_bytes(self, key: str) -> bytes:
        """Read an artifact. Raises ArtifactNotFound."""
        _check(key)
        try:
            return bytes(obstore.get(self._store, key).bytes())
        except FileNotFoundError:
            raise ArtifactNotFound(key) from None

    def download(self, key: str, path: Path) -> None:
        """Copy an artifact to a file that appears whole or not at all. Raises ArtifactNotFound."""
        _check(key)
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(f"{path.name}.part-{os.getpid()}")
        try:
            with part.open("wb") as file:
                for chunk in self.stream(key):
                    file.write(chunk)
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)

    def stream(self, key: str, start: int = 0, end: int | None = None) -> Iterator[bytes]:
        """Yield an artifact, or its bytes from `start` to `end`, however slowly they are read, and
        never parts of two versions.

        Raises ArtifactNotFound.
        """
        _check(key)
        options: GetOptions = {}
        if end is not None:
            options["range"] = (start, end)
        elif start:
            options["range"] = {"offset": start}
        try:
            result = obstore.get(self._store, key, options=options)
        except FileNotFoundError:
            raise ArtifactNotFound(key) from None
        start, end = result.range
        if self._root is None and end - start > PIECE:
            yield from self._pieces(key, start, end, result.meta["e_tag"])
            return
        for chunk in result.stream():
            yield bytes(chunk)

    def read(self, key: str, start: int, end: int) -> bytes:
        """Return the bytes from `start` to `end`, fewer at the artifact's end. Raises
        ArtifactNotFound."""
        return b"".join(self.stream(key, start, end))

    def _pieces(self, key: str, start: int, end: int, e_tag: str | None) -> Iterator[bytes]:
        """Make a request for each piece: a single one would time out on slow readers."""
        for begin in range(start, end, PIECE):
            piece = (begin, min(begin + PIECE, end))
            yield bytes(
                obstore.get(self._store, key, options={"range": piece, "if_match": e_tag}).bytes()
            )

    def upload_folder(self, folder: Path, prefix: str) -> None:
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                self.put_file(f"{prefix}/{path.relative_to(folder).as_posix()}", path)

    def download_folder(self, prefix: str, folder: Path) -> None:
        """Copy all artifacts under the prefix. Raises ArtifactNotFound where there are none."""
        keys = self.keys(prefix)
        if not keys:
            raise ArtifactNotFound(prefix)
        for key in keys:
            self.download(key, folder / PurePosixPath(key).relative_to(prefix))

    def keys(self, prefix: str, before: datetime | None = None) -> list[str]:
        """Return the keys below `prefix`, sorted; with `before`, only of artifacts that were last
        written before that time."""
        _check(prefix)
        metas = (meta for batch in obstore.list(self._store, prefix) for meta in batch)
        return sorted(m["path"] for m in metas if before is None or m["last_modified"] < before)

    def size(self, key: str) -> int:
        _check(key)
        try:
            return int(obstore.head(self._store, key)["size"])
        except FileNotFoundError:
            raise ArtifactNotFound(key) from None

    def delete(self, key: str) -> None:
        _check(key)
        try:
            obstore.delete(self._store, key)
        except FileNotFoundError:
            return

    def delete_prefix(self, prefix: str) -> None:
        keys = self.keys(prefix)
        if self._root is None:
            obstore.delete(self._store, keys)  # a thousand per request
            return
        for key in keys:
            self.delete(key)
        shutil.rmtree(self._root / prefix, ignore_errors=True)  # empty folders are left

    def state(self) -> str:
        """Return a line on where the artifacts lie. Raises OSError or StorageError where that place
        is out of reach."""
        if self._root is not None:
            return f"a folder, {shutil.disk_usage(self._root).free / 2**30:.1f} GiB free"
        with contextlib.suppress(FileNotFoundError):  # also an answer of the bucket
            obstore.head(self._store, "nothing")
        return "the bucket answers"

    def _staged(self, key: str) -> "_StagedFile":
        assert self._root is not None
        return _StagedFile(self._root / key, self._root / PARTS)


class _StagedFile:
    """A file that takes its place only when it is complete and on disk. Until then it lies in a
    folder of its own: a process killed in the middle leaves nothing under any prefix."""

    def __init__(self, target: Path, folder: Path) -> None:
        self._target = target
        target.parent.mkdir(parents=True, exist_ok=True)
        folder.mkdir(exist_ok=True)
        descriptor, name = tempfile.mkstemp(dir=folder)
        self._part, self._file = Path(name), os.fdopen(descriptor, "wb")

    def write(self, data: bytes) -> None:
        self._file.write(data)

    def __enter__(self) -> "_StagedFile":
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        try:
            with self._file:
                if error is None:
                    self._file.flush()
                    os.fsync(self._file.fileno())
            if error is None:
                self._part.replace(self._target)
                fsync(self._target.parent)
        finally:
            self._part.unlink(missing_ok=True)


def retry_for(seconds: float) -> "RetryConfig":
    """Return how calls to a bucket are repeated that fail for want of a connection."""
    return {
        "max_retries": 10_000,  # only the time counts
        "retry_timeout": timedelta(seconds=seconds),
        "backoff": {"max_backoff": timedelta(seconds=5)},
    }


def _remove_abandoned(parts: Path) -> None:
    """Delete temporary files of killed writers: those that were not written to for a day."""
    for part in parts.glob("*"):
        with contextlib.suppress(FileNotFoundError):  # its writer has just finished
            if part.stat().st_mtime < time.time() - ABANDONED_SECONDS:
                part.unlink()


def _check(key: str) -> None:
    parts = PurePosixPath(key).parts
    if not parts or key.startswith("/") or ".." in parts or "\\" in key or "\0" in key:
        raise ValueError(f"{key!r} is not the key of an artifact")
