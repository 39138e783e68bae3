"""The outbox of webhooks: deliveries that are due, and the outcome of earlier ones.

A delivery is written in the transaction that makes its event true, so that neither exists without
the other. Senders, on as many hosts as there are, take one at a time under a lease. A delivery is
sent until its receiver accepts it, or given up. It may arrive twice, with the same id.

Secrets and the times of retries are those of Standard Webhooks 1.0
(https://www.standardwebhooks.com). The sending itself is in worker.webhooks.
"""

import base64
import binascii
import random
import secrets
import time
from collections.abc import Collection
from datetime import datetime, timedelta
from urllib.parse import urlsplit

import sqlalchemy as sa
from sqlalchemy.orm import Mapped, Session, mapped_column

from store import urls
from store.database import Database, JsonObject, Record, UtcTime, now
from store.errors import InvalidWebhook
from store.jobs.record import Job

# Seconds from a failed attempt to the next: 10 attempts in a bit more than three days.
RETRY_SECONDS = (5, 300, 1800, 7200, 18_000, 36_000, 50_400, 72_000, 86_400)
MAX_ATTEMPTS = len(RETRY_SECONDS) + 1
JITTER = 0.2  # of a delay, up or down: deliveries that failed together should spread out
MAX_RETRY_AFTER = 86_400.0  # seconds; a receiver may delay a retry, but not without end
KEEP_DAYS = 30  # of deliveries that are over

SECRET_PREFIX = "whsec_"
SECRET_BYTES = (24, 64)


class Delivery(Record):
    __tablename__ = "webhook_deliveries"

    id: Mapped[str] = mapped_column(primary_key=True)  # stays the same over all attempts
    job_id: Mapped[str]
    url: Mapped[str]
    receiver: Mapped[str]  # host and port
    secret: Mapped[str]
    event: Mapped[str]
    payload: Mapped[JsonObject]
    attempts: Mapped[int]  # begun; also the fence of the sender that holds it
    due_at: Mapped[datetime | None] = mapped_column(UtcTime)  # None: delivered or given up
    owner: Mapped[str | None]
    lease_expires_at: Mapped[datetime | None] = mapped_column(UtcTime)
    delivered_at: Mapped[datetime | None] = mapped_column(UtcTime)
    failed_at: Mapped[datetime | None] = mapped_column(UtcTime)  # given up
    last_error: Mapped[str | None]  # meant for the caller; stays when a later attempt succeeds
    created_at: Mapped[datetime] = mapped_column(UtcTime)


def enqueue(
    session: Session, *, job_id: str, url: str, secret: str, event: str, payload: JsonObject
) -> Delivery:
    """Add a delivery, to be sent as soon as the caller's transaction is committed.

    `url` and `secret` have passed their checks, `event` is like "train_job.completed", `payload`
    becomes the message's data.
    """
    at = now()
    delivery = Delivery(
        id=_new_id(),
        job_id=job_id,
        url=url,
        receiver=urlsplit(url).netloc.lower(),
        secret=secret,
        event=event,
        payload=payload,
        attempts=0,
        due_at=at,
        created_at=at,
    )
    session.add(delivery)
    return delivery


def deliveries_of(database: Database, job_id: str) -> list[Delivery]:
    """Return a job's deliveries, oldest first; they are forgotten KEEP_DAYS after their end."""
    query = sa.select(Delivery).where(Delivery.job_id == job_id).order_by(Delivery.id)
    with database.session() as session:
        return list(session.scalars(query))


# For senders --------------------------------------------------------------------------------------


def claim_due(
    database: Database, owner: str, lease_seconds: float, *, busy: Collection[str] = ()
) -> Delivery | None:
    """Claim the delivery that has been due for longest, ours to send until the lease ends.

    Skips receivers that are among the `busy`. None where no delivery is due.
    """
    at = now()
    free = sa.or_(Delivery.lease_expires_at.is_(None), Delivery.lease_expires_at < at)
    query = (
        sa.select(Delivery)
        .where(Delivery.due_at <= at, free, Delivery.receiver.not_in(busy))
        .order_by(Delivery.due_at, Delivery.id)
        .limit(1)
        .with_for_update(skip_locked=True)  # on SQLite transactions come one after the other
    )
    with database.session() as session:
        delivery = session.scalars(query).first()
        if delivery is None:
            return None
        if delivery.attempts >= MAX_ATTEMPTS:  # the last of its senders was lost
            _give_up(delivery, delivery.last_error or "every sender of it was lost")
            _raise_version_of_job(session, delivery)
            return None
        delivery.attempts += 1
        delivery.owner = owner
        delivery.lease_expires_at = at + timedelta(seconds=lease_seconds)
    return delivery


