"""The parts of a job's images, which workers that are free make side by side.

The process of the job lays its order out as parts and makes one after the other; processes of other
workers help, each with a part of its own. Whoever makes a part holds it for a while, again and
again; the part of a process that is lost is free after that. Where two make the same part nothing
is wrong but the time: an image is a function of the order and its index.
"""

from datetime import datetime, timedelta

import sqlalchemy as sa
from sqlalchemy.orm import Mapped, Session, mapped_column

from store.database import Database, JsonObject, Record, UtcTime, now
from store.jobs.configs import SampleJobConfig
from store.jobs.record import Job
from store.jobs.transitions import count_rows

MIN_PART = 64  # images
PARTS = 40  # of a large order: who is done first then waits for a fortieth of it at most


class ImageOrder(Record):
    """The images of one job. `config` is a SampleJobConfig in whose precision all parts are
    computed, on a `device` of this kind; `computed_by` is as in EngineModel, for the process that
    began."""

    __tablename__ = "image_orders"

    job_id: Mapped[str] = mapped_column(primary_key=True)
    config: Mapped[JsonObject]
    device: Mapped[str]
    computed_by: Mapped[str]


class ImagePart(Record):
    """`count` images from `first` on, of which the first `made` are made; held until `held_until`
    by a process that makes the rest, the job's own or a helper."""

    __tablename__ = "image_parts"

    job_id: Mapped[str] = mapped_column(primary_key=True)
    first: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    count: Mapped[int]
    made: Mapped[int]
    held_until: Mapped[datetime | None] = mapped_column(UtcTime)
    by_helper: Mapped[bool]


def lay_out(
    database: Database, job_id: str, config: SampleJobConfig, device: str, computed_by: str
) -> ImageOrder:
    """Write a job's order and its parts, or return the order that an earlier attempt wrote, whose
    own part is free again."""
    size = max(MIN_PART, -(-config.num_images // PARTS))
    with database.session() as session:
        if (there := session.get(ImageOrder, job_id)) is not None:
            of_attempt = sa.and_(ImagePart.job_id == job_id, ImagePart.by_helper.is_(False))
            session.execute(sa.update(ImagePart).where(of_attempt).values(held_until=None))
            return there
        order = ImageOrder(
            job_id=job_id, config=config.to_dict(), device=device, computed_by=computed_by
        )
        session.add(order)
        for first in range(0, config.num_images, size):
            count = min(size, config.num_images - first)
            part = ImagePart(job_id=job_id, first=first, count=count, made=0, by_helper=False)
            session.add(part)
    return order


def get_order(database: Database, job_id: str) -> ImageOrder | None:
    with database.session() as session:
        return session.get(ImageOrder, job_id)


def take_part(
    database: Database, job_id: str, seconds: float, *, by_helper: bool
) -> ImagePart | None:
    """Hold the first part that nobody makes, for so many seconds; None where there is none, or
    where the job needs no images any more."""
    with database.session() as session:
        query = (
            sa.select(ImagePart)
            .where(ImagePart.job_id == job_id, _free(), sa.exists().where(_goes_on(job_id)))
            .order_by(ImagePart.first)
            .limit(1)
            .with_for_update(skip_locked=True)
        )
        part = session.scalars(query).first()
        if part is not None:
            part.held_until, part.by_helper = now() + timedelta(seconds=seconds), by_helper
        return part


def keep_part(database: Database, part: ImagePart, made: int, seconds: float) -> bool:
    """Record how many images of a part are made, and hold it for so many seconds more; False where
    the job needs no images any more."""
    statement = (
        sa.update(ImagePart)
        .where(
            ImagePart.job_id == part.job_id,
            ImagePart.first == part.first,
            ImagePart.made <= made,  # by another process that makes it too
        )
        .values(made=made, held_until=now() + timedelta(seconds=seconds))
    )
    with database.session() as session:
        count_rows(session, statement)
        return bool(session.scalar(sa.select(sa.exists().where(_goes_on(part.job_id)))))


def give_up_part(database: Database, part: ImagePart) -> None:
    """Leave the rest of a part to others, at once."""
    mine = sa.and_(ImagePart.job_id == part.job_id, ImagePart.first == part.first)
    with database.session() as session:
        session.execute(sa.update(ImagePart).where(mine).values(held_until=None))


def list_parts(database: Database, job_id: str) -> list[ImagePart]:
    query = sa.select(ImagePart).where(ImagePart.job_id == job_id).order_by(ImagePart.first)
    with database.session() as session:
        return list(session.scalars(query))


def num_made(database: Database, job_id: str) -> int:
    query = sa.select(sa.func.sum(ImagePart.made)).where(ImagePart.job_id == job_id)
    with database.session() as session:
        return session.scalar(query) or 0


def job_to_help(database: Database, device: str) -> str | None:
    """Return the oldest job with a part that a process on this device may take, None where there is
    none."""
    query = (
        sa.select(ImageOrder.job_id)
        .join(ImagePart, ImagePart.job_id == ImageOrder.job_id)
        .join(Job, Job.id == ImageOrder.job_id)
        .where(Job.status == "running", Job.cancel_requested.is_(False))
        .where(ImageOrder.device == device, _free())
        .order_by(ImageOrder.job_id)
        .limit(1)
    )
    with database.session() as session:
        return session.scalars(query).first()


def forget(database: Database, job_id: str) -> None:
    """Forget a job's order and parts, before its images are removed."""
    with database.session() as session:
        forget_parts(session, job_id)


def forget_parts(session: Session, job_id: str) -> None:
    for record in (ImagePart, ImageOrder):
        session.execute(sa.delete(record).where(record.job_id == job_id))


def _free() -> sa.ColumnElement[bool]:
    held = sa.and_(ImagePart.held_until.is_not(None), ImagePart.held_until >= now())
    return sa.and_(ImagePart.made < ImagePart.count, sa.not_(held))


def _goes_on(job_id: str) -> sa.ColumnElement[bool]:
    return sa.and_(
        Job.id == job_id,
        Job.status.in_(("queued", "running")),
        Job.cancel_requested.is_(False),
    )
