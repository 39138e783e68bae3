"""The form and the JSON answer of POST /noise."""

from typing import Annotated, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    ValidatorFunctionWrapHandler,
    WrapValidator,
)
from pydantic_core import PydanticCustomError

from app.http.refusal import refused_with
from models.diffusion.noise import MAX_SEED
from models.diffusion.schedule import MAX_TRAIN_TIMESTEPS, ScheduleName
from models.images.formats import FITS, RANGES, Fit, ValueRange

Method = Literal["closed_form", "step_by_step"]

MAX_RESIZED_SIDE = 16_384  # pixels, of image_size


def _height_and_width(value: object) -> object:
    """Split '64' into 64 x 64, and '48x64' into height 48 and width 64."""
    if not isinstance(value, str):
        return value
    sides = value.lower().split("x")
    return sides * 2 if len(sides) == 1 else sides


def _whole_number(value: object, parse: ValidatorFunctionWrapHandler) -> int:
    try:
        return int(parse(value))
    except ValidationError:
        raise PydanticCustomError(
            "timestep", "it must be a whole number in 0..num_train_timesteps"
        ) from None


Timestep = Annotated[int, WrapValidator(_whole_number)]
Side = Annotated[int, Field(ge=1, le=MAX_RESIZED_SIDE)]
ImageSize = Annotated[
    tuple[Side, Side],
    BeforeValidator(
        _height_and_width, json_schema_input_type=Annotated[str, Field(pattern=r"^\d+(x\d+)?$")]
    ),
    refused_with("it must be one side (64) or height x width (48x64), each in 1..16384"),
]


class NoiseForm(BaseModel):
    model_config = ConfigDict(extra="forbid")

    image: bytes = Field(
        description="PNG, JPEG, WebP, AVIF, GIF, BMP or TIFF; HEIC with the extra `heic`. "
        "Transparent pixels are laid on white.",
        json_schema_extra={"format": "binary"},
    )
    t: list[Timestep] = Field(
        min_length=1,
        description="The timestep, 0..num_train_timesteps; 0 is the clean image. May be repeated: "
        "the answer then has one image for each, in this order.",
        examples=[[0, 250, 500, 1000]],
        json_schema_extra={"items": {"type": "integer", "minimum": 0}},
    )
    schedule: ScheduleName = Field(
        default="linear", description="How fast noise replaces the signal; see GET /schedules."
    )
    num_train_timesteps: int = Field(
        default=1000,
        ge=1,
        le=MAX_TRAIN_TIMESTEPS,
        description="T, the number of steps from the clean image to pure noise.",
    )
    rescale_zero_terminal_snr: bool = Field(
        default=False, description="Rescale the schedule so that no signal is left at t = T."
    )
    method: Method = Field(
        default="closed_form",
        description="`closed_form` draws x_t from q(x_t | x_0) directly, with the same noise for "
        "every t; `step_by_step` follows the chain q(x_t | x_t-1), with fresh noise at each step.",
    )
    seed: int | None = Field(
        default=None, ge=0, le=MAX_SEED, description="Random by default; every answer reports it."
    )
    image_size: ImageSize | None = Field(
        default=None,
        description="Resize the image first: `64`, or `48x64` for height x width.",
        examples=["64"],
    )
    fit: Fit = Field(
        default="crop", description=f"How an image of another shape comes to image_size: {FITS}."
    )
    range: ValueRange = Field(
        default="full",
        description="Which values become black and white, in an image of more than 8 bits a value. "
        f"{RANGES}.",
    )
    frames: Literal["refuse", "first"] = Field(
        default="refuse", description="What becomes of an animation or a TIFF of several pages."
    )


class NoisedImage(BaseModel):
    t: int
    alpha: float = Field(description="x_t = alpha x_0 + sigma noise")
    sigma: float
    snr: float | None = Field(description="alpha^2 / sigma^2; null if there is no noise")
    display_scale: float = Field(
        description="The divisor of x_t for display, applied before clipping to [-1, 1]: "
        "max(1, sqrt(alpha^2 + sigma^2)), above 1 only for `edm`."
    )
    media_type: str = "image/png"
    data: str = Field(description="base64")


class NoiseAnswer(BaseModel):
    seed: int
    schedule: ScheduleName
    num_train_timesteps: int
    rescale_zero_terminal_snr: bool
    method: Method
    image_size: tuple[int, int] = Field(description="height, width")
    images: list[NoisedImage]
