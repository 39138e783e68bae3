"""What the owner of a key may use: space, jobs at once, and training and images in a day.

The environment has the quotas of every owner (store.access.owners.Quotas), `diffusion keys limit`
those of one. Administrators, and services without keys, have none. A day is the last 24 hours,
counted by the hour.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields, replace
from math import ceil
from typing import Literal

import sqlalchemy as sa
from sqlalchemy.orm import Mapped, Session, mapped_column

from store.access.owners import Caller, Quotas, caller_of
from store.database import Database, Record, now
from store.errors import QuotaExceeded

Used = Literal["images", "train_seconds"]

HOUR, HOURS = 3600, 24
NAMES = {each.name.removeprefix("quota_"): each.name for each in fields(Quotas)}  # short and full
SPACE = ("datasets", "models", "pictures", "trash")  # tables with `num_bytes`


class OwnersQuotas(Record):
    """Those that an owner has instead of the environment's."""

    __tablename__ = "quotas"

    owner: Mapped[str] = mapped_column(primary_key=True)
    values: Mapped[dict[str, int]]


class Usage(Record):
    """What an owner used in an hour."""

    __tablename__ = "usage"

    owner: Mapped[str] = mapped_column(primary_key=True)
    used: Mapped[Used] = mapped_column(sa.String(16), primary_key=True)
    hour: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)  # since 1970
    amount: Mapped[float]


def set_quotas(database: Database, owner: str, values: Mapping[str, int]) -> dict[str, int]:
    """Give an owner quotas of its own beside those that it has; return all that it has."""
    with database.session() as session:
        record: OwnersQuotas | None = session.get(OwnersQuotas, owner)
        if record is None:
            record = OwnersQuotas(owner=owner, values={})
            session.add(record)
        record.values = {**record.values, **values}
        return record.values


def quotas_of(session: Session, caller: Caller) -> Quotas:
    own: OwnersQuotas | None = session.get(OwnersQuotas, caller.owner)
    values = own.values if own else {}
    return replace(caller.quotas, **{NAMES[n]: v for n, v in values.items() if n in NAMES})


def owners_quotas(database: Database, caller: Caller) -> Quotas:
    with database.session() as session:
        return quotas_of(session, caller)


def usage_of(database: Database) -> dict[str, dict[str, float]]:
    """Return what the caller uses, and its quotas, 0 for none, by their names. Empty without a
    caller."""
    caller = database.caller
    if caller is None:
        return {}
    with database.session() as session:
        quotas = asdict(quotas_of(session, caller))
        used = {
            "bytes": _bytes(session, caller.owner),
            "jobs": _jobs(session, caller.owner),
            "train_minutes": _used(session, caller.owner, "train_seconds") / 60,
            "images": _used(session, caller.owner, "images"),
        }
    return {
        name: {"used": round(amount, 2), "quota": 0 if caller.sees_all else quotas[f"quota_{name}"]}
        for name, amount in used.items()
    }


# Before something is made -------------------------------------------------------------------------


def check_space(database: Database, num_bytes: int) -> None:
    """Raise QuotaExceeded if the caller may not store so much more."""
    with database.session() as session:
        if (limited := _limited(session)) is None:
            return
        owner, quotas = limited
        stored = _bytes(session, owner)
        if quotas.quota_bytes and stored + num_bytes > quotas.quota_bytes:
            trash = _bytes(session, owner, ("trash",))
            raise QuotaExceeded(
                f"{num_bytes} bytes more would be {stored + num_bytes} in all; your quota is "
                f"{quotas.quota_bytes} bytes of datasets, models and pictures"
                + (f", of which {trash} are in the trash, which you can empty" if trash else "")
            )


def space_left(database: Database) -> int | None:
    """Return how many bytes more the caller may store, None where it has no quota of them."""
    with database.session() as session:
        limited = _limited(session)
        if limited is None or not limited[1].quota_bytes:
            return None
        return max(0, limited[1].quota_bytes - _bytes(session, limited[0]))


