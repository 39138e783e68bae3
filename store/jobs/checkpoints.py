"""The checkpoints of a training that are kept: its last few, and its best."""

from collections.abc import Sequence
from datetime import datetime

import sqlalchemy as sa
from sqlalchemy.orm import Mapped, Session, mapped_column

from store.database import Database, Record, UtcTime, now


class Checkpoint(Record):
    """A checkpoint that is kept.

    `score` is the error on held-out images, less is better, None where it was not measured.
    `seconds` is the time of training that went into it.
    """

    __tablename__ = "job_checkpoints"

    job_id: Mapped[str] = mapped_column(primary_key=True)
    step: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    key: Mapped[str]  # the prefix of its artifacts
    num_bytes: Mapped[int] = mapped_column(sa.BigInteger)
    seconds: Mapped[float]
    score: Mapped[float | None]
    files: Mapped[dict[str, str] | None]  # sha256 by path below the key; None before 0013
    damage: Mapped[str | None]  # of its artifacts, as it was found last
    created_at: Mapped[datetime] = mapped_column(UtcTime, default=now)


def list_checkpoints(database: Database, job_id: str) -> list[Checkpoint]:
    """Return the checkpoints of a job, the oldest first."""
    with database.session() as session:
        return _all(session, job_id)


def checkpoint_files(database: Database, key: str) -> dict[str, str] | None:
    """Return the sha256 of each file of the checkpoint with this prefix; None where they are not
    known."""
    query = sa.select(Checkpoint.files).where(Checkpoint.key == key)
    with database.session() as session:
        return session.scalars(query).first()


def best_of(checkpoints: Sequence[Checkpoint]) -> Checkpoint | None:
    """Return the one of the least error, None where none has a score."""
    scored = [checkpoint for checkpoint in checkpoints if checkpoint.score is not None]
    return min(scored, key=lambda checkpoint: checkpoint.score or 0.0, default=None)


def keep_checkpoint(session: Session, checkpoint: Checkpoint, keep: int) -> None:
    """Add a checkpoint, and forget all but the last `keep` and the best."""
    session.merge(checkpoint)
    session.flush()
    there = _all(session, checkpoint.job_id)
    best = best_of(there)
    for old in there[:-keep]:
        if old is not best:
            session.delete(old)


def forget_checkpoints(session: Session, job_id: str) -> None:
    session.execute(sa.delete(Checkpoint).where(Checkpoint.job_id == job_id))


def _all(session: Session, job_id: str) -> list[Checkpoint]:
    query = sa.select(Checkpoint).where(Checkpoint.job_id == job_id).order_by(Checkpoint.step)
    return list(session.scalars(query))
