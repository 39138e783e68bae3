"""The caller's side of jobs: create, list, pause, resume, cancel, delete.

The record (store.jobs.record) is the truth; the worker's side of it is store.jobs.claims. Each
change of state writes its event and its webhook in the same transaction (store.jobs.transitions).
"""

import secrets
import time
from collections.abc import Mapping
from itertools import count
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

from host.tracing import span, traceparent
from store.access.owners import caller_of, new_name
from store.access.quotas import check_job
from store.database import Database, now
from store.datasets import DatasetRecord, version_in
from store.errors import DatasetNotFound, IllegalTransition, JobNotFound, ModelConflict
from store.jobs import transitions
from store.jobs.checkpoints import Checkpoint
from store.jobs.events import JobEvent
from store.jobs.kinds import JOB_KINDS, Kind
from store.jobs.parts import forget_parts
from store.jobs.record import DEFAULT_PRIORITY, DONE, Job, Webhook
from store.models import ModelRecord
from store.names import OWNER_SEPARATOR
from store.upkeep.trash import TrashEntry, throw_away

MODEL_MAKERS = [row.name for row in JOB_KINDS.values() if row.makes_model]
MAX_STEM = 50  # characters of a name that a number follows


def create_job(
    database: Database,
    kind: Kind,
    *,
    config: Mapping[str, Any],
    model_name: str | None = None,
    dataset: str | None = None,
    version: int | None = None,
    options: Mapping[str, Any] | None = None,
    device: str | None = None,
    priority: int = DEFAULT_PRIORITY,
    webhook: Webhook | None = None,
    checkpoint: Checkpoint | None = None,
) -> Job:
    """Create a queued job, which begins with `checkpoint` where one is given (it names the job's
    id), and which names a version of its dataset: this one, or the newest.

    A job of a kind that makes a model takes the name of that model: `model_name`, or as
    free_model_name says. Raises DatasetNotFound, VersionNotFound, or ModelConflict where a model of
    that name exists or another job is about to make it, and QuotaExceeded.

    For other kinds the job reads `model_name` and `dataset`. Nothing protects these: the job fails
    where they are deleted before it starts.
    """
    job = _new_job(kind, config, model_name, dataset)
    job.options, job.device, job.priority = dict(options or {}), device, priority
    if webhook:
        job.webhook_url, job.webhook_secret = webhook.url, webhook.secret
    if checkpoint:
        job.id = checkpoint.job_id
        job.checkpoint_key, job.checkpoint_step = checkpoint.key, checkpoint.step
    makes_model = JOB_KINDS[kind].makes_model
    if makes_model and model_name is not None:
        model_name = new_name(database.caller, "model_name", model_name)
    with (
        span(f"queue {kind}", {"diffusion.job": job.id}, kind="producer"),
        database.session(names=makes_model) as session,
    ):
        job.traceparent = traceparent()
        check_job(session, _minutes(kind, config))
        if makes_model:
            job.model_name = _name_to_make(session, model_name, dataset)
        if dataset is not None:
            _name_version(session, job, dataset, version)
        session.add(job)
        if checkpoint:
            session.add(checkpoint)
        session.flush()
        transitions.record_event(session, job.id, "queued", step=job.checkpoint_step or 0)
    return job


def _minutes(kind: Kind, config: Mapping[str, Any]) -> float | None:
    """Return for how long a job may train; None if it does not, or is limited by steps alone."""
    minutes: float | None = config.get("minutes") if kind == "train" else None
    return minutes


def _name_to_make(session: Session, model_name: str | None, dataset: str | None) -> str:
    """Return the name of the model that a new job will make. Raises as create_job."""
    if dataset is None or session.get(DatasetRecord, dataset) is None:
        raise DatasetNotFound(dataset or "")
    if model_name is None:
        return _free_model_name(session, dataset)
    if session.get(ModelRecord, model_name) is not None:
        raise ModelConflict(f"there is a model {model_name!r} already")
    if rival := _unfinished_job_for(session, model_name):
        raise ModelConflict(f"job {rival!r} is about to make a model {model_name!r}")
    return model_name


def _name_version(session: Session, job: Job, dataset: str, version: int | None) -> None:
    """Let the job read a version of its dataset, if that exists. Raises VersionNotFound."""
    record: DatasetRecord | None = session.get(DatasetRecord, dataset)
    if record is not None:
        job.dataset = record.name
        read = version_in(session, record.name, version or record.version)
        job.dataset_version, job.dataset_digest = read.number, read.digest


