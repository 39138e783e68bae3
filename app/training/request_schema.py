"""What POST /train-jobs takes."""

from typing import Annotated

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
)

from app.http.names import Name
from app.http.refusal import refused_with
from models.diffusion.noise import MAX_SEED
from models.diffusion.prediction import PredictionType
from models.diffusion.schedule import MAX_TRAIN_TIMESTEPS, ScheduleName
from models.nets.precision import Precision
from models.training.config import (
    DEFAULT_MINUTES,
    LEARNING_RATE_RANGE,
    MAX_BATCH_SIZE,
    MAX_CHECKPOINT_EVERY,
    MAX_SIDE,
    MAX_STEPS,
    MINUTES_RANGE,
    LrSchedule,
    Preset,
)
from models.training.defaults import DEFAULT_MAX_SIDE, MIN_SIDE
from models.training.objective import LossWeighting
from store.jobs.options import (
    DEFAULT_KEEP_CHECKPOINTS,
    KEEP_CHECKPOINTS,
    Keep,
)
from store.jobs.record import DEFAULT_PRIORITY, PRIORITIES
from store.webhooks import MAX_URL


def _square(value: object) -> object:
    return (value, value) if isinstance(value, int) else value


_Side = Annotated[int, Field(ge=MIN_SIDE, le=MAX_SIDE)]
TrainSize = Annotated[
    tuple[int, int],
    BeforeValidator(_square, json_schema_input_type=_Side | tuple[_Side, _Side]),
    refused_with("it must be a side, or [height, width], in whole pixels"),
]


class NetOptions(BaseModel):
    """Parts of the U-Net to override, named as in diffusers' UNet2DModel; the rest follows from the
    image size."""

    model_config = ConfigDict(extra="forbid")

    block_out_channels: list[int] | None = Field(
        default=None,
        description="channels at each resolution, 1..8 of them; between two the image is halved. "
        "Each must be a multiple of norm_num_groups and of attention_head_dim.",
        examples=[[32, 64]],
    )
    layers_per_block: int | None = Field(
        default=None, description="1..8; where left out 1 on a CPU, 2 on a GPU"
    )
    down_block_types: list[str] | None = Field(
        default=None,
        description="`DownBlock2D` or, with attention, `AttnDownBlock2D` for each resolution; "
        "attention at the lowest where left out",
        examples=[["DownBlock2D", "AttnDownBlock2D"]],
    )
    up_block_types: list[str] | None = Field(
        default=None,
        description="the same on the way back, from the lowest resolution: `UpBlock2D` or "
        "`AttnUpBlock2D`",
        examples=[["AttnUpBlock2D", "UpBlock2D"]],
    )
    attention_head_dim: int | None = Field(
        default=None,
        description="channels of an attention head; where left out 32 on a CPU, 64 on a GPU",
    )
    norm_num_groups: int | None = Field(
        default=None,
        description="groups of each normalisation; where left out 8 on a CPU, 32 on a GPU",
    )
    dropout: float | None = Field(
        default=None,
        description="0..0.9; it helps where images are few. Where left out 0 or 0.25 on a CPU, 0.1 "
        "or 0.25 on a GPU, chosen from the data.",
    )


class ScheduleOptions(BaseModel):
    """The noise schedule to train with; GET /schedules shows them. `beta_*` belong to `linear` and
    `scaled_linear`, `sigma_*` and `rho` to `edm`."""

    model_config = ConfigDict(extra="forbid")

    name: ScheduleName | None = Field(
        default=None, description="where left out the preset's: `linear` of ddpm, `edm` of edm"
    )
    num_train_timesteps: int | None = Field(
        default=None, description=f"1..{MAX_TRAIN_TIMESTEPS}; 1000 where left out"
    )
    beta_start: float | None = Field(default=None, description="1e-4 where left out")
    beta_end: float | None = Field(default=None, description="0.02 where left out")
    rescale_zero_terminal_snr: bool | None = Field(
        default=None,
        description="no signal is left at the last step; goes with prediction_type `v` or `x0`",
    )
    sigma_min: float | None = Field(default=None, description="0.002 where left out")
    sigma_max: float | None = Field(default=None, description="80 where left out")
    rho: float | None = Field(default=None, description="7 where left out")


class ResumeFrom(BaseModel):
    """A checkpoint of an earlier job; GET /train-jobs/{id}/checkpoints lists them."""

    model_config = ConfigDict(extra="forbid")

    job: Annotated[str, Field(max_length=64)]
    step: int | None = Field(default=None, ge=0, description="the last one where left out")


