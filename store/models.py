"""Models: the records of trained and uploaded ones, with a folder of artifacts each."""

import sqlalchemy as sa
from sqlalchemy.orm import Mapped, mapped_column

from store.database import Database, JsonObject, Record
from store.errors import ModelConflict, ModelNotFound
from store.names import Named, check_name, newest_first


class ModelRecord(Named, Record):
    __tablename__ = "models"

    digest: Mapped[str]  # sha256 of the weights
    details: Mapped[JsonObject]  # image_size, channels, class_names, schedule, ...
    job_id: Mapped[str | None]
    dataset: Mapped[str | None]
    dataset_version: Mapped[int | None]
    dataset_digest: Mapped[str | None]  # of that version
    artifact_prefix: Mapped[str]
    num_bytes: Mapped[int] = mapped_column(sa.BigInteger)
    license: Mapped[str | None]  # of the weights: an SPDX id, or other text


def create_model(database: Database, record: ModelRecord) -> ModelRecord:
    """Add a model. Raises InvalidName, or ModelConflict where the name is taken."""
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
    """Return models, newest first, that follow `after` in that order, and whether there are
    more."""
    last = None if after is None else get_model(database, after)
    return newest_first(database, ModelRecord, limit, last)


def set_license(database: Database, name: str, license_: str | None) -> ModelRecord:
    """Say under which license the weights are, None for unknown, and return the model."""
    with database.session() as session:
        record = session.get(ModelRecord, name)
        if record is None:
            raise ModelNotFound(name)
        record.license = license_
    return record


def delete_model(database: Database, name: str) -> ModelRecord:
    """Forget a model; the caller removes its artifacts."""
    with database.session() as session:
        record = session.get(ModelRecord, name)
        if record is None:
            raise ModelNotFound(name)
        session.delete(record)
    return record
