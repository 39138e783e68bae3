"""The record of a job.

    queued -> running -> succeeded | failed | cancelled
    queued, running -> paused -> queued

A worker holds a job by a fence and a lease (store.jobs.claims); callers go through
store.jobs.requests. A job of kind "train" makes a model from a dataset, one of kind "sample" makes
images from a model, one of kind "evaluate" measures how good a model is, and one of kind "import"
fetches a dataset.
"""

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

import sqlalchemy as sa
from sqlalchemy.orm import Mapped, mapped_column

from store.access.owners import Owned
from store.database import JsonObject, Record, UtcTime
from store.jobs.kinds import Kind

Status = Literal["queued", "running", "paused", "succeeded", "failed", "cancelled"]
DONE: tuple[Status, ...] = ("succeeded", "failed", "cancelled")

PRIORITIES = (0, 9)
DEFAULT_PRIORITY = 5


@dataclass(frozen=True)
class Webhook:
    """The receiver of messages about a job that is done, fails, or is paused."""

    url: str
    secret: str


class Job(Owned, Record):
    __tablename__ = "jobs"

    id: Mapped[str] = mapped_column(primary_key=True)
    kind: Mapped[Kind] = mapped_column(sa.String(16))
    status: Mapped[str]
    dataset: Mapped[str | None]  # that it reads
    dataset_version: Mapped[int | None]
    dataset_digest: Mapped[str | None]  # of that version
    model_name: Mapped[str]  # of the model that it makes or reads
    config: Mapped[JsonObject]  # decides the result: store.jobs.configs, or a TrainConfig
    options: Mapped[JsonObject]  # of "train": store.jobs.options
    device: Mapped[str | None]  # of "train": the device that its config was chosen for
    priority: Mapped[int]  # jobs of higher priority come first
    tags: Mapped[list[Any]]  # texts by which its owner finds it again
    notes: Mapped[str] = mapped_column(sa.Text)
    progress: Mapped[JsonObject]  # store.jobs.progress; empty before there is any
    error_code: Mapped[str | None]
    error_message: Mapped[str | None]
    fence: Mapped[int]
    attempts: Mapped[int]
    owner: Mapped[str | None]  # the worker that holds it
    lease_expires_at: Mapped[datetime | None] = mapped_column(UtcTime)
    cancel_requested: Mapped[bool]
    pause_requested: Mapped[bool]
    checkpoint_key: Mapped[str | None]
    checkpoint_step: Mapped[int | None]
    created_at: Mapped[datetime] = mapped_column(UtcTime)
    queued_at: Mapped[datetime] = mapped_column(UtcTime)  # or last announced to the workers
    started_at: Mapped[datetime | None] = mapped_column(UtcTime)
    finished_at: Mapped[datetime | None] = mapped_column(UtcTime)
    updated_at: Mapped[datetime] = mapped_column(UtcTime)
    version: Mapped[int]  # rises with every change
    webhook_url: Mapped[str | None]
    webhook_secret: Mapped[str | None]
    traceparent: Mapped[str | None]  # of the span in which it was created (host.tracing)

    @property
    def done(self) -> bool:
        return self.status in DONE
