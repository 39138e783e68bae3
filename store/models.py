"""Models: the records of trained and uploaded ones, with a folder of artifacts each."""

import sqlalchemy as sa
from sqlalchemy.orm import Mapped, Session, mapped_column

from store.access.owners import check_may_change, new_name
from store.database import Database, JsonObject, Record
from store.errors import ModelConflict, ModelNotFound
from store.named import Named, newest_first
from store.upkeep.trash import TrashEntry, throw_away


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
    files: Mapped[dict[str, str] | None]  # sha256 by path below the prefix; None before 0013
    damage: Mapped[str | None]  # of its artifacts, as it was found last


def create_model(database: Database, record: ModelRecord) -> ModelRecord:
    """Add a model. Raises InvalidName, or ModelConflict where the name is taken."""
    record.name = new_name(database.caller, "model", record.name)
    with database.session(names=True) as session:
        if session.get(ModelRecord, record.name) is not None:
            raise ModelConflict(f"there is a model {record.name!r} already")
        session.add(record)
    return record


def get_model(database: Database, name: str, *, to_change: bool = False) -> ModelRecord:
    """Return a model. Raises ModelNotFound and, `to_change` it, NotYours."""
    with database.session() as session:
        return _model(session, name, to_change=to_change)


def model_files(database: Database, prefix: str) -> dict[str, str] | None:
    """Return the sha256 of each file of the model whose artifacts have this prefix; None where they
    are not known."""
    query = sa.select(ModelRecord.files).where(ModelRecord.artifact_prefix == prefix)
    with database.session() as session:
        return session.scalars(query).first()


def restore_model(database: Database, name: str, files: dict[str, str]) -> ModelRecord:
    """Say that all files of a model were written anew."""
    with database.session() as session:
        record = _model(session, name, to_change=True)
        record.files, record.damage = files, None
    return record


def list_models(
    database: Database, *, limit: int, after: str | None = None
) -> tuple[list[ModelRecord], bool]:
    """Return models, newest first, that follow `after` in that order, and whether there are
    more."""
    last = None if after is None else get_model(database, after)
    return newest_first(database, ModelRecord, limit, last)


def change_model(database: Database, name: str, **values: object) -> ModelRecord:
    """Change columns of a model, and return it. Raises ModelNotFound and NotYours."""
    with database.session() as session:
        record = _model(session, name, to_change=True)
        for column, value in values.items():
            setattr(record, column, value)
    return record


def delete_model(database: Database, name: str) -> TrashEntry:
    """Move a model to the trash. Raises ModelNotFound and NotYours."""
    with database.session() as session:
        record = _model(session, name, to_change=True)
        return throw_away(
            session,
            "models",
            record.name,
            record,
            {ModelRecord: ModelRecord.name == record.name},
            [record.artifact_prefix],
            record.num_bytes,
        )


def _model(session: Session, name: str, *, to_change: bool = False) -> ModelRecord:
    record: ModelRecord | None = session.get(ModelRecord, name)
    if record is None:
        raise ModelNotFound(name)
    if to_change:
        check_may_change(session, record, f"model {record.name!r}")
    return record
