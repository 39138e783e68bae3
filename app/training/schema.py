"""Training jobs as callers see them; client.answers has the fields."""

from collections.abc import Sequence

from pydantic import BaseModel

from app.http.root_path import link
from app.jobs.schema import described
from client.answers import CheckpointAnswer, CheckpointList, JobAnswer, WebhookState
from store.database import Database
from store.jobs.checkpoints import Checkpoint, best_of
from store.jobs.kinds import JOB_KINDS
from store.jobs.options import TrainOptions
from store.jobs.record import Job
from store.webhooks import Delivery


def job_answer(
    database: Database, job: Job, deliveries: Sequence[Delivery] = (), secret: str | None = None
) -> JobAnswer:
    """Describe a job; `secret` is shown as its webhook's."""
    options = TrainOptions.from_dict(job.options)
    origin = options.resumed_from
    return described(
        JobAnswer,
        database,
        job,
        links=_links(job),
        keep=options.keep,
        keep_checkpoints=options.keep_checkpoints,
        resumed_from={"job": origin.job, "step": origin.step} if origin else None,
        kind=_kind(job, options),
        begins_with=options.fine_tune.model if options.fine_tune else None,
        warnings=list(options.warnings),
        webhook=_webhook_state(job, deliveries, secret),
    )


def _kind(job: Job, options: TrainOptions) -> str:
    if job.config["objective"] == "consistency":
        return "distill"
    return "fine_tune" if options.fine_tune else "train"


def _webhook_state(
    job: Job, deliveries: Sequence[Delivery], secret: str | None
) -> WebhookState | None:
    if job.webhook_url is None:
        return None
    if not deliveries:
        return WebhookState(url=job.webhook_url, secret=secret)
    latest = deliveries[-1]
    return WebhookState(
        url=job.webhook_url,
        delivered_at=latest.delivered_at,
        last_error=None if latest.delivered_at else latest.last_error,
    )


def _links(job: Job) -> dict[str, str]:
    address = link(JOB_KINDS["train"].address(job.id))
    parts = ["events", "metrics", "samples", "checkpoints", "log", "tensorboard"]
    if not job.done:
        parts += ["cancel", "resume" if job.status == "paused" or job.pause_requested else "pause"]
    links = {"self": address, **{part: f"{address}/{part}" for part in parts}}
    if job.status == "succeeded":
        links["model"] = link(f"/models/{job.model_name}")
    return links


def checkpoint_list(job_id: str, checkpoints: Sequence[Checkpoint]) -> CheckpointList:
    best = best_of(checkpoints)
    items = [
        CheckpointAnswer(
            step=checkpoint.step,
            created_at=checkpoint.created_at,
            num_bytes=checkpoint.num_bytes,
            seconds=checkpoint.seconds,
            score=checkpoint.score,
            best=checkpoint is best,
            last=checkpoint is checkpoints[-1],
            damage=checkpoint.damage,
            links=_checkpoint_links(job_id, checkpoint),
        )
        for checkpoint in checkpoints
    ]
    return CheckpointList(items=items)


def _checkpoint_links(job_id: str, checkpoint: Checkpoint) -> dict[str, str]:
    address = link(JOB_KINDS["train"].address(job_id))
    links = {"job": address}
    if checkpoint.score is not None:  # it was measured, so that there are samples too
        links["samples"] = f"{address}/samples/{checkpoint.step}"
    return links


class SampleList(BaseModel):
    steps: list[int]
    links: list[str]
