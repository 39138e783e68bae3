"""Datasets and their versions: the records of uploaded archives, with the findings of their
inspection.

A version is immutable. It is made of parts, archives as they were uploaded, and of a manifest that
says which of their images it has (models.images.versions). The record of a dataset describes its
newest version. Only the newest can be edited, and it cannot be deleted; all others stay while a job
or a model names them, and longer, until somebody deletes them.
"""

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Mapped, Session, mapped_column

from store.access.owners import Visibility, check_may_change, new_name
from store.database import Database, JsonObject, Record, UtcTime, now
from store.errors import DatasetConflict, DatasetNotFound, StaleVersion, VersionNotFound
from store.named import Named, newest_first
from store.upkeep.trash import TrashEntry, throw_away

MAX_VERSION = 2**31 - 1  # that a column holds
INDEX_SUFFIX, FINGERPRINTS_SUFFIX = ".index", ".fingerprints"


@dataclass(frozen=True)
class Part:
    """An archive as it was uploaded. `num_images` counts those that can be used, and `max_pixels`
    is the bound of one, both None if it was uploaded before 0012; `labels` is a LabelRule and
    `reading` a Reading of the core. `files` has the sha256 of each artifact by its key, None if it
    was uploaded before 0013."""

    digest: str
    key: str
    num_bytes: int
    num_images: int | None
    labels: JsonObject | None
    reading: JsonObject
    max_pixels: int | None = None
    files: dict[str, str] | None = None

    @property
    def index_key(self) -> str:
        """The key of its index (models.images.index), which may be missing before 0012."""
        return self.key + INDEX_SUFFIX

    @property
    def fingerprints_key(self) -> str:
        """The key of its fingerprints (models.images.fingerprints), written before the index."""
        return self.key + FINGERPRINTS_SUFFIX

    @property
    def keys(self) -> set[str]:
        """The keys of all that is stored of it."""
        return {self.key, self.index_key, self.fingerprints_key}

    def sha256_of(self, key: str) -> str | None:
        """Return the sha256 of one of its artifacts, None where it is not known."""
        return (self.files or {}).get(key)


class Contents:
    """A mixin for records that say what a dataset holds."""

    digest: Mapped[str]  # sha256 of the manifest; of an upload that of its archive and its choices
    num_bytes: Mapped[int] = mapped_column(sa.BigInteger)  # of the archives
    num_images: Mapped[int]
    channels: Mapped[int]
    classes: Mapped[dict[str, int]]  # name -> number of images
    splits: Mapped[dict[str, int]] = mapped_column(default=dict)  # name -> number of images
    labels: Mapped[JsonObject | None]  # a LabelRule of the core; None before 0010: by folders
    warnings: Mapped[list[Any]] = mapped_column(default=list)
    sizes: Mapped[list[Any]]
    rejected: Mapped[list[Any]]
    num_rejected: Mapped[int]
    reading: Mapped[JsonObject]  # a Reading of models.images


CONTENTS = tuple(Contents.__annotations__)


class DatasetRecord(Named, Contents, Record):
    __tablename__ = "datasets"

    artifact_key: Mapped[str]  # of the archive that was uploaded first
    version: Mapped[int] = mapped_column(default=1)
    damage: Mapped[str | None]  # of its artifacts, as it was found last