def check_job(session: Session, minutes: float | None) -> None:
    """Raise QuotaExceeded if the caller may not have one more job, or one that trains for so long;
    None is a job that does not train."""
    if (limited := _limited(session)) is None:
        return
    owner, quotas = limited
    jobs = _jobs(session, owner)
    if quotas.quota_jobs and jobs >= quotas.quota_jobs:
        raise QuotaExceeded(
            f"you have {jobs} jobs that are not done; your quota is {quotas.quota_jobs}"
        )
    if minutes is None or not quotas.quota_train_minutes:
        return
    used = _used(session, owner, "train_seconds") / 60
    promised = _promised_minutes(session, owner)
    wanted, quota = used + promised + minutes, quotas.quota_train_minutes
    if wanted > quota:
        raise QuotaExceeded(
            f"{minutes:g} minutes more are too many: {used:.1f} were used in the last 24 hours, "
            f"{promised:g} are promised to jobs that are not done, and your quota is "
            f"{quota} a day",
            _seconds_until(session, owner, "train_seconds", 60 * wanted, 60 * quota),
        )


def charge_images(database: Database, count: int) -> None:
    """Count images that the caller orders. Raises QuotaExceeded where they are too many."""
    if database.caller is None:
        return
    with database.session() as session:
        owner = database.caller.owner
        if (limited := _limited(session)) is not None and limited[1].quota_images:
            used, quota = _used(session, owner, "images"), limited[1].quota_images
            if used + count > quota:
                wait = _seconds_until(session, owner, "images", used + count, quota)
                raise QuotaExceeded(
                    f"{count} images more are too many: {used:.0f} were ordered in the last 24 "
                    f"hours, and your quota is {quota} a day",
                    wait,
                )
        _add(session, owner, "images", count)


# After --------------------------------------------------------------------------------------------


def charge_training(database: Database, owner: str | None, seconds: float) -> None:
    """Count the time that a job trained."""
    if owner is not None:
        with database.session() as session:
            _add(session, owner, "train_seconds", seconds)


def _limited(session: Session) -> tuple[str, Quotas] | None:
    caller = caller_of(session)
    if caller is None or caller.sees_all:
        return None
    return caller.owner, quotas_of(session, caller)


def _bytes(session: Session, owner: str, tables: Sequence[str] = SPACE) -> int:
    total = 0
    for name in tables:
        table = sa.table(name, sa.column("num_bytes"), sa.column("made_by"))
        query = sa.select(sa.func.coalesce(sa.func.sum(table.c.num_bytes), 0))
        total += int(session.scalar(query.where(table.c.made_by == owner)) or 0)
    return total


_JOBS = sa.table(
    "jobs",
    *map(sa.column, ("kind", "made_by", "finished_at")),
    sa.column("config", sa.JSON),
)


def _jobs(session: Session, owner: str) -> int:
    query = sa.select(sa.func.count()).select_from(_JOBS)
    found = session.scalar(query.where(_JOBS.c.made_by == owner, _JOBS.c.finished_at.is_(None)))
    return int(found or 0)


def _promised_minutes(session: Session, owner: str) -> float:
    query = sa.select(_JOBS.c.config).where(
        _JOBS.c.made_by == owner, _JOBS.c.finished_at.is_(None), _JOBS.c.kind == "train"
    )
    return sum(config.get("minutes") or 0.0 for config in session.scalars(query))


def _used(session: Session, owner: str, used: Used) -> float:
    query = sa.select(sa.func.coalesce(sa.func.sum(Usage.amount), 0.0)).where(
        Usage.owner == owner, Usage.used == used, Usage.hour > _hour() - HOURS
    )
    return float(session.scalar(query) or 0.0)


def _add(session: Session, owner: str, used: Used, amount: float) -> None:
    hour = _hour()
    session.execute(sa.delete(Usage).where(Usage.owner == owner, Usage.hour <= hour - HOURS))
    record: Usage | None = session.get(Usage, (owner, used, hour), with_for_update=True)
    if record is None:
        session.add(Usage(owner=owner, used=used, hour=hour, amount=amount))
    else:
        record.amount += amount


def _seconds_until(
    session: Session, owner: str, used: Used, wanted: float, quota: float
) -> float | None:
    """Return in how many seconds so much of the last 24 hours will be over that what is `wanted`
    fits; None where it never will."""
    query = sa.select(Usage.hour, Usage.amount).where(
        Usage.owner == owner, Usage.used == used, Usage.hour > _hour() - HOURS
    )
    for hour, amount in session.execute(query.order_by(Usage.hour)):
        wanted -= amount
        if wanted <= quota:
            return ceil((hour + HOURS) * HOUR - now().timestamp())
    return None


def _hour() -> int:
    return int(now().timestamp()) // HOUR
