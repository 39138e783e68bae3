"""`python -m store.upkeep.backup TARGET` (`diffusion backup`): copy all records and artifacts,
beside the running service.

TARGET is a folder, which a later backup to it brings up to date, or a file, which becomes a tar of
the same:

    manifest.json       store.upkeep.backup.Manifest, written last
    files/ab/abcdef...  each file under its sha256; the records are one of them

An artifact is written before its record and deleted after it. So a copy is whole if it has every
artifact of its records, taken after these were read. Where a record was deleted meanwhile, the
records are read again and what is new is copied, until none was.

Exits with 1 if an artifact is missing or damaged where it is stored.
"""

import argparse
import gzip
import hashlib
import json
import os
import shutil
import sys
import tarfile
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path, PurePosixPath
from typing import Protocol

from host.environment import InvalidSetting, read_settings
from store.artifacts import ArtifactStore, StorageError, Stored
from store.database import Database, now, revision_of
from store.datasets import Part
from store.errors import ArtifactNotFound
from store.jobs.record import DONE
from store.locations import Locations
from store.pictures import key_of
from store.upkeep.dump import rows, to_line
from store.upkeep.rows import Row

FORMAT = 1
MANIFEST = "manifest.json"
TOPS = ("datasets", "jobs", "models", "pictures")  # under which artifacts lie
WITH_ARTIFACTS = (  # tables
    "datasets",
    "dataset_versions",
    "job_checkpoints",
    "jobs",
    "models",
    "pictures",
    "trash",
)
ROUNDS = 20


class BackupError(Exception):
    """Why there is no backup, or why it cannot be restored."""


@dataclass(frozen=True)
class Copied:
    """An artifact in a backup. `e_tag` is what it had where it was copied from."""

    sha256: str
    num_bytes: int
    e_tag: str | None

    @property
    def name(self) -> str:
        return file_name(self.sha256)


@dataclass(frozen=True)
class Manifest:
    """What a backup has: `records` is the sha256 of the gzipped lines of store.upkeep.dump at
    `revision`, `artifacts` has each artifact by its key, and `source` is where these lay."""

    made_at: str
    version: str  # of the service
    revision: str
    source: str
    records: str
    artifacts: dict[str, Copied]

    def to_json(self) -> bytes:
        return json.dumps({"format": FORMAT, **asdict(self)}).encode()

    @classmethod
    def from_json(cls, content: bytes) -> "Manifest":
        """Read a manifest. Raises BackupError for one of another format."""
        values = json.loads(content)
        if values.pop("format", None) != FORMAT:
            raise BackupError(
                "the backup has another format; a newer version of the service made it"
            )
        artifacts = {key: Copied(**each) for key, each in values.pop("artifacts").items()}
        return cls(artifacts=artifacts, **values)


def file_name(sha256: str) -> str:
    return f"files/{sha256[:2]}/{sha256}"


def sha256_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@dataclass
class Needs:
    """Which artifacts records need. `files` has the sha256 of those that are known one by one, None
    where it is not known. `folders` has the prefixes of the others, each with what changes whenever
    there is something new below it; None where that is not known."""

    files: dict[str, str | None] = field(default_factory=dict)
    folders: dict[str, int | None] = field(default_factory=dict)
    optional: set[str] = field(default_factory=set)  # keys that an old part of a dataset may lack

    def add(self, row: Row) -> None:
        table, values = row
        match table:
            case "models":
                self._add_folder(values["artifact_prefix"], values.get("files"))
            case "job_checkpoints":
                self._add_folder(values["key"], values.get("files"))
            case "jobs":
                ended = values["status"] in DONE
                self.folders[f"jobs/{values['id']}"] = values["version"] if ended else None
            case "datasets":
                self.files.setdefault(values["artifact_key"], None)
            case "dataset_versions":
                for part in (Part(**part) for part in values["parts"]):
                    self.files |= {part.key: None, **(part.files or {})}
                    self.optional |= part.keys
                if values["manifest_key"]:
                    self.files[values["manifest_key"]] = None
            case "pictures":
                self.files[key_of(values["id"])] = values["sha256"]
            case "trash":
                for thrown_away in values["rows"]:
                    self.add(thrown_away)

    def _add_folder(self, prefix: str, files: dict[str, str] | None) -> None:
        if files is None:
            self.folders[prefix] = 0
        else:
            self.files |= {f"{prefix}/{name}": sha256 for name, sha256 in files.items()}

    def includes(self, key: str) -> bool:
        """Return whether the artifact belongs to one of the records."""
        above = map(str, PurePosixPath(key).parents)
        return key in self.files or key in self.optional or any(p in self.folders for p in above)


