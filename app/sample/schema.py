"""The body and the answers of POST /sample."""

from collections.abc import Callable
from typing import Annotated, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from app.http.body import JsonBody
from app.http.names import Name
from app.http.refusal import refused_with
from models.diffusion.config import MAX_GUIDANCE
from models.diffusion.noise import MAX_SEED
from models.evaluation.int8 import MAX_RATIO
from models.images.formats import FITS, RANGES, Fit, ValueRange
from models.images.recipe import MAX_LINE
from models.nets.precision import PrecisionChoice
from models.sampling.grid import SPACINGS, SpacingName, spacings_of
from models.sampling.request import DEFAULT_CONSISTENCY_STEPS, DEFAULT_STEPS, MAX_CONSISTENCY_STEPS
from models.sampling.samplers import (
    DEFAULT_SAMPLER,
    DISTILLED_SAMPLER,
    INVERTIBLE,
    SAMPLERS,
    Sampler,
    SamplerName,
    about_spacing,
    quoted,
)
from store.datasets import MAX_VERSION

Made = Literal["image/png", "image/webp", "image/jpeg", "application/zip", "application/json"]
PictureField = Literal["init_image", "mask"]
PICTURES: tuple[PictureField, ...] = get_args(PictureField)

Digest = Annotated[str, StringConstraints(pattern="^[0-9a-f]{1,64}$")]
Line = Annotated[str, StringConstraints(pattern="^[ -~]*$", max_length=MAX_LINE)]
Time = Annotated[float, Field(allow_inf_nan=False)]
Base64 = Annotated[str, Field(json_schema_extra={"contentEncoding": "base64"})]


def _those(marked: Callable[[Sampler], bool]) -> str:
    return quoted((name for name, entry in SAMPLERS.items() if marked(entry)), "and", "`")


_ABOUT_SPACINGS = "; ".join(f"`{name}`: {about_spacing(name)}" for name in SPACINGS)
_EDM_SPACINGS = ", ".join(f"`{name}`" for name in spacings_of("edm"))


class DisturbanceOptions(JsonBody):
    at: int = Field(ge=0, description="before which step, counted from 0")
    strength: float = Field(
        gt=0, le=100, allow_inf_nan=False, description="standard deviation, in units of the noise"
    )