class TrainRequest(BaseModel):
    """Two fields are enough: `dataset`, and `minutes` or `steps`; whichever ends first. What is
    left out is chosen from the data."""

    model_config = ConfigDict(
        extra="forbid",
        protected_namespaces=(),
        json_schema_extra={"examples": [{"dataset": "digits", "minutes": 2, "preset": "edm"}]},
    )

    dataset: Name | None = Field(
        default=None,
        description="the name under which it was uploaded; may be left out with "
        "resume_from, or with distill of a model trained here",
    )
    model_name: Name | None = Field(
        default=None,
        description="what the model will be called; where left out the dataset's name and a number",
    )
    preset: Preset | None = Field(
        default=None,
        description="`edm`: preconditioned, with noise levels from 0.002 to 80 (Karras et al. "
        "2022). `ddpm`: the classic, which predicts the noise on the linear schedule (Ho et al. "
        "2020). `edm` where left out, unless schedule or prediction_type are not its.",
    )
    steps: int | None = Field(
        default=None, ge=1, le=MAX_STEPS, description="optimiser steps; resumed exactly on a CPU"
    )
    minutes: float | None = Field(
        default=None,
        ge=MINUTES_RANGE[0],
        le=MINUTES_RANGE[1],
        description=f"of training; {DEFAULT_MINUTES:g} where steps is left out too",
    )
    image_size: TrainSize | None = Field(
        default=None,
        description=f"side, or [height, width], {MIN_SIDE}..{MAX_SIDE}: to what images are cut and "
        f"scaled. Where left out the most common size, at most {DEFAULT_MAX_SIDE}. Each side must "
        "be a multiple of 2 to the number of the net's halvings.",
        examples=[32],
    )
    class_conditional: bool | None = Field(
        default=None,
        description="learn the classes, so that one can be asked for; where left out, if the "
        "dataset has any",
    )
    batch_size: int | None = Field(
        default=None,
        ge=1,
        le=MAX_BATCH_SIZE,
        description="of an optimiser step; chosen from the size of the images where left out",
    )
    learning_rate: float | None = Field(
        default=None,
        ge=LEARNING_RATE_RANGE[0],
        le=LEARNING_RATE_RANGE[1],
        description="Adam's, after a warm-up; chosen from the width of the net where left out",
    )
    seed: int = Field(
        default=0, ge=0, le=MAX_SEED, description="of the first weights, the noise and the order"
    )
    checkpoint_every: int | None = Field(
        default=None,
        ge=1,
        le=MAX_CHECKPOINT_EVERY,
        description="steps; 1000 where left out, and at least once a minute in any case",
    )
    prediction_type: PredictionType | None = Field(
        default=None,
        description="what the net predicts; where left out the preset's: `epsilon` of ddpm, `edm` "
        "of edm. `edm` goes with schedule `edm` only, `flow` with `flow` only.",
    )
    horizontal_flip: bool | None = Field(
        default=None,
        description="also learn from mirror images; not for writing. No where left out.",
    )
    augmentation: float | None = Field(
        default=None,
        ge=0,
        le=1,
        description="how often a training image is moved, scaled or turned; the net is told, so "
        "that the images it makes are not. Helps where images are few and time is not.",
    )
    loss_weighting: LossWeighting | None = Field(
        default=None,
        description="of noise levels: `uniform`, `min_snr` (Hang et al. 2023), or `learned` "
        "(Karras et al. 2024)",
    )
    lr_schedule: LrSchedule | None = Field(
        default=None, description="how the learning rate falls over the budget, after the warm-up"
    )
    class_dropout: float | None = Field(
        default=None,
        ge=0,
        le=0.9,
        description="how often the class is withheld in training, for guidance",
    )
    ema_half_life_images: int | None = Field(
        default=None,
        ge=1,
        le=10**9,
        description="after how many images the average of the weights has forgotten half",
    )
    precision: Precision | None = Field(
        default=None, description="of the network in training; weights are kept in float32"
    )
    compile: bool | None = Field(default=None, description="the network, which takes a minute")
    micro_batch_size: int | None = Field(
        default=None,
        ge=1,
        le=MAX_BATCH_SIZE,
        description="work off each batch in parts of so many images, where memory is short; "
        "changes nothing else",
    )
    held_out: int | None = Field(
        default=None,
        ge=0,
        le=10**6,
        description="images to keep from training and to measure on: at most this many, and at "
        "most a tenth. 512 where left out.",
    )
    net: NetOptions | None = None
    schedule: ScheduleOptions | None = None
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
    )
    keep_checkpoints: int = Field(
        default=DEFAULT_KEEP_CHECKPOINTS,
        ge=KEEP_CHECKPOINTS[0],
        le=KEEP_CHECKPOINTS[1],
        description="how many of the last ones stay; the best stays in any case",
    )
    priority: int = Field(
        default=DEFAULT_PRIORITY,
        ge=PRIORITIES[0],
        le=PRIORITIES[1],
        description="of the jobs that wait the highest is next, and of equals the oldest",
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