class Target(Protocol):
    """A place for a backup. `earlier` is the manifest of the one that it has already."""

    @property
    def scratch(self) -> Path: ...
    @property
    def earlier(self) -> Manifest | None: ...
    def has(self, name: str) -> bool: ...
    def add(self, name: str, path: Path) -> None:
        """Take a file from `scratch`."""

    def finish(self, manifest: Manifest) -> None: ...
    def abandon(self) -> None: ...


class FolderTarget:
    def __init__(self, folder: Path) -> None:
        """Open a folder. Raises BackupError where it has something other than a backup."""
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._folder = folder
        known = folder / MANIFEST
        self.earlier = Manifest.from_json(known.read_bytes()) if known.exists() else None
        others = {path.name for path in folder.iterdir()} - {MANIFEST, "files", "scratch"}
        if others and not known.exists():
            raise BackupError(f"{folder} has other files; choose an empty folder, or a backup's")
        self.scratch = folder / "scratch"
        self.scratch.mkdir(exist_ok=True)

    def has(self, name: str) -> bool:
        return (self._folder / name).exists()

    def add(self, name: str, path: Path) -> None:
        target = self._folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        path.replace(target)

    def finish(self, manifest: Manifest) -> None:
        """Replace the manifest, then remove what only the earlier one names."""
        os.sync()  # one wait for all files
        part = self.scratch / MANIFEST
        part.write_bytes(manifest.to_json())
        os.sync()
        part.replace(self._folder / MANIFEST)
        named = {file_name(manifest.records), *(each.name for each in manifest.artifacts.values())}
        for path in (self._folder / "files").glob("*/*"):
            if path.relative_to(self._folder).as_posix() not in named:
                path.unlink()
        self.abandon()

    def abandon(self) -> None:
        """Leave what was copied for the next backup."""
        shutil.rmtree(self.scratch)


class TarTarget:
    """The tar appears when it is complete."""

    earlier = None

    def __init__(self, path: Path) -> None:
        """Begin a file. Raises BackupError where it exists."""
        if path.exists():
            raise BackupError(f"{path} is there already; choose another file, or a folder")
        self._path = path
        self.scratch = Path(tempfile.mkdtemp(prefix=f"{path.name}.part-", dir=path.parent))
        self._tar = tarfile.TarFile(self.scratch / "tar", "w")
        self._names: set[str] = set()

    def has(self, name: str) -> bool:
        return name in self._names

    def add(self, name: str, path: Path) -> None:
        self._names.add(name)
        self._tar.add(path, name)
        path.unlink()

    def finish(self, manifest: Manifest) -> None:
        part = self.scratch / MANIFEST
        part.write_bytes(manifest.to_json())
        self._tar.add(part, MANIFEST)
        self._tar.close()
        with (self.scratch / "tar").open("rb") as file:
            os.fsync(file.fileno())
        (self.scratch / "tar").replace(self._path)
        self.abandon()

    def abandon(self) -> None:
        self._tar.close()
        shutil.rmtree(self.scratch)


