"""What is done twice is done once: the requests that carry an Idempotency-Key, and their answers.

The record is written before the work begins. What the work makes is noted in the transaction that
makes it, so that a repeat does not make it again even if the process died before it could answer.
Records are kept for a day.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

import sqlalchemy as sa
from sqlalchemy.orm import Mapped, Session, UOWTransaction, mapped_column

from store.access.keys import Key
from store.access.owners import CallersSession
from store.database import Database, Record, UtcTime, now
from store.datasets import DatasetVersion
from store.errors import AlreadyMade, AlreadyRunning, OtherRequest
from store.jobs.kinds import JOB_KINDS
from store.jobs.record import Job
from store.nodes import is_alive

KEPT = timedelta(hours=24)


class Idempotent(Record):
    __tablename__ = "idempotency"

    owner: Mapped[str] = mapped_column(primary_key=True)  # of the key; empty without one
    key: Mapped[str] = mapped_column(primary_key=True)
    digest: Mapped[str]  # sha256 of the request
    node: Mapped[str]  # the process that works on it
    created_at: Mapped[datetime] = mapped_column(UtcTime)
    made: Mapped[str | None]  # the address of what it made
    status: Mapped[int | None]  # of the answer, once there is one
    headers: Mapped[list[list[str]] | None] = mapped_column(sa.JSON)
    body: Mapped[bytes | None]


@dataclass(frozen=True)
class Claim:
    """A request with an Idempotency-Key. `digest` tells it from others with the same key."""

    owner: str
    key: str
    digest: str

    @classmethod
    def of(cls, owner: str | None, key: str, *request: bytes) -> "Claim":
        """Return the claim of a request, of which `request` are the parts that must not differ."""
        digest = hashlib.sha256()
        for part in request:
            digest.update(len(part).to_bytes(8, "big") + part)
        return cls(owner or "", key, digest.hexdigest())


def begin(database: Database, claim: Claim, node: str, is_mine: bool) -> Idempotent | None:
    """Begin a request, or return the record of its first time with the answer.

    `is_mine` says whether this process, `node`, still works on it. Raises OtherRequest,
    AlreadyRunning, and AlreadyMade where the answer of the first time was lost.
    """
    at = now()
    with database.session(names=True) as session:
        session.execute(sa.delete(Idempotent).where(Idempotent.created_at < at - KEPT))
        record = _record(session, claim)
        if record is None:
            session.add(
                Idempotent(
                    owner=claim.owner,
                    key=claim.key,
                    digest=claim.digest,
                    node=node,
                    created_at=at,
                )
            )
            return None
        if record.digest != claim.digest:
            raise OtherRequest(claim.key)
        if record.status is not None:
            return record
        if is_mine or (record.node != node and is_alive(session, record.node)):
            raise AlreadyRunning(claim.key)
        if record.made is not None:
            raise AlreadyMade(claim.key, record.made)
        record.node = node
        return None


def keep_answer(
    database: Database,
    claim: Claim,
    status: int,
    headers: Sequence[tuple[str, str]],
    body: bytes,
) -> None:
    with database.session() as session:
        if (record := _record(session, claim)) is not None:
            record.status, record.headers, record.body = status, [*map(list, headers)], body


def forget(database: Database, claim: Claim) -> None:
    """Forget a request that made nothing, so that it can be tried again."""
    with database.session() as session:
        record = _record(session, claim)
        if record is not None and record.made is None:
            session.delete(record)


@sa.event.listens_for(CallersSession, "after_flush")
def _note_what_was_made(session: Session, _: UOWTransaction) -> None:
    claim: Claim | None = session.info.get("claim")
    if claim is None:
        return
    mine = sa.and_(Idempotent.owner == claim.owner, Idempotent.key == claim.key)
    for record in session.new:
        if (address := _address(record)) is not None:
            session.connection().execute(sa.update(Idempotent).where(mine).values(made=address))


def _address(record: object) -> str | None:
    match record:
        case Job():
            return JOB_KINDS[record.kind].address(record.id)
        case DatasetVersion():
            return f"/datasets/{record.dataset}?version={record.number}"
        case Key():
            return f"/keys/{record.id}"
        case _:
            return None


def _record(session: Session, claim: Claim) -> Idempotent | None:
    found: Idempotent | None = session.get(Idempotent, (claim.owner, claim.key))
    return found
