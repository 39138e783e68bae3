"""A job as it lasts.

    queued -> running -> succeeded | failed | cancelled
    queued, running -> paused -> queued

Who works on it holds it by a fence and a lease (store.jobs.claims); who asks for it asks
store.jobs.requests. A job of kind "train" makes a model from a data set, one of kind "sample"
images from a model, and one of kind "evaluate" says how good a model is.
"""

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

import sqlalchemy as sa
from sqlalchemy.orm import Mapped, mapped_column

from store.database import Record, UtcTime
from store.jobs.kinds import Kind

Status = Literal["queued", "running", "paused", "succeeded", "failed", "cancelled"]
DONE: tuple[Status, ...] = ("succeeded", "failed", "cancelled")

PRIORITIES = (0, 9)
DEFAULT_PRIORITY = 5


@dataclass(frozen=True)
class Webhook:
    """Who is told when the job is done, fails, or waits."""

    url: str
    secret: str


class Job(Record):
    __tablename__ = "jobs"

    id: Mapped[str] = mapped_column(primary_key=True)
    kind: Mapped[Kind] = mapped_column(sa.String(16))
    status: Mapped[str]
    dataset: Mapped[str | None]  # of "train"
    model_name: Mapped[str]  # to be made, or to be sampled from
    config: Mapped[dict[str, Any]]  # what the result is a function of
    options: Mapped[dict[str, Any]]  # of "train": what to begin with, what to keep
    device: Mapped[str | None]  # of "train": what its config was chosen for
    priority: Mapped[int]  # the higher the sooner
    progress: Mapped[dict[str, Any]]
    error_code: Mapped[str | None]
    error_message: Mapped[str | None]
    fence: Mapped[int]
    attempts: Mapped[int]
    owner: Mapped[str | None]
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

    @property
    def done(self) -> bool:
        return self.status in DONE
