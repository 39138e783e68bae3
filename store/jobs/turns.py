"""Whose turn it is: the rule by which owners share the workers.

Claims follow it (store.jobs.claims), and the queue plays it forward (store.jobs.queue).
"""

from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, datetime, timedelta

import sqlalchemy as sa
from sqlalchemy.orm import Session

from store.database import now
from store.jobs.kinds import Kind
from store.jobs.record import Job

TURNS = timedelta(days=1)  # for which it counts when an owner's last job was started

Owner = str | None
Use = tuple[int, datetime]  # how many jobs run, and when the last one was started
UNUSED: Use = (0, datetime.min.replace(tzinfo=UTC))


def next_owner(owners: Sequence[Owner], used: Mapping[Owner, Use]) -> Owner:
    """Return who is next among the owners of waiting jobs, which are given by the age of their
    oldest: who has the fewest jobs running; of these, whose last one was started longest ago; of
    these, whose job has waited longest."""
    return min(owners, key=lambda owner: used.get(owner, UNUSED))


def used_by(session: Session, kinds: Collection[Kind]) -> dict[Kind, dict[Owner, Use]]:
    """Return what each owner uses of the workers, by kind of job: as far back as a day."""
    running = sa.and_(Job.status == "running", Job.lease_expires_at >= now())
    started = sa.func.max(Job.started_at)
    query = (
        sa.select(Job.kind, Job.made_by, sa.func.count(sa.case((running, 1))), started)
        .where(Job.kind.in_(kinds), sa.or_(running, Job.started_at > now() - TURNS))
        .group_by(Job.kind, Job.made_by)
    )
    found: dict[Kind, dict[Owner, Use]] = {kind: {} for kind in kinds}
    for kind, owner, count, at in session.execute(query):
        found[kind][owner] = (count, at or UNUSED[1])
    return found
