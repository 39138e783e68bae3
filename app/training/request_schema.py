"""The body of POST /train-jobs.

Hyperparameters are declared in models.training.config and in the configs nested there; the request
has the same names, bounds and sentences. Written here are the fields that a config does not have.
"""

from typing import Annotated

from pydantic import BeforeValidator, ConfigDict, Field

from app.http.body import JsonBody
from app.http.derived import LABEL, with_fields_of
from app.http.names import Name
from app.http.refusal import refused_with
from models.diffusion.schedule import ScheduleConfig
from models.nets.config import UNetConfig
from models.training.config import Side, TrainConfig
from store.datasets import MAX_VERSION
from store.jobs.options import (
    DEFAULT_KEEP_CHECKPOINTS,
    KEEP_CHECKPOINTS,
    Keep,
)
from store.jobs.record import DEFAULT_PRIORITY, PRIORITIES
from store.urls import MAX_URL


def _square(value: object) -> object:
    return (value, value) if isinstance(value, int) else value


TrainSize = Annotated[
    tuple[int, int],
    BeforeValidator(_square, json_schema_input_type=Side | tuple[Side, Side]),
    refused_with("it must be a side, or [height, width], in whole pixels"),
]


@with_fields_of(UNetConfig)
class NetOptions(JsonBody):
    """Parts of the U-Net to override, named as in diffusers' UNet2DModel; the rest follows from the
    image size."""


@with_fields_of(ScheduleConfig)
class ScheduleOptions(JsonBody):
    """The noise schedule to train with; GET /schedules shows them. `beta_*` belong to `linear` and
    `scaled_linear`, `sigma_*` and `rho` to `edm`."""


class ResumeFrom(JsonBody):
    """A checkpoint of an earlier job; GET /train-jobs/{id}/checkpoints lists them."""

    job: Annotated[str, Field(max_length=64)]
    step: int | None = Field(default=None, ge=0, description="the last one where left out")


class DataOptions(JsonBody):
    """The images to learn from, and the name of what is learned."""

    dataset: Name | None = Field(
        default=None,
        description="the name under which it was uploaded; may be left out with "
        "resume_from, or with distill of a model trained here",
    )
    dataset_version: int | None = Field(
        default=None,
        ge=1,
        le=MAX_VERSION,
        description="a version of the dataset; where left out the newest, or with resume_from, or "
        "distill without a dataset, the one that was learned from",
    )
    model_name: Name | None = Field(
        default=None,
        description="what the model will be called; where left out the dataset's name and a number",
        json_schema_extra={LABEL: "Name of the model"},
    )


@with_fields_of(TrainConfig, image_size=TrainSize, net=NetOptions, schedule=ScheduleOptions)
class Hyperparameters(JsonBody):
    """All that decides about the weights, but for the images and the model to begin with."""

    class_conditional: bool | None = Field(
        default=None,
        description="learn the classes, so that one can be asked for; where left out, if the "
        "dataset has any",
        json_schema_extra={LABEL: "Learn the classes"},
    )


class TrainRequest(Hyperparameters, DataOptions):
    """Two fields are enough: `dataset`, and `minutes` or `steps`; whichever ends first. What is
    left out is chosen from the data."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"dataset": "digits", "minutes": 2, "preset": "edm"}]}
    )

    resume_from: ResumeFrom | None = Field(
        default=None,
        description="go on from a checkpoint of an earlier job. `steps` and `minutes` are then the "
        "new totals, with what the checkpoint has used. All else is as it was, but for "
        "learning_rate, checkpoint_every and what does not bear on the weights.",
    )
    fine_tune: Name | None = Field(
        default=None,
        description="begin with the weights of this model, whose net, schedule, prediction_type, "
        "image_size and channels stay. A class of the dataset that it knows by name keeps what it "
        "learned of it.",
    )
    distill: Name | None = Field(
        default=None,
        description="make of this model one that samples in 1, 2 or 4 steps (consistency tuning, "
        "Geng et al. 2024): a job of kind `distill`. Its dataset is the model's where left out.",
    )
    keep: Keep = Field(
        default="last",
        description="the weights that become the model: the `last`, or those of the `best` "
        "checkpoint by the error on held-out images",
        json_schema_extra={LABEL: "Weights that become the model"},
    )
    keep_checkpoints: int = Field(
        default=DEFAULT_KEEP_CHECKPOINTS,
        ge=KEEP_CHECKPOINTS[0],
        le=KEEP_CHECKPOINTS[1],
        description="how many of the last ones stay; the best stays in any case",
        json_schema_extra={LABEL: "Checkpoints that stay"},
    )
    priority: int = Field(
        default=DEFAULT_PRIORITY,
        ge=PRIORITIES[0],
        le=PRIORITIES[1],
        description="of the jobs that wait the highest is next, and of equals the oldest",
        json_schema_extra={LABEL: "Priority, where jobs wait"},
    )
    webhook_url: str | None = Field(
        default=None,
        max_length=MAX_URL,
        description="is sent a signed POST (Standard Webhooks) when the job has completed or "
        "failed, is cancelled or paused",
        examples=["https://example.org/hooks/training"],
    )
    webhook_secret: str | None = Field(
        default=None,
        max_length=128,
        description="to sign with: `whsec_` and 24..64 bytes in base64; a new one where left out",
    )
