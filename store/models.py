"""Models: trained here or uploaded, a folder of artefacts each."""

from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Mapped, mapped_column

from store.database import Database, Record, UtcTime, now
from store.errors import ModelConflict, ModelNotFound
from store.names import check_name


class ModelRecord(Record):
    __tablename__ = "models"

    name: Mapped[str] = mapped_column(primary_key=True)
    digest: Mapped[str]  # sha256 of the weights
    details: Mapped[dict[str, Any]]  # image_size, channels, class_names, schedule, ...
    job_id: Mapped[str | None]
    dataset: Mapped[str | None]
    artifact_prefix: Mapped[str]
    num_bytes: Mapped[int] = mapped_column(sa.BigInteger)
    created_at: Mapped[datetime] = mapped_column(UtcTime, default=now)


def create_model(database: Database, record: ModelRecord) -> ModelRecord:
    """Raises InvalidName, or ModelConflict where the name is taken."""
    check_name("model", record.name)
    with database.session(names=True) as session:
        if session.get(ModelRecord, record.name) is not None:
            raise ModelConflict(f"there is a model {record.name!r} already")
        session.add(record)
    return record


def get_model(database: Database, name: str) -> ModelRecord:
    with database.session() as session:
        record = session.get(ModelRecord, name)
    if record is None:
        raise ModelNotFound(name)
    return record


def list_models(
    database: Database, *, limit: int, after: str | None = None
) -> tuple[list[ModelRecord], bool]:
    """Newest first; and whether there are more."""
    query = sa.select(ModelRecord).order_by(ModelRecord.created_at.desc(), ModelRecord.name.desc())
    if after is not None:
        last = get_model(database, after)
        query = query.where(
            sa.tuple_(ModelRecord.created_at, ModelRecord.name)
            < sa.tuple_(sa.literal(last.created_at, UtcTime), sa.literal(last.name))
        )
    with database.session() as session:
        records = list(session.scalars(query.limit(limit + 1)))
    return records[:limit], len(records) > limit


def delete_model(database: Database, name: str) -> ModelRecord:
    """Forget it; the artefacts are the caller's to remove."""
    with database.session() as session:
        record = session.get(ModelRecord, name)
        if record is None:
            raise ModelNotFound(name)
        session.delete(record)
    return record
