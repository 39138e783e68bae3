"""Datasets: the records of uploaded archives, with the findings of their inspection."""

from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Mapped, Session, mapped_column

from store.database import Database, JsonObject, Record
from store.errors import DatasetConflict, DatasetNotFound
from store.names import Named, check_name, newest_first


class DatasetRecord(Named, Record):
    __tablename__ = "datasets"

    digest: Mapped[str]  # sha256 of the archive, and of `labels` and `reading` where not by default
    num_bytes: Mapped[int] = mapped_column(sa.BigInteger)
    num_images: Mapped[int]
    channels: Mapped[int]
    classes: Mapped[dict[str, int]]  # name -> number of images
    splits: Mapped[dict[str, int]] = mapped_column(default=dict)  # name -> number of images
    labels: Mapped[JsonObject | None]  # a LabelRule of the core; None before 0010: by folders
    warnings: Mapped[list[Any]] = mapped_column(default=list)
    sizes: Mapped[list[Any]]
    rejected: Mapped[list[Any]]
    num_rejected: Mapped[int]
    artifact_key: Mapped[str]
    reading: Mapped[JsonObject]  # a Reading of models.images


def known_dataset(database: Database, name: str, digest: str) -> DatasetRecord | None:
    """Return the record of this content under this name, None where the name is free.

    Raises InvalidName, or DatasetConflict where other content has the name.
    """
    check_name("dataset", name)
    with database.session() as session:
        return _known(session, name, digest)


def create_dataset(database: Database, record: DatasetRecord) -> tuple[DatasetRecord, bool]:
    """Add a dataset; return its record and whether it is new. The same content under the same name
    is the record that exists already. Raises as known_dataset."""
    check_name("dataset", record.name)
    with database.session(names=True) as session:
        if known := _known(session, record.name, record.digest):
            return known, False
        session.add(record)
    return record, True


def get_dataset(database: Database, name: str) -> DatasetRecord:
    with database.session() as session:
        record = session.get(DatasetRecord, name)
    if record is None:
        raise DatasetNotFound(name)
    return record


def list_datasets(
    database: Database, *, limit: int, after: str | None = None
) -> tuple[list[DatasetRecord], bool]:
    """Return datasets, newest first, that follow `after` in that order, and whether there are
    more."""
    last = None if after is None else get_dataset(database, after)
    return newest_first(database, DatasetRecord, limit, last)


def delete_dataset(database: Database, name: str) -> DatasetRecord:
    """Forget a dataset; the caller removes its artifact.

    Raises DatasetConflict while a job that is not done uses it.
    """
    with database.session(names=True) as session:
        record = session.get(DatasetRecord, name)
        if record is None:
            raise DatasetNotFound(name)
        if user := _unfinished_job_on(session, name):
            raise DatasetConflict(f"job {user!r} needs dataset {name!r}; cancel it first")
        session.delete(record)
    return record


def _known(session: Session, name: str, digest: str) -> DatasetRecord | None:
    known: DatasetRecord | None = session.get(DatasetRecord, name)
    if known and known.digest != digest:
        raise DatasetConflict(
            f"there is a dataset {name!r} with other content, other labels or another reading; "
            "delete it first or choose another name"
        )
    return known


def _unfinished_job_on(session: Session, name: str) -> str | None:
    jobs = sa.table("jobs", sa.column("id"), sa.column("dataset"), sa.column("finished_at"))
    query = sa.select(jobs.c.id).where(jobs.c.dataset == name, jobs.c.finished_at.is_(None))
    found: str | None = session.scalars(query).first()
    return found