@dataclass
class Backup:
    """One backup to `target`; `num_copied` files were new, of `num_bytes` in all."""

    database: Database
    artifacts: ArtifactStore
    source: str
    target: Target
    copied: dict[str, Copied] = field(default_factory=dict)
    num_copied: int = 0
    num_bytes: int = 0

    def make(self) -> tuple[Manifest, list[str]]:
        """Make the backup; return its manifest, and what is missing or damaged where it is stored,
        in words.

        Raises BackupError where records are deleted faster than they can be copied.
        """
        earlier = self.target.earlier
        if earlier is not None and earlier.source == self.source:
            self.copied = dict(earlier.artifacts)
        found: set[str] = set()
        before: Needs | None = None
        for _ in range(ROUNDS):
            made_at = now()
            revision, records, needs = self._copy_records()
            prefixes = TOPS if before is None else self._changed(before, needs)
            found |= self._copy_artifacts(needs, prefixes)
            if not self._were_deleted(needs):
                break
            before = needs
        else:
            raise BackupError("records are deleted all the time; try again when it is quieter")
        known = {*needs.files, *filter(needs.includes, found)}
        kept = {key: self.copied[key] for key in sorted(known) if key in self.copied}
        manifest = Manifest(
            made_at.isoformat(), version("diffusion-service"), revision, self.source, records, kept
        )
        self.target.finish(manifest)
        return manifest, list(_wrong(needs, kept))

    def _copy_records(self) -> tuple[str, str, Needs]:
        needs, path = Needs(), self.target.scratch / "records"
        with self.database.snapshot() as connection, path.open("wb") as file:
            revision = revision_of(connection)
            if revision is None:
                raise BackupError("there is no database of the service to back up")
            with gzip.GzipFile(fileobj=file, mode="wb", mtime=0, filename="") as lines:
                for row in rows(connection):
                    needs.add(row)
                    lines.write(to_line(row).encode())
        sha256 = sha256_of(path)
        self._add(sha256, path)
        return revision, sha256, needs

    def _changed(self, before: Needs, needs: Needs) -> set[str]:
        """Return the prefixes below which there may be something new since the last round."""
        missing = needs.files.keys() - self.copied.keys()
        folders = {
            prefix
            for prefix, state in needs.folders.items()
            if state is None or before.folders.get(prefix) != state
        }
        return folders | {str(PurePosixPath(key).parent) for key in missing}

    def _copy_artifacts(self, needs: Needs, prefixes: Iterable[str]) -> set[str]:
        """Copy what the records need, unless it was copied as it is now; return the keys."""
        found = set()
        for prefix in prefixes:
            for stored in self.artifacts.stored(prefix):
                if not needs.includes(stored.key):
                    continue
                found.add(stored.key)
                known = self.copied.get(stored.key)
                if known is None or known.e_tag != stored.e_tag or not self.target.has(known.name):
                    self._copy(stored)
        return found

    def _copy(self, stored: Stored) -> None:
        path = self.target.scratch / "artifact"
        try:
            sha256 = self.artifacts.download(stored.key, path)
        except ArtifactNotFound:
            return  # it was deleted, after its record
        num_bytes = path.stat().st_size
        self._add(sha256, path)
        self.copied[stored.key] = Copied(sha256, num_bytes, stored.e_tag)

    def _add(self, sha256: str, path: Path) -> None:
        if self.target.has(file_name(sha256)):
            path.unlink()
            return
        self.num_copied += 1
        self.num_bytes += path.stat().st_size
        self.target.add(file_name(sha256), path)

    def _were_deleted(self, needs: Needs) -> bool:
        """Return whether records were deleted whose artifacts are perhaps not all copied."""
        still = Needs()
        with self.database.snapshot() as connection:
            for row in rows(connection, WITH_ARTIFACTS):
                still.add(row)
        missing = needs.files.keys() - self.copied.keys()
        gone = needs.folders.keys() - still.folders.keys()
        return bool(gone or missing - still.files.keys())


def _wrong(needs: Needs, copied: dict[str, Copied]) -> Iterator[str]:
    for key, sha256 in sorted(needs.files.items()):
        if key not in copied:
            yield f"missing  {key}"
        elif sha256 not in (None, copied[key].sha256):
            yield f"damaged  {key}: its sha256 is not that of its record"


def counts(found: Iterable[Copied]) -> str:
    sizes = [each.num_bytes for each in found]
    return f"{len(sizes)} artifacts of {sum(sizes) / 1e6:,.1f} MB"


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="diffusion backup",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("target", type=Path, help="a folder, or a new file: a name with a suffix")
    path = parser.parse_args().target
    os.umask(0o077)  # keys and secrets of webhooks are among the records
    began = datetime.now(UTC)
    try:
        locations = read_settings(Locations)
        database = Database(locations.database_url)
        artifacts = ArtifactStore(locations.artifacts_url)
        is_file = path.suffix and not path.is_dir()
        target: Target = TarTarget(path) if is_file else FolderTarget(path)
        backup = Backup(database, artifacts, locations.artifacts_url, target)
        try:
            manifest, wrong = backup.make()
        except BaseException:
            target.abandon()
            raise
    except (BackupError, InvalidSetting, OSError, StorageError) as error:
        sys.exit(f"diffusion backup: {error}")
    print(*wrong, sep="\n", end="\n" if wrong else "")
    seconds = (datetime.now(UTC) - began).total_seconds()
    print(
        f"{path}: the records and {counts(manifest.artifacts.values())}, as of "
        f"{manifest.made_at[:19]} UTC; {backup.num_copied} files, "
        f"{backup.num_bytes / 1e6:,.1f} MB, were new, in {seconds:.1f} s"
    )
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