def get_job(database: Database, job_id: str, kind: Kind | None = None) -> Job:
    """Return a job. Raises JobNotFound, also where it is of another kind."""
    with database.session() as session:
        job = session.get(Job, job_id)
    if job is None or kind not in (None, job.kind):
        raise JobNotFound(job_id)
    return job


def traceparent_of(database: Database, job_id: str) -> str | None:
    """Return the span in which a job was created, None where there is none, or no such job."""
    with database.session() as session:
        return session.scalar(sa.select(Job.traceparent).where(Job.id == job_id))


def version_of(database: Database, job_id: str) -> int:
    """Return the job's version, which rises with every change. Raises JobNotFound."""
    with database.session() as session:
        version = session.scalar(sa.select(Job.version).where(Job.id == job_id))
    if version is None:
        raise JobNotFound(job_id)
    return version


def list_jobs(
    database: Database,
    kind: Kind,
    *,
    limit: int,
    after: str | None = None,
    status: str | None = None,
    tag: str | None = None,
) -> tuple[list[Job], bool]:
    """Return jobs, newest first, that follow the job `after` in that order, and whether there are
    more. Raises JobNotFound where there is no job `after`."""
    query = sa.select(Job).where(Job.kind == kind).order_by(Job.id.desc()).limit(limit + 1)
    if after is not None:
        query = query.where(Job.id < get_job(database, after, kind).id)
    if status is not None:
        query = query.where(Job.status == status)
    if tag is not None:
        query = query.where(_has_tag(database, tag))
    with database.session() as session:
        jobs = list(session.scalars(query))
    return jobs[:limit], len(jobs) > limit


def _has_tag(database: Database, tag: str) -> sa.ColumnElement[bool]:
    if "\0" in tag:  # which PostgreSQL refuses to look for
        return sa.false()
    elements = "json_each" if database.engine.dialect.name == "sqlite" else _ELEMENTS
    found = getattr(sa.func, elements)(Job.tags).table_valued("value")
    return sa.exists().select_from(found).where(found.c.value == tag)


_ELEMENTS = "json_array_elements_text"  # PostgreSQL's, of the column `value`


def newest_trainings(database: Database, device: str, *, limit: int) -> list[Job]:
    """Return trainings on this device that have succeeded, the newest first."""
    query = (
        sa.select(Job)
        .where(Job.kind == "train", Job.status == "succeeded", Job.device == device)
        .order_by(Job.id.desc())
        .limit(limit)
    )
    with database.session() as session:
        return list(session.scalars(query))


def unfinished_jobs(database: Database) -> set[str]:
    """Return the ids of the jobs that run or wait for a worker."""
    query = sa.select(Job.id).where(Job.status.in_(("queued", "running")))
    with database.session() as session:
        return set(session.scalars(query))


def count_jobs(database: Database) -> dict[tuple[str, str], int]:
    """Return the number of jobs by (kind, status)."""
    query = sa.select(Job.kind, Job.status, sa.func.count()).group_by(Job.kind, Job.status)
    with database.session() as session:
        return {(kind, status): count for kind, status, count in session.execute(query)}


def request_cancel(database: Database, job_id: str, kind: Kind | None = None) -> Job:
    """Cancel a job: a waiting one at once, a running one soon.

    Raises JobNotFound, and IllegalTransition if it is done.
    """
    with database.session() as session:
        job = _lock_job(session, job_id, kind)
        if job.status in ("queued", "paused"):
            transitions.cancel(session, Job.id == job_id, job_id)
        elif job.status == "running":
            transitions.update(session, Job.id == job_id, cancel_requested=True)
        else:
            raise IllegalTransition(job_id, job.status, "cancelled")
        session.refresh(job)
    return job


def request_pause(database: Database, job_id: str, kind: Kind) -> Job:
    """Pause a job: a queued one at once, a running one as soon as it has written a checkpoint.

    Raises JobNotFound and IllegalTransition.
    """
    with database.session() as session:
        job = _lock_job(session, job_id, kind)
        if job.status == "queued":
            transitions.pause(session, job)
        elif job.status == "running" and not job.cancel_requested:
            transitions.update(session, Job.id == job_id, pause_requested=True)
        else:
            status = "being cancelled" if job.cancel_requested and not job.done else job.status
            raise IllegalTransition(job_id, status, "paused")
        session.refresh(job)
    return job


