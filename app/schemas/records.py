"""Data sets, models and jobs as callers see them."""

from datetime import datetime
from typing import Annotated, Any, Generic, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field

from models.noise import MAX_SEED
from models.prediction import PredictionType
from models.recipe import Preset
from models.schedule import ScheduleName
from store.datasets import DatasetRecord
from store.jobs import Job, Status
from store.models import ModelRecord
from store.names import NAME_PATTERN

Name = Annotated[str, Field(pattern=NAME_PATTERN, examples=["digits"])]
Item = TypeVar("Item")


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


class NetOptions(BaseModel):
    """Parts of the U-Net to override, named as in diffusers' UNet2DModel."""

    model_config = ConfigDict(extra="forbid")

    block_out_channels: list[int] | None = None
    layers_per_block: int | None = None
    down_block_types: list[str] | None = None
    up_block_types: list[str] | None = None
    attention_head_dim: int | None = None
    norm_num_groups: int | None = None
    dropout: float | None = None


class ScheduleOptions(BaseModel):
    model_config = ConfigDict(extra="forbid")

    name: ScheduleName = "linear"
    num_train_timesteps: int | None = None
    beta_start: float | None = None
    beta_end: float | None = None
    rescale_zero_terminal_snr: bool | None = None
    sigma_min: float | None = None
    sigma_max: float | None = None
    rho: float | None = None


class TrainRequest(BaseModel):
    """Two fields are enough: `dataset`, and `minutes` or `steps`; whichever ends first. What is
    left out is chosen from the data."""

    model_config = ConfigDict(extra="forbid", protected_namespaces=())

    dataset: Name
    model_name: Name | None = Field(default=None, description="by default from the dataset's name")
    preset: Preset = "ddpm"
    steps: int | None = Field(default=None, ge=1, le=10**8)
    minutes: float | None = Field(default=None, ge=0.01, le=43200)
    image_size: int | tuple[int, int] | None = Field(
        default=None, description="side, or [height, width], 8..256"
    )
    class_conditional: bool | None = Field(
        default=None, description="by default, where the dataset has classes"
    )
    batch_size: int | None = None
    learning_rate: float | None = None
    seed: int = Field(default=0, ge=0, le=MAX_SEED)
    checkpoint_every: int | None = None
    prediction_type: PredictionType | None = None
    horizontal_flip: bool | None = None
    net: NetOptions | None = None
    schedule: ScheduleOptions | None = None


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
    attempts: int = Field(description="in a row that ended without a new checkpoint")
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


class JobAnswer(JobState):
    dataset: str
    model_name: str
    progress: dict[str, Any] = Field(
        description="step, steps, images_seen, loss, images_per_second, eta_seconds, progress 0..1"
    )
    checkpoint_step: int | None
    config: dict[str, Any] = Field(description="the resolved hyperparameters")

    @classmethod
    def of(cls, job: Job) -> "JobAnswer":
        address = f"/train-jobs/{job.id}"
        links = {
            "self": address,
            "cancel": f"{address}/cancel",
            "metrics": f"{address}/metrics",
            "samples": f"{address}/samples",
        }
        if job.status == "succeeded":
            links["model"] = f"/models/{job.model_name}"
        return cls.describe(job, links=links)


class MetricLine(BaseModel):
    step: int
    loss: float = Field(description="mean over the steps since the line before")
    learning_rate: float
    images_seen: int
    images_per_second: float


class JobMetrics(BaseModel):
    steps: list[MetricLine]
    evaluations: list[dict[str, Any]] = Field(
        description="the denoising error on held-out images, per noise level, at checkpoints"
    )


class SampleList(BaseModel):
    steps: list[int]
    links: list[str]
