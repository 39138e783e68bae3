"""Data sets, models and jobs as callers see them."""

from datetime import datetime
from typing import Annotated, Any, Generic, Self, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    WithJsonSchema,
)
from pydantic_core import PydanticCustomError

from store.datasets import DatasetRecord
from store.jobs.record import Job, Status
from store.models import ModelRecord
from store.names import MAX_NAME, NAME_PATTERN, NAME_RULE, is_name

Item = TypeVar("Item")


def _checked_name(name: str) -> str:
    if not is_name(name):
        raise PydanticCustomError("name", NAME_RULE)
    return name


Name = Annotated[
    str,
    AfterValidator(_checked_name),
    WithJsonSchema(
        {"type": "string", "pattern": NAME_PATTERN, "maxLength": MAX_NAME, "examples": ["digits"]}
    ),
]


class Page(BaseModel, Generic[Item]):
    """Newest first; the last item's name or id is the next page's `after`."""

    items: list[Item]
    has_more: bool


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

    @classmethod
    def of(cls, record: DatasetRecord) -> "DatasetAnswer":
        address = f"/datasets/{record.name}"
        return cls.model_validate(
            {
                **{name: getattr(record, name) for name in cls.model_fields if name != "links"},
                "links": {"self": address, "preview": f"{address}/preview"},
            }
        )


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

    @classmethod
    def of(cls, record: ModelRecord) -> "ModelAnswer":
        address = f"/models/{record.name}"
        return cls.model_validate(
            {
                **{name: getattr(record, name) for name in cls.model_fields if name != "links"},
                "links": {"self": address, "download": f"{address}/download"},
            }
        )


class JobError(BaseModel):
    code: str
    message: str | None


class JobState(BaseModel):
    """What jobs of all kinds have."""

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

    @classmethod
    def describe(cls, job: Job, **derived: Any) -> Self:
        """From the record, but for what is `derived`."""
        error = {"code": job.error_code, "message": job.error_message} if job.error_code else None
        derived = {"error": error, **derived}
        plain = {name: getattr(job, name) for name in cls.model_fields if name not in derived}
        return cls.model_validate({**plain, **derived})
