"""Records with a name that users give, datasets and models, and lists of them."""

from datetime import datetime
from typing import TypeVar

import sqlalchemy as sa
from sqlalchemy.orm import Mapped, mapped_column

from store.access.owners import Owned
from store.database import Database, UtcTime, now


class Named(Owned):
    """A mixin for records that have a name."""

    has_name = True
    name: Mapped[str] = mapped_column(primary_key=True)
    created_at: Mapped[datetime] = mapped_column(UtcTime, default=now)


R = TypeVar("R", bound=Named)


def newest_first(
    database: Database, kind: type[R], limit: int, last: R | None
) -> tuple[list[R], bool]:
    """Return up to `limit` records that follow `last`, and whether there are more."""
    query = sa.select(kind).order_by(kind.created_at.desc(), kind.name.desc())
    if last is not None:
        query = query.where(
            sa.tuple_(kind.created_at, kind.name)
            < sa.tuple_(sa.literal(last.created_at, UtcTime), sa.literal(last.name))
        )
    with database.session() as session:
        records = list(session.scalars(query.limit(limit + 1)))
    return records[:limit], len(records) > limit


def bytes_of(database: Database, kind: type[Named], name: str) -> int:
    """Return the bytes of what has this name; 0 where nothing has it."""
    with database.session() as session:
        record = session.get(kind, name)
    return int(getattr(record, "num_bytes", 0))