class SampleBody(JsonBody):
    """`model` is enough."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"model": "digits-1", "num_images": 4, "seed": 7}]}
    )

    model: Name = Field(description="GET /models lists them")
    num_images: int = Field(
        default=1, ge=1, description="up to what the service allows, 64 unless it is set otherwise"
    )
    sampler: SamplerName | None = Field(
        default=None,
        description="how x_t becomes an image; GET /samplers tells what each is for. "
        f"`{DEFAULT_SAMPLER}` where left out (`{INVERTIBLE[0]}` with invert). "
        f"Two calls of the net a step: {_those(lambda entry: entry.evaluations == 2)}. "
        f"Can be inverted: {_those(lambda entry: entry.invertible)}. "
        f"Add fresh noise: {_those(lambda entry: entry.is_stochastic)}. "
        f"A distilled model takes `{DISTILLED_SAMPLER}` and nothing else.",
    )
    num_inference_steps: int | None = Field(
        default=None,
        ge=1,
        description=f"more take longer and err less; {DEFAULT_STEPS} where left out. At most the "
        "model's num_train_timesteps, and what the service allows. Of a distilled model "
        f"1..{MAX_CONSISTENCY_STEPS}, and {DEFAULT_CONSISTENCY_STEPS} where left out",
    )
    spacing: SpacingName | None = Field(
        default=None,
        description=f"which noise levels the steps visit; {_ABOUT_SPACINGS}. Models of the "
        f"schedule `edm` take only {_EDM_SPACINGS}; the first of these is their default, "
        "else `trailing`.",
    )
    seed: int | None = Field(default=None, ge=0, le=MAX_SEED, description="random where absent")
    class_label: (
        Annotated[
            int | str | list[int | str],
            refused_with("it must be a class's name or index, or a list of them"),
        ]
        | None
    ) = Field(
        default=None,
        description="a class's name or index, or one for each image; any class where left out. "
        "Text is a name, a number an index.",
    )
    guidance_scale: float | None = Field(
        default=None,
        ge=0,
        le=MAX_GUIDANCE,
        allow_inf_nan=False,
        description="how far to exaggerate what the class changes; 1 is off. Needs a class_label. "
        "Where left out the model's own, which its training chose, and 1 with `invert`.",
    )
    guidance_interval: tuple[Time, Time] | None = Field(
        default=None, description="[low, high] in t: where guidance is on; everywhere if left out"
    )
    eta: float = Field(
        default=0.0,
        ge=0,
        le=1,
        allow_inf_nan=False,
        description=f"of sampler {_those(lambda entry: entry.takes_eta)}: the share of fresh "
        "noise, 0 is none, 1 as in ddpm",
    )
    init_image: Base64 | None = Field(
        default=None, description="an image file to start from; it is brought to the model's size"
    )
    fit: Fit | None = Field(
        default=None,
        description="how an init_image or a mask of another shape comes to the model's size: "
        f"{FITS}; as the images that the model learned from where left out",
    )
    range: ValueRange = Field(
        default="full",
        description="which values become black and white, in an init_image or a mask of more than "
        f"8 bits a value. {RANGES}",
    )
    frames: Literal["refuse", "first"] = Field(
        default="refuse", description="what becomes of an init_image or a mask of several frames"
    )
    strength: float | None = Field(
        default=None,
        gt=0,
        le=1,
        description="which share of the steps init_image goes through: 1 leaves nothing of it; "
        "0.5 where left out, 1 with a mask or invert",
    )
    mask: Base64 | None = Field(
        default=None,
        description="an image file; where it is bright init_image is made anew, the rest is kept",
    )
    invert: bool = Field(
        default=False,
        description="find the noise that gives init_image, and sample from there "
        f"({', '.join(INVERTIBLE)}): "
        "without a class the image again, with one a variation of it",
    )
    seed_to: int | None = Field(
        default=None,
        ge=0,
        le=MAX_SEED,
        description="the images lead from the noise of seed to that of seed_to",
    )
    disturb: DisturbanceOptions | None = Field(
        default=None, description="an error added to x_t at one step: later steps correct it"
    )
    trajectory: bool = Field(
        default=False,
        description="show x_t and the clean image predicted from it at every step: a strip (PNG, "
        "JPEG), an animation (WebP), files (zip) or base64 (JSON)",
    )
    deadline_seconds: float | None = Field(
        default=None,
        gt=0,
        le=3600,
        description="503 at once where the images cannot be ready by then, or when they are not",
    )
    deterministic: bool = Field(
        default=False,
        description="the same pixels to the bit whatever else is sampled, on any device. On a CPU "
        "they always are; on a GPU it takes up to four times as long.",
    )
    precision: PrecisionChoice | None = Field(
        default=None,
        description="of the network; auto is the one that the machine computes faster. bfloat16 "
        "changes images slightly, and is float32 on a CPU without instructions for it. int8 is for "
        "CPUs, and for models whose Frechet distance in it is at most "
        f"{MAX_RATIO} times that in float32, by POST /evaluations in both.",
    )


class SampleUsed(BaseModel):
    """What was really used: with it the images can be made again."""

    model_config = ConfigDict(protected_namespaces=())

    model: str
    model_digest: str
    seed: int
    sampler: SamplerName
    num_inference_steps: int
    spacing: SpacingName
    class_label: list[int] | None
    guidance_scale: float
    guidance_interval: tuple[float, float] | None
    eta: float
    strength: float | None = Field(description="null without an init_image")
    invert: bool
    seed_to: int | None
    disturb: DisturbanceOptions | None
    deterministic: bool
    precision: PrecisionChoice = Field(
        description="that the network computed in; of a job that has not begun, as asked for"
    )


class Recipe(JsonBody):
    """How images were made. `POST /sample/again` takes it."""

    format: Literal[1]
    service: Line = Field(description="its version")
    model_digest: Digest
    config_digest: Digest | None = Field(
        default=None, description="of the model's config files; null for one of an earlier version"
    )
    dataset: Name | None = Field(default=None, description="that the model learned from")
    dataset_version: int | None = Field(default=None, ge=1, le=MAX_VERSION)
    dataset_digest: Digest | None = None
    request_digest: Digest | None = Field(
        default=None,
        description="sha256 of all that was asked for, by which the audit log knows who asked",
    )
    media_type: Made = Field(description="of the file")
    image: int | None = Field(
        default=None, ge=0, description="which of the images is in the file; null: all of them"
    )
    step: int | None = Field(
        default=None, ge=0, description="of a picture on the way: after which step, from 0"
    )
    view: Literal["x_t", "x0_hat"] | None = Field(
        default=None, description="of such a picture: what the network saw, or predicted"
    )
    request: SampleBody = Field(description="a body of POST /sample, with every choice made")
    pictures: dict[PictureField, Digest] = Field(
        default={}, description="sha256 of the files of init_image and mask, which are not in it"
    )
    computed_by: Line = Field(description="library, device and threads; the last bits may differ")
    exact: bool = Field(description="the pixels did not depend on what else was sampled")


class TrajectoryStep(BaseModel):
    t: float
    x_t: Base64 = Field(description="what the network saw, PNG")
    x0_hat: Base64 = Field(description="the clean image predicted from it, PNG")


class SampleAnswer(BaseModel):
    used: SampleUsed
    warnings: list[str] = Field(description="what looks odd in init_image or mask")
    media_type: str = "image/png"
    images: list[Base64] = Field(description="one file each")
    trajectories: list[list[TrajectoryStep]] | None = Field(
        default=None, description="for each image its steps, where they were asked for"
    )
    recipe: Recipe | None = Field(
        default=None,
        description="of all images; each file has its own, POST /sample/again takes it",
    )


class StartedEvent(BaseModel):
    """The first step begins. `steps` is how many network evaluations each image takes."""

    steps: int
    used: SampleUsed


class PreviewEvent(BaseModel):
    """The clean image as predicted at a step."""

    image: int
    step: int = Field(description="1..steps")
    steps: int
    t: float
    x0_hat: Base64 = Field(description="PNG")
