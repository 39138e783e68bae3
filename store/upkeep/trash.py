"""The trash: deleted datasets, models, jobs and pictures, with their artifacts, until they are
restored or removed for good.

What is deleted leaves its tables, so that nothing else has to look past it and its name is free at
once. Its rows are kept here as they were, at the revision of the schema that they had, and return
to their tables, migrated to the newest.
"""

import secrets
import time
from collections.abc import Collection, Iterable, Mapping
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Mapped, Session, mapped_column

from store.access.owners import Owned, check_may_change
from store.artifacts import ArtifactStore
from store.database import Database, JsonObject, Record, UtcTime, now, revisions
from store.errors import NameTaken, NotFound, NotInTrash
from store.upkeep.rows import from_json, to_json

NAMED = ("datasets", "models")  # collections whose names are unique
SINGLE = ("datasets", "pictures")  # collections whose artifacts are single files


class TrashEntry(Owned, Record):
    __tablename__ = "trash"

    id: Mapped[str] = mapped_column(primary_key=True)
    collection: Mapped[str]  # the first part of its address: "models", "train-jobs", ...
    name: Mapped[str]  # in full; of a job or a picture its id
    num_bytes: Mapped[int] = mapped_column(sa.BigInteger)  # that count for the quota
    rows: Mapped[list[Any]]  # store.upkeep.rows.Row
    revision: Mapped[str]  # of the schema that the rows are of
    artifacts: Mapped[list[Any]]  # keys, and prefixes of all below them
    deleted_at: Mapped[datetime] = mapped_column(UtcTime)


def throw_away(
    session: Session,
    collection: str,
    name: str,
    record: Owned,
    rows: Mapping[type[Record], sa.ColumnElement[bool]],
    artifacts: Collection[str],
    num_bytes: int = 0,
) -> TrashEntry:
    """Move the rows of a record, those of each kind that a condition selects, to the trash; its own
    is of the first kind. Raises NotFound where another process was faster."""
    entry = TrashEntry(
        id=f"{time.time_ns() // 1000:013x}{secrets.token_hex(2)}",
        collection=collection,
        name=name,
        num_bytes=num_bytes,
        rows=[],
        revision=revisions()[-1],
        artifacts=sorted(artifacts),
        deleted_at=now(),
        made_by=record.made_by,
    )
    connection = session.connection()
    for kind, condition in rows.items():
        table = Record.metadata.tables[kind.__tablename__]
        gone = connection.execute(sa.delete(table).where(condition).returning(table)).mappings()
        entry.rows += [[table.name, to_json(row)] for row in gone]
        if not entry.rows:
            raise NotFound(f"{name!r} was deleted a moment ago")
    session.add(entry)
    return entry


def list_trash(
    database: Database, *, limit: int, after: str | None = None
) -> tuple[list[TrashEntry], bool]:
    """Return entries, the last deleted first, that follow `after`, and whether there are more.
    Raises NotInTrash where there is none `after`."""
    query = sa.select(TrashEntry).order_by(TrashEntry.id.desc()).limit(limit + 1)
    with database.session() as session:
        if after is not None:
            if session.get(TrashEntry, after) is None:
                raise NotInTrash(after)
            query = query.where(TrashEntry.id < after)
        found = list(session.scalars(query))
    return found[:limit], len(found) > limit


def restore(database: Database, collection: str, entry_id: str) -> TrashEntry:
    """Bring back what was deleted. Raises NotInTrash, and NameTaken where its name is taken."""
    with database.session(names=True) as session:
        entry = _entry(session, collection, entry_id)
        check_name_is_free(session, entry)
        connection = session.connection()
        for name, values in _newest_rows(entry):
            table = Record.metadata.tables[name]
            connection.execute(table.insert().values(from_json(table, values)))
        session.delete(entry)
    return entry


def remove(database: Database, artifacts: ArtifactStore, collection: str, entry_id: str) -> None:
    """Delete an entry for good, then its artifacts. Raises NotInTrash."""
    with database.session() as session:
        entry = _entry(session, collection, entry_id)
        session.delete(entry)
    for key in entry.artifacts:
        if collection in SINGLE:
            artifacts.delete(key)
        else:
            artifacts.delete_prefix(key)


def remove_old(database: Database, artifacts: ArtifactStore, before: datetime) -> int:
    """Delete for good what was deleted before that time; return how many that were."""
    query = sa.select(TrashEntry.collection, TrashEntry.id).where(TrashEntry.deleted_at < before)
    with database.session() as session:
        found = session.execute(query).all()
    count = 0
    for collection, entry_id in found:
        try:
            remove(database, artifacts, collection, entry_id)
        except NotInTrash:  # it was restored, or another process was faster
            continue
        count += 1
    return count


def kept_artifacts(session: Session) -> set[str]:
    """Return the keys and prefixes of the artifacts of all that is in the trash."""
    return {key for keys in session.scalars(sa.select(TrashEntry.artifacts)) for key in keys}


def check_name_is_free(session: Session, entry: TrashEntry) -> None:
    if entry.collection not in NAMED:
        return
    table, what = Record.metadata.tables[entry.collection], entry.collection.removesuffix("s")
    connection = session.connection()
    if connection.scalar(sa.select(table.c.name).where(table.c.name == entry.name)):
        raise NameTaken(f"there is a {what} {entry.name!r} by now; delete it before this returns")
    jobs = Record.metadata.tables["jobs"]
    rival = sa.select(jobs.c.id).where(
        jobs.c.kind == "train", jobs.c.model_name == entry.name, jobs.c.finished_at.is_(None)
    )
    if what == "model" and (job_id := connection.scalar(rival)):
        raise NameTaken(f"job {job_id!r} is about to make a model {entry.name!r}")


def _newest_rows(entry: TrashEntry) -> Iterable[tuple[str, JsonObject]]:
    if entry.revision == revisions()[-1]:
        return [(table, values) for table, values in entry.rows]
    from store.upkeep.dump import migrated  # which knows every table, and so this module

    return migrated(entry.rows, entry.revision)


def _entry(session: Session, collection: str, entry_id: str) -> TrashEntry:
    found: TrashEntry | None = session.get(TrashEntry, entry_id, with_for_update=True)
    if found is None or found.collection != collection:
        raise NotInTrash(entry_id)
    check_may_change(session, found, f"{entry_id} in the trash")
    return found
