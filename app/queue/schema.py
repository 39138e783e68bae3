"""The queue as callers see it; client.answers has the fields."""

from app.http.root_path import link
from app.jobs.waiting import reason_without_worker
from client.answers import QueueAnswer, QueuedJob
from store.database import Database
from store.jobs.kinds import JOB_KINDS, KINDS
from store.jobs.queue import Entry, Queue
from store.nodes import kinds_taken


def queue_answer(queue: Queue, visible: set[str], database: Database) -> QueueAnswer:
    """Describe the jobs that a caller may see; the others are only counted."""
    taken = kinds_taken(database)
    reasons = {kind: reason_without_worker(kind) for kind in KINDS if kind not in taken}
    entries = [*queue.running, *queue.waiting]
    return QueueAnswer(
        items=[
            _item(queue, entry, reasons.get(entry.kind)) for entry in entries if entry.id in visible
        ],
        other_running=sum(entry.id not in visible for entry in queue.running),
        other_waiting=sum(entry.id not in visible for entry in queue.waiting),
    )


def _item(queue: Queue, entry: Entry, reason: str | None) -> QueuedJob:
    place = queue.places.get(entry.id)
    kind = JOB_KINDS[entry.kind]
    return QueuedJob(
        id=entry.id,
        collection=kind.collection,
        name=entry.name,
        dataset=entry.dataset,
        owner=entry.owner,
        waits=place is not None,
        progress=entry.progress,
        position=place.position if place else None,
        starts_in_seconds=_rounded(place.starts_in) if place else None,
        seconds_left=_rounded(entry.seconds),
        waiting=reason if place else None,
        created_at=entry.created_at,
        started_at=entry.started_at,
        links={"self": link(kind.address(entry.id))},
    )


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 1)
