"""Training jobs as callers see them: their state, events, checkpoints and metrics."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from app.http.records import JobState
from store.jobs.checkpoints import Checkpoint, best_of
from store.jobs.kinds import JOB_KINDS
from store.jobs.options import (
    Keep,
    Origin,
    TrainOptions,
)
from store.jobs.record import Job
from store.webhooks import Delivery


class WebhookState(BaseModel):
    url: str
    secret: str | None = Field(
        default=None, description="only in the answer that accepts the job, and never again"
    )
    delivered_at: datetime | None = Field(default=None, description="of the latest message")
    last_error: str | None = Field(default=None, description="of the latest message")

    @classmethod
    def of(
        cls, job: Job, deliveries: Sequence[Delivery], secret: str | None
    ) -> "WebhookState | None":
        if job.webhook_url is None:
            return None
        if not deliveries:
            return cls(url=job.webhook_url, secret=secret)
        latest = deliveries[-1]
        error = None if latest.delivered_at else latest.last_error
        return cls(url=job.webhook_url, delivered_at=latest.delivered_at, last_error=error)


class JobAnswer(JobState):
    kind: Literal["train", "fine_tune", "distill"]
    pause_requested: bool
    priority: int
    dataset: str
    model_name: str
    progress: dict[str, Any] = Field(
        description="step, steps, images_seen, loss, images_per_second, eta_seconds, progress 0..1"
    )
    checkpoint_step: int | None
    config: dict[str, Any] = Field(
        description="the resolved hyperparameters; `reasons` says of what was chosen, why"
    )
    keep: Keep
    keep_checkpoints: int
    resumed_from: Origin | None = Field(description="the job and the step that it goes on from")
    begins_with: str | None = Field(
        description="the model whose weights it began with, to be fine-tuned or distilled"
    )
    webhook: WebhookState | None

    @classmethod
    def of(
        cls, job: Job, deliveries: Sequence[Delivery] = (), secret: str | None = None
    ) -> "JobAnswer":
        """`secret` is shown as the webhook's."""
        options = TrainOptions.from_dict(job.options)
        kind = "fine_tune" if options.fine_tune else "train"
        if job.config["objective"] == "consistency":
            kind = "distill"
        return cls.describe(
            job,
            links=_links(job),
            keep=options.keep,
            keep_checkpoints=options.keep_checkpoints,
            resumed_from=options.resumed_from,
            kind=kind,
            begins_with=options.fine_tune.model if options.fine_tune else None,
            webhook=WebhookState.of(job, deliveries, secret),
        )


class TrainPlan(BaseModel):
    """What POST /train-jobs would make of the same request."""

    model_config = ConfigDict(protected_namespaces=())

    dataset: str
    model_name: str
    device: str | None = Field(description="that the choices are made for")
    config: dict[str, Any] = Field(
        description="the resolved hyperparameters; `reasons` says of what was chosen, why"
    )


def _links(job: Job) -> dict[str, str]:
    address = JOB_KINDS["train"].address(job.id)
    parts = ["events", "metrics", "samples", "checkpoints", "log", "tensorboard"]
    if not job.done:
        parts += ["cancel", "resume" if job.status == "paused" or job.pause_requested else "pause"]
    links = {"self": address, **{part: f"{address}/{part}" for part in parts}}
    if job.status == "succeeded":
        links["model"] = f"/models/{job.model_name}"
    return links


class CheckpointAnswer(BaseModel):
    step: int
    created_at: datetime
    num_bytes: int
    seconds: float = Field(description="of training until then")
    score: float | None = Field(
        description="the error on held-out images, geometric mean over the noise levels; less is "
        "better, null where it was not measured"
    )
    best: bool
    last: bool
    links: dict[str, str]


class CheckpointList(BaseModel):
    """The oldest first. `resume_from` takes any of them."""

    items: list[CheckpointAnswer]

    @classmethod
    def of(cls, job_id: str, checkpoints: Sequence[Checkpoint]) -> "CheckpointList":
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
                links=_checkpoint_links(job_id, checkpoint),
            )
            for checkpoint in checkpoints
        ]
        return cls(items=items)


def _checkpoint_links(job_id: str, checkpoint: Checkpoint) -> dict[str, str]:
    address = JOB_KINDS["train"].address(job_id)
    links = {"job": address}
    if checkpoint.score is not None:  # looked at, so that there are samples too
        links["samples"] = f"{address}/samples/{checkpoint.step}"
    return links


class MetricLine(BaseModel):
    step: int
    loss: float = Field(description="mean over the steps since the line before")
    learning_rate: float
    images_seen: int
    images_per_second: float
    at: float | None = Field(default=None, description="seconds since 1970")


class JobMetrics(BaseModel):
    steps: list[MetricLine]
    evaluations: list[dict[str, Any]] = Field(
        description="the denoising error on held-out images at checkpoints: per noise level, and "
        "as `score` the geometric mean over them"
    )


class SampleList(BaseModel):
    steps: list[int]
    links: list[str]
