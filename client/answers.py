"""The answers of the service that the client reads.

The service describes its own answers by these classes too, so that each field has one
home. They need pydantic alone.
"""

from datetime import datetime
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

Status = Literal["queued", "running", "paused", "succeeded", "failed", "cancelled"]


# Datasets and models ------------------------------------------------------------------------------


class Size(BaseModel):
    height: int
    width: int
    count: int


class Rejected(BaseModel):
    name: str
    reason: str


class DatasetAnswer(BaseModel):
    name: str
    digest: str = Field(description="sha256 of the archive")
    num_bytes: int
    num_images: int
    channels: int = Field(description="1 for greyscale, 3 for RGB")
    classes: dict[str, int] = Field(description="images per class; empty where there are none")
    sizes: list[Size] = Field(description="the most common, most frequent first")
    num_rejected: int
    rejected: list[Rejected] = Field(description="the first of them, with the reason")
    created_at: datetime
    links: dict[str, str]


class ModelAnswer(BaseModel):
    model_config = ConfigDict(protected_namespaces=())

    name: str
    digest: str = Field(description="sha256 of the weights")
    num_bytes: int
    details: dict[str, Any] = Field(description="image_size, channels, class_names, schedule, ...")
    dataset: str | None
    job_id: str | None
    created_at: datetime
    links: dict[str, str]


# Jobs ---------------------------------------------------------------------------------------------


class JobError(BaseModel):
    code: str
    message: str | None


class JobState(BaseModel):
    """The fields that jobs of all kinds have."""

    model_config = ConfigDict(protected_namespaces=())

    id: str
    status: Status
    done: bool = Field(description="succeeded, failed or cancelled")
    cancel_requested: bool
    attempts: int = Field(description="begun since the last checkpoint; after 5 the job fails")
    error: JobError | None
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    updated_at: datetime
    links: dict[str, str]


class WebhookState(BaseModel):
    url: str
    secret: str | None = Field(
        default=None, description="only in the answer that accepts the job, and never again"
    )
    delivered_at: datetime | None = Field(default=None, description="of the latest message")
    last_error: str | None = Field(default=None, description="of the latest message")


class Origin(BaseModel):
    """The checkpoint of an earlier job that this one goes on from."""

    job: str
    step: int


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
    keep: Literal["last", "best"]
    keep_checkpoints: int
    resumed_from: Origin | None = Field(description="the job and the step that it goes on from")
    begins_with: str | None = Field(
        description="the model whose weights it began with, to be fine-tuned or distilled"
    )
    webhook: WebhookState | None


class TrainPlan(BaseModel):
    """The job that POST /train-jobs would make of the same request."""

    model_config = ConfigDict(protected_namespaces=())

    dataset: str
    model_name: str
    device: str | None = Field(description="that the choices are made for")
    config: dict[str, Any] = Field(
        description="the resolved hyperparameters; `reasons` says of what was chosen, why"
    )


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
