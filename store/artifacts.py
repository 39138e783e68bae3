"""Artifacts: images, checkpoints, model folders, by key; on local disk or S3-compatible storage.

What writes an artifact returns its sha256, for a record; what reads a whole one compares it with
that, where it is given, while the bytes go by.
"""

import contextlib
import hashlib
import os
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

import obstore
from obstore.exceptions import (
    BaseError as StorageError,  # for example a bucket that is out of reach
)
from obstore.store import LocalStore, ObjectStore, from_url

from host.folders import fsync
from store.errors import ArtifactDamaged, ArtifactNotFound

if TYPE_CHECKING:
    from obstore import GetOptions
    from obstore.store import RetryConfig

__all__ = ["ArtifactStore", "StorageError", "retry_for"]

PARTS = ".parts"
ABANDONED_SECONDS = 86_400
PIECE = 8 << 20  # bytes per request when an artifact is streamed from another host


@dataclass(frozen=True)
class Stored:
    """An artifact as a listing shows it; its `e_tag` changes when it is written again."""

    key: str
    num_bytes: int
    e_tag: str | None


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

    def put_bytes(self, key: str, data: bytes) -> str:
        """Write an artifact whole or not at all; it is on disk when this returns its sha256."""
        _check(key)
        if self._root is None:
            obstore.put(self._store, key, data)
        else:
            with self._staged(key) as part:
                part.write(data)
        return hashlib.sha256(data).hexdigest()

    def put_file(self, key: str, path: Path) -> str:
        """Write an artifact as `put_bytes` does."""
        _check(key)
        if self._root is None:
            obstore.put(self._store, key, path)
            with path.open("rb") as source:
                return hashlib.file_digest(source, "sha256").hexdigest()
        sha256 = hashlib.sha256()
        with self._staged(key) as part, path.open("rb") as source:
            while chunk := source.read(1 << 20):
                part.write(chunk)
                sha256.update(chunk)
        return sha256.hexdigest()

    def get_bytes(self, key: str, sha256: str | None = None) -> bytes:
        """Read an artifact. Raises ArtifactNotFound, and ArtifactDamaged if its sha256 is not the
        one given."""
        _check(key)
        try:
            content = bytes(obstore.get(self._store, key).bytes())
        except FileNotFoundError:
            raise ArtifactNotFound(key) from None
        if sha256 is not None and (found := hashlib.sha256(content).hexdigest()) != sha256:
            raise ArtifactDamaged.differs(key, found, sha256)
        return content

    def download(self, key: str, path: Path, sha256: str | None = None) -> str:
        """Copy an artifact to a file that appears whole or not at all, and return its sha256.
        Raises as `get_bytes`."""
        _check(key)
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(f"{path.name}.part-{os.getpid()}")
        hashed = hashlib.sha256()
        try:
            with part.open("wb") as file:
                for chunk in self.stream(key):
                    file.write(chunk)
                    hashed.update(chunk)
            if sha256 not in (None, hashed.hexdigest()):
                raise ArtifactDamaged.differs(key, hashed.hexdigest(), sha256 or "")
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)
        return hashed.hexdigest()

    def sha256(self, key: str) -> str:
        """Read an artifact and return its sha256. Raises ArtifactNotFound."""
        hashed = hashlib.sha256()
        for chunk in self.stream(key):
            hashed.update(chunk)
        return hashed.hexdigest()

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

    def upload_folder(self, folder: Path, prefix: str) -> dict[str, str]:
        """Write all files of a folder; return the sha256 of each by its path in the folder."""
        names = [p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()]
        return {name: self.put_file(f"{prefix}/{name}", folder / name) for name in sorted(names)}

    def download_folder(
        self, prefix: str, folder: Path, files: Mapping[str, str] | None = None
    ) -> dict[str, str]:
        """Copy all artifacts under the prefix, or those of `files`, which has the sha256 of each;
        return these of what was copied.

        Raises ArtifactNotFound where there are none, and ArtifactDamaged where one of `files` is
        missing or another.
        """
        keys = self.keys(prefix)
        if not keys:
            raise ArtifactNotFound(prefix)
        wanted: Mapping[str, str | None]
        wanted = files or {str(PurePosixPath(key).relative_to(prefix)): None for key in keys}
        found: dict[str, str] = {}
        for name, sha256 in wanted.items():
            key = f"{prefix}/{name}"
            try:
                found[name] = self.download(key, folder / name, sha256)
            except ArtifactNotFound:
                if sha256 is None:
                    raise
                raise ArtifactDamaged(key, "it is missing") from None
        return found

    def keys(self, prefix: str, before: datetime | None = None) -> list[str]:
        """Return the keys below `prefix`, sorted; with `before`, only of artifacts that were last
        written before that time."""
        _check(prefix)
        metas = (meta for batch in obstore.list(self._store, prefix) for meta in batch)
        return sorted(m["path"] for m in metas if before is None or m["last_modified"] < before)

    def stored(self, prefix: str) -> Iterator[Stored]:
        """Yield what is stored below `prefix`."""
        _check(prefix)
        for batch in obstore.list(self._store, prefix):
            for meta in batch:
                yield Stored(meta["path"], meta["size"], meta["e_tag"])

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