def delivered(database: Database, delivery: Delivery) -> None:
    """Record that the receiver accepted it, also where our lease ended meanwhile."""
    with database.session() as session:
        record = _pending(session, Delivery.id == delivery.id)
        if record is not None:
            record.delivered_at = now()
            record.due_at = record.owner = record.lease_expires_at = None
            _raise_version_of_job(session, record)


def failed(
    database: Database,
    delivery: Delivery,
    reason: str,
    *,
    gone: bool = False,
    retry_after: float = 0.0,
) -> None:
    """Record a failed attempt; the next one comes not before `retry_after` seconds.

    The delivery is given up after MAX_ATTEMPTS, or at once where the receiver is `gone`. Nothing
    changes where our lease ended and another sender has it.
    """
    with database.session() as session:
        mine = sa.and_(Delivery.id == delivery.id, Delivery.attempts == delivery.attempts)
        record = _pending(session, mine)
        if record is None:
            return
        _raise_version_of_job(session, record)
        if gone or record.attempts >= MAX_ATTEMPTS:
            _give_up(record, reason)
            return
        record.last_error = reason
        record.due_at = now() + timedelta(seconds=_delay(record.attempts, retry_after))
        record.owner = record.lease_expires_at = None


def forget_old(database: Database) -> None:
    """Delete deliveries that ended KEEP_DAYS ago, with their secrets."""
    over = sa.func.coalesce(Delivery.delivered_at, Delivery.failed_at)
    with database.session() as session:
        session.execute(sa.delete(Delivery).where(over < now() - timedelta(days=KEEP_DAYS)))


def _pending(session: Session, where: sa.ColumnElement[bool]) -> Delivery | None:
    query = sa.select(Delivery).where(where, Delivery.due_at.is_not(None)).with_for_update()
    return session.scalars(query).first()


def _raise_version_of_job(session: Session, delivery: Delivery) -> None:
    """Let pollers of the job see the change: its answer shows the state of its deliveries."""
    job = sa.update(Job).where(Job.id == delivery.job_id)
    session.execute(job.values(version=Job.version + 1))


def _give_up(delivery: Delivery, reason: str) -> None:
    delivery.failed_at = now()
    delivery.last_error = reason
    delivery.due_at = delivery.owner = delivery.lease_expires_at = None


def _delay(attempts: int, retry_after: float) -> float:
    jitter = random.uniform(1 - JITTER, 1 + JITTER)
    return max(jitter * RETRY_SECONDS[attempts - 1], min(retry_after, MAX_RETRY_AFTER))


# For callers --------------------------------------------------------------------------------------


def check_url(url: str) -> str:
    """Return the address itself. Raises InvalidWebhook, whose text does not show it."""
    try:
        return urls.check_url(url, "the webhook's URL")
    except ValueError as refusal:
        raise InvalidWebhook(str(refusal)) from None


def new_secret() -> str:
    return SECRET_PREFIX + base64.b64encode(secrets.token_bytes(32)).decode()


def check_secret(secret: str) -> str:
    """Return the secret itself. Raises InvalidWebhook, whose text does not show it."""
    secret_key(secret)
    return secret


def secret_key(secret: str) -> bytes:
    """Return the bytes to sign with. Raises InvalidWebhook, whose text does not show them."""
    low, high = SECRET_BYTES
    rule = f"it must be {SECRET_PREFIX!r} and {low}..{high} bytes in base64"
    if not secret.startswith(SECRET_PREFIX):
        raise InvalidWebhook(f"the webhook's secret does not begin with {SECRET_PREFIX!r}; {rule}")
    try:
        key = base64.b64decode(secret.removeprefix(SECRET_PREFIX), validate=True)
    except (binascii.Error, ValueError):
        raise InvalidWebhook(f"the webhook's secret is not base64; {rule}") from None
    if not low <= len(key) <= high:
        raise InvalidWebhook(f"the webhook's secret has {len(key)} bytes; {rule}")
    return key


def _new_id() -> str:
    """Return a new id. Ids sort by time of creation, to the microsecond, and have no '.', which
    separates the signed parts."""
    return f"msg_{time.time_ns() // 1000:013x}{secrets.token_hex(4)}"
