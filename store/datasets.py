"""Data sets: what was uploaded, and what inspection found in it."""

from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Mapped, Session, mapped_column

from store.database import Database, Record, UtcTime, now
from store.errors import DatasetConflict, DatasetNotFound
from store.names import check_name


class DatasetRecord(Record):
    __tablename__ = "datasets"

    name: Mapped[str] = mapped_column(primary_key=True)
    digest: Mapped[str]  # sha256 of the archive
    num_bytes: Mapped[int] = mapped_column(sa.BigInteger)
    num_images: Mapped[int]
    channels: Mapped[int]
    classes: Mapped[dict[str, Any]]  # name -> number of images
    sizes: Mapped[list[Any]]
    rejected: Mapped[list[Any]]
    num_rejected: Mapped[int]
    artifact_key: Mapped[str]
    created_at: Mapped[datetime] = mapped_column(UtcTime, default=now)


def create_dataset(database: Database, record: DatasetRecord) -> tuple[DatasetRecord, bool]:
    """The record, and whether it is new: the same content under the same name is the one that is
    there. Raises InvalidName, or DatasetConflict for other content."""
    check_name("dataset", record.name)
    with database.session(names=True) as session:
        known = session.get(DatasetRecord, record.name)
        if known is None:
            session.add(record)
            return record, True
        if known.digest != record.digest:
            raise DatasetConflict(
                f"there is a dataset {record.name!r} with other content; "
                "delete it first or choose another name"
            )
        return known, False


def get_dataset(database: Database, name: str) -> DatasetRecord:
    with database.session() as session:
        record = session.get(DatasetRecord, name)
    if record is None:
        raise DatasetNotFound(name)
    return record


def list_datasets(
    database: Database, *, limit: int, after: str | None = None
) -> tuple[list[DatasetRecord], bool]:
    """Newest first; and whether there are more."""
    query = sa.select(DatasetRecord).order_by(
        DatasetRecord.created_at.desc(), DatasetRecord.name.desc()
    )
    if after is not None:
        last = get_dataset(database, after)
        query = query.where(
            sa.tuple_(DatasetRecord.created_at, DatasetRecord.name)
            < sa.tuple_(sa.literal(last.created_at, UtcTime), sa.literal(last.name))
        )
    with database.session() as session:
        records = list(session.scalars(query.limit(limit + 1)))
    return records[:limit], len(records) > limit


def delete_dataset(database: Database, name: str) -> DatasetRecord:
    """Forget it; the artefact is the caller's to remove. Raises DatasetConflict while a job that is
    not done learns from it."""
    with database.session(names=True) as session:
        record = session.get(DatasetRecord, name)
        if record is None:
            raise DatasetNotFound(name)
        if user := _unfinished_job_on(session, name):
            raise DatasetConflict(f"job {user!r} needs dataset {name!r}; cancel it first")
        session.delete(record)
    return record


def _unfinished_job_on(session: Session, name: str) -> str | None:
    jobs = sa.table("jobs", sa.column("id"), sa.column("dataset"), sa.column("finished_at"))
    query = sa.select(jobs.c.id).where(jobs.c.dataset == name, jobs.c.finished_at.is_(None))
    found: str | None = session.scalars(query).first()
    return found
