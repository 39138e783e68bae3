"""Keys: who may call the service, and for what.

A key is a random secret that is shown once; only its sha256 is stored, which is enough for secrets
of 256 bits. What is made with a key belongs to its owner, who may have several keys.
"""

import hashlib
import hmac
import re
import secrets
from collections.abc import Collection
from datetime import datetime, timedelta
from typing import Any, Literal, get_args

import sqlalchemy as sa
from sqlalchemy.orm import Mapped, mapped_column

from store.database import Database, Record, UtcTime, now
from store.errors import InvalidName, NotFound
from store.names import MAX_OWNER, is_owner

Scope = Literal["read", "sample", "train", "datasets", "admin"]
SCOPES: tuple[Scope, ...] = get_args(Scope)

PREFIX = "dk"
USE_NOTED_SECONDS = 60.0  # `last_used_at` may be so much behind
_KEY = re.compile(rf"{PREFIX}_([0-9a-f]{{12}})_([A-Za-z0-9_-]{{43}})")


class Key(Record):
    __tablename__ = "keys"

    id: Mapped[str] = mapped_column(primary_key=True)
    owner: Mapped[str]
    scopes: Mapped[list[Any]]
    digest: Mapped[str]  # sha256 of the secret
    created_at: Mapped[datetime] = mapped_column(UtcTime)
    last_used_at: Mapped[datetime | None] = mapped_column(UtcTime)
    revoked_at: Mapped[datetime | None] = mapped_column(UtcTime)


class KeyNotFound(NotFound):
    def __init__(self, key_id: str) -> None:
        super().__init__(f"there is no key {key_id[:80]!r}")


def create_key(database: Database, owner: str, scopes: Collection[Scope]) -> tuple[Key, str]:
    """Create a key; return its record and the key itself, which cannot be had again.

    Raises InvalidName.
    """
    if not is_owner(owner):
        raise InvalidName(
            "owner",
            f"owner is {owner[:80]!r}; it must have 1..{MAX_OWNER} characters of a-z, 0-9, '.', "
            "'_' and '-', and begin with a letter or digit",
        )
    key_id, secret = secrets.token_hex(6), secrets.token_urlsafe(32)
    key = Key(
        id=key_id,
        owner=owner,
        scopes=[scope for scope in SCOPES if scope in scopes],
        digest=_digest(secret),
        created_at=now(),
    )
    with database.session() as session:
        session.add(key)
    return key, f"{PREFIX}_{key_id}_{secret}"


def find_key(database: Database, text: str) -> Key | None:
    """Return the key that a caller presents, None if there is none or it is revoked; note its
    use."""
    if (parts := _KEY.fullmatch(text)) is None:
        return None
    at = now()
    with database.session() as session:
        key: Key | None = session.get(Key, parts[1])
        if key is None or key.revoked_at or not hmac.compare_digest(key.digest, _digest(parts[2])):
            return None
        noted = key.last_used_at
        if noted is None or noted < at - timedelta(seconds=USE_NOTED_SECONDS):
            key.last_used_at = at
    return key


def any_key(database: Database) -> bool:
    """Return whether there ever was a key. From the first one on, a key is needed."""
    with database.session() as session:
        return bool(session.scalar(sa.select(sa.exists().select_from(Key))))


def list_keys(database: Database) -> list[Key]:
    """Return all keys, the newest first, revoked ones too."""
    with database.session() as session:
        return list(session.scalars(sa.select(Key).order_by(Key.created_at.desc(), Key.id)))


def revoke_key(database: Database, key_id: str) -> Key:
    """Make a key useless; what was made with it stays. Raises KeyNotFound."""
    with database.session() as session:
        key: Key | None = session.get(Key, key_id)
        if key is None:
            raise KeyNotFound(key_id)
        key.revoked_at = key.revoked_at or now()
    return key


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()
