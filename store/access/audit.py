"""The audit log: who made, changed, deleted or downloaded what, and when. Entries are added and
never changed."""

from collections.abc import Iterator
from datetime import datetime

import sqlalchemy as sa
from sqlalchemy.orm import Mapped, mapped_column

from store.database import Database, Record, UtcTime, now

AT_ONCE = 1000  # entries read with one query
MAX_TEXT = 500  # characters of a path


class AuditEntry(Record):
    __tablename__ = "audit"

    number: Mapped[int] = mapped_column(primary_key=True)  # in the order of time
    at: Mapped[datetime] = mapped_column(UtcTime, default=now)
    owner: Mapped[str | None]  # of the key; None without one
    key_id: Mapped[str | None]
    action: Mapped[str]  # as "DELETE /models/{name}"
    path: Mapped[str]
    made: Mapped[str | None]  # the address of what was made
    request_digest: Mapped[str | None]  # of images: what each of them carries (app.sample.recipe)
    status: Mapped[int]  # of the answer
    address: Mapped[str | None]  # from which the request came
    request_id: Mapped[str]


def add_entry(database: Database, entry: AuditEntry) -> None:
    entry.path = entry.path[:MAX_TEXT].replace("\0", "�")
    with database.session() as session:
        session.add(entry)


def list_entries(
    database: Database,
    *,
    limit: int,
    before: int | None = None,
    owner: str | None = None,
    request_digest: str | None = None,
) -> tuple[list[AuditEntry], bool]:
    """Return entries, newest first, from before the number `before`, and whether there are more."""
    query = sa.select(AuditEntry).order_by(AuditEntry.number.desc()).limit(limit + 1)
    if before is not None:
        query = query.where(AuditEntry.number < before)
    if owner is not None:
        query = query.where(AuditEntry.owner == owner)
    if request_digest is not None:
        query = query.where(AuditEntry.request_digest == request_digest)
    with database.session() as session:
        found = list(session.scalars(query))
    return found[:limit], len(found) > limit


def all_entries(database: Database, owner: str | None = None) -> Iterator[AuditEntry]:
    """Yield all entries, the oldest first."""
    last = 0
    while True:
        query = sa.select(AuditEntry).where(AuditEntry.number > last)
        if owner is not None:
            query = query.where(AuditEntry.owner == owner)
        with database.session() as session:
            found = list(session.scalars(query.order_by(AuditEntry.number).limit(AT_ONCE)))
        yield from found
        if len(found) < AT_ONCE:
            return
        last = found[-1].number