class DatasetVersion(Contents, Record):
    __tablename__ = "dataset_versions"

    dataset: Mapped[str] = mapped_column(primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    change: Mapped[str]  # from the version before, in words
    parts_json: Mapped[list[Any]] = mapped_column("parts")
    manifest_key: Mapped[str | None]  # None for an upload: all images of its one part
    created_at: Mapped[datetime] = mapped_column(UtcTime, default=now)

    @property
    def parts(self) -> list[Part]:
        return [Part(**part) for part in self.parts_json]

    def keys(self) -> set[str]:
        """Return the keys of all artifacts that the version needs."""
        manifest = {self.manifest_key} if self.manifest_key else set()
        return manifest.union(*(part.keys for part in self.parts))


def new_version(
    dataset: str, number: int, parts: Sequence[Part], *, change: str, **values: Any
) -> DatasetVersion:
    """Return a version that is not stored yet."""
    return DatasetVersion(
        dataset=dataset,
        number=number,
        change=change,
        parts_json=[asdict(part) for part in parts],
        **values,
    )


# Datasets -----------------------------------------------------------------------------------------


def known_dataset(database: Database, name: str, digest: str) -> DatasetRecord | None:
    """Return the record if this upload has this name already, None if the name is free.

    Raises InvalidName, or DatasetConflict where other content has the name.
    """
    name = new_name(database.caller, "dataset", name)
    with database.session() as session:
        return _known(session, name, digest)


def create_dataset(
    database: Database,
    record: DatasetRecord,
    max_pixels: int | None = None,
    files: dict[str, str] | None = None,
) -> tuple[DatasetRecord, bool]:
    """Add a dataset with its first version; return its record and whether it is new. The same
    content under the same name is the record that exists already. Raises as known_dataset."""
    record.name = new_name(database.caller, "dataset", record.name)
    with database.session(names=True) as session:
        if known := _known(session, record.name, record.digest):
            return known, False
        session.add(record)
        session.flush()  # sets the defaults
        session.add(first_version(record, max_pixels, files))
    return record, True


def first_version(
    record: DatasetRecord, max_pixels: int | None = None, files: dict[str, str] | None = None
) -> DatasetVersion:
    """Return the version that the upload of a dataset is."""
    part = Part(
        record.digest,
        record.artifact_key,
        record.num_bytes,
        record.num_images,
        record.labels,
        record.reading,
        max_pixels,
        files,
    )
    contents = {name: getattr(record, name) for name in CONTENTS}
    return new_version(
        record.name, 1, [part], change="uploaded", created_at=record.created_at, **contents
    )


def get_dataset(database: Database, name: str) -> DatasetRecord:
    with database.session() as session:
        return _dataset(session, name)


def list_datasets(
    database: Database, *, limit: int, after: str | None = None
) -> tuple[list[DatasetRecord], bool]:
    """Return datasets, newest first, that follow `after` in that order, and whether there are
    more."""
    last = None if after is None else get_dataset(database, after)
    return newest_first(database, DatasetRecord, limit, last)


def set_visibility(database: Database, name: str, visibility: Visibility) -> DatasetRecord:
    """Share a dataset with every caller, or take that back. Raises DatasetNotFound and NotYours."""
    with database.session() as session:
        record = _dataset(session, name, to_change=True)
        record.visibility = visibility
    return record


def delete_dataset(database: Database, name: str) -> TrashEntry:
    """Move a dataset with all its versions to the trash.

    Raises DatasetNotFound and NotYours, and DatasetConflict while a job that is not done uses it.
    """
    with database.session(names=True) as session:
        record = _dataset(session, name, to_change=True)
        name = record.name
        if user := _unfinished_job_on(session, name):
            raise DatasetConflict(f"job {user!r} needs dataset {name!r}; cancel it first")
        rows = {
            DatasetRecord: DatasetRecord.name == name,
            DatasetVersion: DatasetVersion.dataset == name,
        }
        keys = _keys(_versions(session, name))
        return throw_away(session, "datasets", name, record, rows, keys, record.num_bytes)


def restore_dataset(database: Database, name: str, files: dict[str, str]) -> DatasetRecord:
    """Say that a part of a dataset was written anew; `files` has the sha256 of its artifacts."""
    with database.session() as session:
        record = _dataset(session, name, to_change=True)
        for version in _versions(session, record.name):
            parts = [
                replace(part, files=files) if part.key in files else part for part in version.parts
            ]
            version.parts_json = [asdict(part) for part in parts]
        record.damage = None
    return record


# Versions -----------------------------------------------------------------------------------------


def get_version(
    database: Database, name: str, version: int | str | None = None, *, to_change: bool = False
) -> DatasetVersion:
    """Return a version by its number or by its digest, the newest without either; of several with
    one digest, which have the same images, the newest.

    Raises DatasetNotFound, VersionNotFound and, `to_change` the dataset, NotYours.
    """
    with database.session() as session:
        record = _dataset(session, name, to_change=to_change)
        wanted = record.version if version is None else version
        return version_in(session, record.name, wanted)


def version_in(session: Session, name: str, version: int | str) -> DatasetVersion:
    """Return a version by its number or its digest. Raises VersionNotFound."""
    column = DatasetVersion.number if isinstance(version, int) else DatasetVersion.digest
    query = (
        sa.select(DatasetVersion)
        .where(DatasetVersion.dataset == name, column == version)
        .order_by(DatasetVersion.number.desc())
    )
    found = session.scalars(query).first()
    if found is None:
        raise VersionNotFound(name, version)
    return found


def list_versions(
    database: Database, name: str, *, limit: int, after: int | None = None
) -> tuple[list[DatasetVersion], bool]:
    """Return the versions before `after`, newest first, and whether there are more. Raises
    DatasetNotFound."""
    with database.session() as session:
        record = _dataset(session, name)
        query = sa.select(DatasetVersion).where(DatasetVersion.dataset == record.name)
        if after is not None:
            query = query.where(DatasetVersion.number < after)
        query = query.order_by(DatasetVersion.number.desc()).limit(limit + 1)
        found = list(session.scalars(query))
    return found[:limit], len(found) > limit


def find_part(database: Database, name: str, beginning: str) -> Part | None:
    """Return the part, of any version, whose digest begins so, or None. Raises DatasetNotFound."""
    with database.session() as session:
        record = _dataset(session, name)
        query = sa.select(DatasetVersion.parts_json).where(DatasetVersion.dataset == record.name)
        for parts in session.scalars(query.order_by(DatasetVersion.number.desc())).yield_per(10):
            for part in parts:
                if part["digest"].startswith(beginning):
                    return Part(**part)
    return None


def add_version(database: Database, version: DatasetVersion) -> DatasetVersion:
    """Add the version that follows the newest. Raises DatasetNotFound, and StaleVersion if another
    edit was faster."""
    with database.session(names=True) as session:
        record = _dataset(session, version.dataset, to_change=True)
        if version.number != record.version + 1:
            raise StaleVersion(version.dataset, version.number - 1, record.version)
        session.add(version)
        record.version = version.number
        for name in CONTENTS:
            setattr(record, name, getattr(version, name))
    return version


def delete_version(database: Database, name: str, number: int) -> set[str]:
    """Forget a version; return the keys of the artifacts that no other version needs, which the
    caller removes.

    Raises DatasetNotFound, VersionNotFound, and DatasetConflict if it is the newest or a job or a
    model names it.
    """
    with database.session(names=True) as session:
        record = _dataset(session, name, to_change=True)
        name = record.name
        version = version_in(session, name, number)
        if number == record.version:
            raise DatasetConflict(f"version {number} is the newest of dataset {name!r}")
        if user := _user_of(session, version):
            raise DatasetConflict(f"{user} names version {number} of dataset {name!r}")
        session.delete(version)
        others = [v for v in _versions(session, name) if v.number != number]
        return version.keys() - _keys(others)


# Within a session ---------------------------------------------------------------------------------


def _dataset(session: Session, name: str, *, to_change: bool = False) -> DatasetRecord:
    record: DatasetRecord | None = session.get(DatasetRecord, name)
    if record is None:
        raise DatasetNotFound(name)
    if to_change:
        check_may_change(session, record, f"dataset {record.name!r}")
    return record


def _versions(session: Session, name: str) -> Sequence[DatasetVersion]:
    query = sa.select(DatasetVersion).where(DatasetVersion.dataset == name)
    return session.scalars(query.order_by(DatasetVersion.number)).all()


def _keys(versions: Iterable[DatasetVersion]) -> set[str]:
    return set().union(*(version.keys() for version in versions))


def _known(session: Session, name: str, digest: str) -> DatasetRecord | None:
    """`name` is one in full."""
    known: DatasetRecord | None = session.get(DatasetRecord, name)
    if known is None:
        return None
    versions = _versions(session, name)
    if not any(digest in (version.digest, version.parts[0].digest) for version in versions):
        raise DatasetConflict(
            f"there is a dataset {name!r} with other content, other labels or another reading; "
            "delete it first or choose another name"
        )
    return known


def _unfinished_job_on(session: Session, name: str) -> str | None:
    query = sa.select(_JOBS.c.id).where(_JOBS.c.dataset == name, _JOBS.c.finished_at.is_(None))
    found: str | None = session.scalars(query).first()
    return found


def _user_of(session: Session, version: DatasetVersion) -> str | None:
    """Return a job or a model that names the version, in words."""
    for kind, table, key in (("job", _JOBS, _JOBS.c.id), ("model", _MODELS, _MODELS.c.name)):
        query = sa.select(key).where(
            table.c.dataset == version.dataset, table.c.dataset_digest == version.digest
        )
        if (found := session.scalars(query).first()) is not None:
            return f"{kind} {found!r}"
    return None


# Of their records only these columns matter here; store.jobs and store.models know datasets.
_NAMES = ("dataset", "dataset_digest")
_JOBS = sa.table("jobs", *map(sa.column, ("id", "finished_at", *_NAMES)))
_MODELS = sa.table("models", *map(sa.column, ("name", *_NAMES)))
