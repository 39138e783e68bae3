"""`python -m store.upkeep.restore SOURCE [--replace]` (`diffusion restore`): bring back what
`diffusion backup` copied, into the database and the artifacts that the environment names.

These may be elsewhere and of another kind than those that were backed up, and must be empty, or
`--replace` empties them. Each file is compared with its sha256 on the way; one that is damaged in
the backup is left out and printed. Records come last, in one transaction, and are migrated to this
version. Exits with 1 if a file was damaged.
"""

import argparse
import gzip
import sys
import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from shutil import copyfileobj
from typing import Protocol

from sqlalchemy.exc import SQLAlchemyError

from host.environment import InvalidSetting, read_settings
from store.artifacts import ArtifactStore, StorageError
from store.database import Database, revision_of, revisions
from store.locations import Locations
from store.nodes import ALIVE_SECONDS, live_node
from store.upkeep.backup import (
    MANIFEST,
    TOPS,
    BackupError,
    Copied,
    Manifest,
    counts,
    file_name,
    sha256_of,
)
from store.upkeep.dump import clear, from_line, is_empty, load


class Source(Protocol):
    def file(self, name: str) -> AbstractContextManager[Path | None]:
        """Give a file of the backup; None where it is missing."""


class FolderSource:
    def __init__(self, folder: Path) -> None:
        self._folder = folder

    @contextmanager
    def file(self, name: str) -> Iterator[Path | None]:
        path = self._folder / name
        yield path if path.is_file() else None


class TarSource:
    def __init__(self, tar: tarfile.TarFile, scratch: Path) -> None:
        self._tar, self._scratch = tar, scratch
        self._members = {member.name: member for member in tar.getmembers()}

    @contextmanager
    def file(self, name: str) -> Iterator[Path | None]:
        member = self._members.get(name)
        found = None if member is None else self._tar.extractfile(member)
        if found is None:
            yield None
            return
        with found, tempfile.NamedTemporaryFile(dir=self._scratch) as copy:
            copyfileobj(found, copy, 1 << 20)
            copy.flush()
            yield Path(copy.name)


@contextmanager
def opened(path: Path, scratch: Path) -> Iterator[Source]:
    """Open a backup. Raises BackupError for a file that is not a whole tar."""
    if path.is_dir():
        yield FolderSource(path)
        return
    try:
        tar = tarfile.TarFile(path)
        source = TarSource(tar, scratch)
    except tarfile.TarError as error:
        raise BackupError(f"{path} is not a backup: {error}") from None
    with tar:
        yield source


def read_manifest(source: Source) -> Manifest:
    """Return the manifest of a backup. Raises BackupError."""
    with source.file(MANIFEST) as path:
        if path is None:
            raise BackupError("there is no manifest.json: it is not a backup, or was not completed")
        return Manifest.from_json(path.read_bytes())


def check_target(
    database: Database, artifacts: ArtifactStore, manifest: Manifest, *, replace: bool
) -> None:
    """Raise BackupError unless the backup can be restored there."""
    if manifest.revision not in revisions():
        raise BackupError(
            f"the backup is of version {manifest.version} with schema {manifest.revision}, which "
            "this version does not know: install that version or a later one"
        )
    with database.engine.connect() as connection:
        if node := live_node(connection):
            raise BackupError(
                f"{node} uses this database; stop the service first "
                f"(a killed one counts for {ALIVE_SECONDS:.0f} seconds)"
            )
        if replace:
            if (there := revision_of(connection)) not in (None, *revisions()):
                raise BackupError(
                    f"the database has schema {there}, which this version does not know"
                )
            return
        if not is_empty(connection):
            raise BackupError("the database is not empty; --replace deletes what is there")
    if any(artifacts.keys(top) for top in TOPS):
        raise BackupError("the place for artifacts is not empty; --replace deletes what is there")


def restore(
    source: Source, manifest: Manifest, database: Database, artifacts: ArtifactStore
) -> tuple[dict[str, int], list[str]]:
    """Replace all that is there by the backup; return the number of records by table, and the keys
    of artifacts that are damaged in it.

    Raises BackupError where the records are damaged; nothing is changed then.
    """
    with source.file(file_name(manifest.records)) as records:
        if records is None or sha256_of(records) != manifest.records:
            raise BackupError("the records are damaged in the backup")
        with database.engine.begin() as connection:
            clear(connection)
        for top in TOPS:
            artifacts.delete_prefix(top)
        damaged = [
            key
            for key, copied in manifest.artifacts.items()
            if not _restore_artifact(source, key, copied, artifacts)
        ]
        with database.engine.begin() as connection, gzip.open(records) as lines:
            return load(connection, manifest.revision, map(from_line, lines)), damaged


def _restore_artifact(source: Source, key: str, copied: Copied, artifacts: ArtifactStore) -> bool:
    with source.file(file_name(copied.sha256)) as path:
        if path is None:
            return False
        if artifacts.put_file(key, path) == copied.sha256:
            return True
        artifacts.delete(key)
        return False


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="diffusion restore",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("source", type=Path, help="a folder or a file of `diffusion backup`")
    parser.add_argument("--replace", action="store_true", help="delete what is there")
    options = parser.parse_args()
    try:
        locations = read_settings(Locations)
        locations.data_dir.mkdir(parents=True, exist_ok=True)
        with (
            tempfile.TemporaryDirectory(dir=locations.data_dir) as scratch,
            opened(options.source, Path(scratch)) as source,
        ):
            manifest = read_manifest(source)
            database = Database(locations.database_url)
            artifacts = ArtifactStore(locations.artifacts_url)
            check_target(database, artifacts, manifest, replace=options.replace)
            num_records, damaged = restore(source, manifest, database, artifacts)
    except (BackupError, InvalidSetting, OSError, SQLAlchemyError, StorageError) as error:
        sys.exit(f"diffusion restore: {error}")
    for key in damaged:
        print(f"damaged in the backup, and left out  {key}")
    for table, count in sorted(num_records.items()):
        print(f"{count} records of {table}")
    print(
        f"{counts(manifest.artifacts.values())}, as of {manifest.made_at[:19]} UTC, to "
        f"{locations.artifacts_url}; {len(damaged)} damaged"
    )
    sys.exit(1 if damaged else 0)


if __name__ == "__main__":
    main()
