"""Why jobs wait: no live worker, on any host, takes their kind."""

from collections.abc import Iterable

from store.database import Database
from store.jobs.kinds import JOB_KINDS, KINDS, Kind
from store.jobs.record import Job
from store.nodes import kinds_taken


def reason_to_wait(database: Database, kinds: Iterable[Kind] = KINDS) -> str | None:
    """Return a sentence on those of the kinds that no live worker takes, None if there are none."""
    taken = kinds_taken(database)
    left = [JOB_KINDS[kind].collection for kind in kinds if kind not in taken]
    return _without_worker(left) if left else None


def reason_without_worker(kind: Kind) -> str:
    """Return the sentence on jobs of a kind that no live worker takes."""
    return _without_worker([JOB_KINDS[kind].collection])


def _without_worker(collections: list[str]) -> str:
    return f"no live worker takes {' or '.join(collections)}: such jobs wait for one"


def waiting_reason(database: Database, job: Job) -> str | None:
    """Return why the job cannot start; None where it can, and where it does not wait."""
    return reason_to_wait(database, [job.kind]) if job.status == "queued" else None
