"""Records with a name that users give, datasets and models: the rule for names, and lists of them.

Names are parts of addresses and of artifacts' keys.
"""

import re
from datetime import datetime
from typing import TypeVar

import sqlalchemy as sa
from sqlalchemy.orm import Mapped, mapped_column

from store.database import Database, UtcTime, now
from store.errors import InvalidName

NAME_PATTERN = r"^[a-z0-9](\.?[a-z0-9_-])*\.?$"
MAX_NAME = 63
NAME_RULE = (
    f"it must have 1..{MAX_NAME} characters of a-z, 0-9, '.', '_' and '-', "
    "begin with a letter or digit, and not contain '..'"
)


def check_name(field: str, name: str) -> str:
    """Return the name itself. Raises InvalidName."""
    if not is_name(name):
        shown = name if len(name) <= 80 else f"{name[:80]}… ({len(name)} characters)"
        raise InvalidName(field, f"{field} is {shown!r}; {NAME_RULE}")
    return name


def is_name(text: str) -> bool:
    return len(text) <= MAX_NAME and re.fullmatch(NAME_PATTERN, text) is not None


class Named:
    """A mixin for records that have a name."""

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