def resume(database: Database, job_id: str, kind: Kind) -> Job:
    """Queue a paused job again, or take back a pause that is not carried out yet.

    Raises JobNotFound and IllegalTransition.
    """
    with database.session() as session:
        job = _lock_job(session, job_id, kind)
        if job.status == "paused":
            transitions.update(session, Job.id == job_id, status="queued", queued_at=now())
            transitions.record_event(session, job_id, "queued", step=job.checkpoint_step or 0)
        elif job.status == "running" and job.pause_requested:
            transitions.update(session, Job.id == job_id, pause_requested=False)
        else:
            raise IllegalTransition(job_id, job.status, "resumed")
        session.refresh(job)
    return job


def annotate(database: Database, job_id: str, kind: Kind, **values: Any) -> Job:
    """Change the `tags` or the `notes` of a job in any state. Only these columns are written, so
    that nothing is lost of what its worker writes meanwhile. Raises JobNotFound."""
    with database.session() as session:
        job = _lock_job(session, job_id, kind)
        if values:
            transitions.update(session, Job.id == job_id, **values)
            session.refresh(job)
    return job


def delete_job(database: Database, job_id: str, kind: Kind) -> TrashEntry:
    """Move a job that is done to the trash. Raises JobNotFound and IllegalTransition."""
    with database.session() as session:
        job = _lock_job(session, job_id, kind)
        if not job.done:
            raise IllegalTransition(job_id, job.status, "deleted")
        rows = {
            Job: Job.id == job_id,
            JobEvent: JobEvent.job_id == job_id,
            Checkpoint: Checkpoint.job_id == job_id,
        }
        collection = JOB_KINDS[kind].collection
        forget_parts(session, job_id)
        return throw_away(session, collection, job_id, job, rows, [f"jobs/{job_id}"])


def _lock_job(session: Session, job_id: str, kind: Kind | None) -> Job:
    job: Job | None = session.get(Job, job_id, with_for_update=True)
    if job is None or kind not in (None, job.kind):
        raise JobNotFound(job_id)
    return job


def _unfinished_job_for(session: Session, model_name: str) -> str | None:
    return session.scalars(
        sa.select(Job.id).where(_will_make_a_model(), Job.model_name == model_name)
    ).first()


def _will_make_a_model() -> sa.ColumnElement[bool]:
    return sa.and_(Job.kind.in_(MODEL_MAKERS), Job.status.not_in(DONE))


def _new_job(
    kind: Kind, config: Mapping[str, Any], model_name: str | None, dataset: str | None
) -> Job:
    at = now()
    return Job(
        id=new_job_id(),
        kind=kind,
        status="queued",
        dataset=dataset,
        model_name=model_name or "",
        config=dict(config),
        options={},
        priority=DEFAULT_PRIORITY,
        tags=[],
        notes="",
        progress={},
        fence=0,
        attempts=0,
        cancel_requested=False,
        pause_requested=False,
        created_at=at,
        queued_at=at,
        updated_at=at,
        version=1,
    )


def new_job_id() -> str:
    """Return a new id; ids sort by time of creation, to the microsecond."""
    return f"job_{time.time_ns() // 1000:013x}{secrets.token_hex(4)}"


def model_names(database: Database) -> set[str]:
    """Return the names that are taken, by models or by jobs that may still make one."""
    with database.session() as session:
        return _model_names(session)


def free_model_name(database: Database, dataset: str) -> str:
    """Return the dataset's name with the first number that is free: digits-1, digits-2, ..."""
    with database.session() as session:
        return _free_model_name(session, dataset)


def _model_names(session: Session) -> set[str]:
    wanted = session.scalars(sa.select(Job.model_name).where(_will_make_a_model()))
    made = session.scalars(sa.select(ModelRecord.name))
    return {*wanted, *made}


def _free_model_name(session: Session, dataset: str) -> str:
    taken = _model_names(session)
    stem = dataset.rpartition(OWNER_SEPARATOR)[2][:MAX_STEM]
    names = (new_name(caller_of(session), "model", f"{stem}-{number}") for number in count(1))
    return next(name for name in names if name not in taken)
