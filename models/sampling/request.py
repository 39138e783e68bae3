"""A request for images, and its plan: the sampler's table with everything else that may differ from
row to row.

The API, the jobs and the plain loop compile by `plan_for`. Knows nothing of tensors.
"""

import base64
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from functools import lru_cache
from typing import Any, Protocol

import numpy as np

from models.arrays import Float32, UInt8
from models.diffusion.config import DEFAULT_SAMPLING, SamplingConfig
from models.diffusion.noise import MAX_SEED
from models.diffusion.prediction import Prediction
from models.diffusion.schedule import NoiseSchedule, ScheduleConfig
from models.fields import Invalid
from models.sampling.grid import SpacingName, first_level, grid_from, timestep_grid
from models.sampling.plan import K, Plan
from models.sampling.rows import SamplerTable
from models.sampling.samplers import (
    DEFAULT_SAMPLER,
    INVERTIBLE,
    SAMPLERS,
    SamplerName,
    default_spacing,
    inversion_table,
    quoted,
    sampler_table,
)

DEFAULT_STEPS = 20
DEFAULT_CONSISTENCY_STEPS, MAX_CONSISTENCY_STEPS = 2, 8


@dataclass(frozen=True)
class Disturbance:
    """Standard normal noise times `strength`, added to x_t before step `at` (0 is the first)."""

    at: int
    strength: float


@dataclass(frozen=True)
class SampleRequest:
    """What a caller asks of a model.

    `labels` is a class index per image, or None to leave the class open; `guidance_interval` is in
    t: outside of it the network is called once. `init_image` (H, W, C) is where img2img starts, at
    the level that leaves `strength` of the steps; with a `mask` (H, W), 255 where the image is to
    be made anew, its other part stays. `invert` finds the noise of `init_image` first and samples
    from there. `seed_to`: see models.sampling.plan.Plan. `spacing` of None is `default_spacing`.
    """

    seed: int
    num_images: int = 1
    sampler: SamplerName = DEFAULT_SAMPLER
    num_inference_steps: int = DEFAULT_STEPS
    spacing: SpacingName | None = None
    eta: float = 0.0
    labels: tuple[int, ...] | None = None
    guidance_scale: float = 1.0
    guidance_interval: tuple[float, float] | None = None
    strength: float = 1.0
    invert: bool = False
    seed_to: int | None = None
    disturb: Disturbance | None = None
    clip: bool = True  # keep x0_hat within the model's bounds, where images live
    init_image: UInt8 | None = field(default=None, compare=False)
    mask: UInt8 | None = field(default=None, compare=False)

    def to_dict(self) -> dict[str, object]:
        """Return it for JSON; pictures are base64 of their bytes, with their shape."""
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        values["disturb"] = self.disturb and asdict(self.disturb)
        for name in _PICTURES:
            values[name] = None if values[name] is None else _packed(values[name])
        return values

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "SampleRequest":
        known = dict(values)
        for name in ("labels", "guidance_interval"):
            known[name] = None if known[name] is None else tuple(known[name])
        known["disturb"] = known["disturb"] and Disturbance(**known["disturb"])
        for name in _PICTURES:
            known[name] = None if known[name] is None else _unpacked(known[name])
        return cls(**known)


class ModelFacts(Protocol):
    """The facts of a model on which a plan depends: a ModelConfig, or the card of a model."""

    @property
    def image_size(self) -> tuple[int, int]: ...

    @property
    def channels(self) -> int: ...

    @property
    def class_names(self) -> tuple[str, ...]: ...

    @property
    def has_null_class(self) -> bool: ...

    @property
    def schedule(self) -> ScheduleConfig: ...

    @property
    def prediction(self) -> Prediction: ...

    @property
    def sampling(self) -> SamplingConfig: ...


def plan_for(model: ModelFacts, request: SampleRequest) -> Plan:
    """Compile a request for a model. Raises Invalid, naming the field, where it does not fit."""
    count = len(model.class_names)
    check_labels(request, count)
    if not model.has_null_class:
        _check_null_class(request, count)
    plan = make_plan(_schedule(model.schedule), model.prediction, request, model.sampling)
    plan.check_fits(model.image_size, model.channels, count, model.has_null_class)
    return plan


def make_plan(
    schedule: NoiseSchedule,
    prediction: Prediction,
    request: SampleRequest,
    sampling: SamplingConfig = DEFAULT_SAMPLING,
) -> Plan:
    """Compile a request for the process and the prediction of a model, whatever its images and
    classes. Raises Invalid that begins with the name of the field at fault."""
    _check(request)
    spacing = request.spacing or default_spacing(
        request.sampler, schedule.config.name, sampling.spacing
    )
    steps = request.num_inference_steps
    grid = timestep_grid(schedule, steps, spacing, sampling.steps_offset)
    first = first_level(grid, request.strength)
    table = sampler_table(
        request.sampler, grid_from(grid, first), eta=request.eta, variance=sampling.variance
    )
    num_inversion = 0
    if request.invert:
        inversion = inversion_table(grid_from(grid, first))
        num_inversion, table = len(inversion), inversion + table
    from_image, from_noise = float(table.alpha[0]), float(table.sigma[0])
    if request.invert:
        from_noise = 0.0
    elif request.init_image is None or first == 0:
        from_image, from_noise = 0.0, math.hypot(from_image, from_noise)  # x_T of unit variance
    return Plan(
        rows=_rows(prediction, request, table, num_inversion, sampling.clip),
        t=tuple(table.t.tolist()),
        from_image=from_image,
        from_noise=from_noise,
        seed=request.seed,
        num_images=request.num_images,
        num_inference_steps=request.num_inference_steps,
        labels=request.labels,
        seed_to=request.seed_to,
        init_image=request.init_image,
        mask=request.mask,
    )


def check_labels(request: SampleRequest, num_classes: int) -> None:
    """Raise Invalid where the classes do not fit a model with so many."""
    labels = request.labels
    if labels is None:
        if request.guidance_scale != 1.0:
            raise Invalid.because(
                f"guidance_scale is {request.guidance_scale:g}; without a class_label it must be 1",
                field="guidance_scale",
            )
        return
    if not num_classes:
        raise Invalid.because(
            "class_label is given, but the model has no classes", field="class_label"
        )
    if len(labels) != request.num_images:
        raise Invalid.because(
            f"class_label has {len(labels)} entries; num_images is {request.num_images}",
            field="class_label",
        )
    for label in labels:
        if not 0 <= label < num_classes:
            raise Invalid("class_label", label, f"it must lie in 0..{num_classes - 1}")


def _check_null_class(request: SampleRequest, num_classes: int) -> None:
    """Raise Invalid for what a model cannot do that has embeddings for its classes only."""
    reason = "each embedding of this model is a class, and none stands for no class"
    if request.labels is None:
        raise Invalid.because(
            f"class_label is missing; {reason}, so that one of 0..{num_classes - 1} must be given",
            field="class_label",
        )
    if request.guidance_scale != 1.0:
        raise Invalid("guidance_scale", request.guidance_scale, f"it must be 1: {reason}")
    if request.invert:
        raise Invalid.because(
            f"invert is true, which finds the noise without a class; {reason}", field="invert"
        )


@lru_cache(maxsize=64)
def _schedule(config: ScheduleConfig) -> NoiseSchedule:
    return NoiseSchedule.from_config(config)


_PICTURES = ("init_image", "mask")


def _packed(picture: UInt8) -> dict[str, object]:
    return {"shape": picture.shape, "data": base64.b64encode(picture.tobytes()).decode()}


def _unpacked(packed: Mapping[str, Any]) -> UInt8:
    picture = np.frombuffer(base64.b64decode(packed["data"]), np.uint8)
    return picture.reshape(packed["shape"])


def _check(request: SampleRequest) -> None:
    if request.num_images < 1:
        raise Invalid("num_images", request.num_images, "it must be at least 1")
    for name, seed in (("seed", request.seed), ("seed_to", request.seed_to or 0)):
        if not 0 <= seed <= MAX_SEED:
            raise Invalid(name, seed, f"it must lie in 0..{MAX_SEED}")
    if not math.isfinite(request.guidance_scale):
        raise Invalid("guidance_scale", request.guidance_scale, "it must be finite")
    if not 0.0 < request.strength <= 1.0:
        raise Invalid("strength", request.strength, "it must lie in 0..1, above 0")
    if request.init_image is None and request.strength != 1.0:
        raise Invalid("strength", request.strength, "without an init_image it must be 1")
    if request.mask is not None and request.init_image is None:
        raise Invalid.because(
            "mask is given without the init_image that it belongs to", field="mask"
        )
    if request.invert:
        _check_inversion(request)
    if request.seed_to is not None and request.num_images < 2:
        raise Invalid.because(
            "seed_to is given for one image; between two seeds are at least 2", field="seed_to"
        )
    if request.guidance_interval and request.guidance_interval[0] > request.guidance_interval[1]:
        low, high = request.guidance_interval
        raise Invalid.because(
            f"guidance_interval is {low}, {high}; it must be low, high", field="guidance_interval"
        )


def _check_inversion(request: SampleRequest) -> None:
    if request.init_image is None:
        raise Invalid.because(
            "invert is true, but there is no init_image to invert", field="invert"
        )
    if request.mask is not None:
        raise Invalid.because("mask does not go with invert", field="mask")
    if request.sampler not in INVERTIBLE or request.eta:
        raise Invalid.because(
            f"sampler is {request.sampler!r}, eta {request.eta:g}; invert goes with "
            f"{quoted(INVERTIBLE, 'or')} and eta 0, which walk the same path back",
            field="sampler",
        )


def _rows(
    prediction: Prediction,
    request: SampleRequest,
    table: SamplerTable,
    num_inversion: int,
    clip: float | None,
) -> Float32:
    """Return the rows of the plan. The first `num_inversion` of the table find the noise of an
    image: unguided and unconditional, so that a class changes the image afterwards."""
    denoiser = prediction.denoiser_coefficients(table.alpha, table.sigma)
    k = np.zeros((len(table), len(K)))
    k[:, K.C_IN], k[:, K.C_NOISE] = denoiser.c_in, table.c_noise
    k[:, K.P_X], k[:, K.P_F] = denoiser.p_x, denoiser.p_F
    k[:, K.K_X], k[:, K.K_0], k[:, K.K_S] = table.k_x, table.k_0, table.k_s
    k[:, K.K_1], k[:, K.K_2] = table.k_1, table.k_2
    k[:, K.GUIDANCE] = request.guidance_scale
    if request.guidance_interval:
        low, high = request.guidance_interval
        k[(table.t < low) | (table.t > high), K.GUIDANCE] = 1.0
    k[:num_inversion, K.GUIDANCE], k[:num_inversion, K.UNCONDITIONAL] = 1.0, 1.0
    k[:, K.CLIP] = clip if clip and request.clip and not request.invert else np.inf
    if request.disturb:
        row = num_inversion + _row_of_step(request, len(table) - num_inversion)
        k[row, K.PERTURBATION] = request.disturb.strength
    k[:, K.DISPLAY_SCALE] = np.maximum(1.0, np.hypot(table.alpha, table.sigma))
    return k.astype(np.float32)


def _row_of_step(request: SampleRequest, num_rows: int) -> int:
    """Return where the disturbed step begins. The last step of a sampler with two evaluations may
    do with one."""
    assert request.disturb is not None
    rows_per_step = SAMPLERS[request.sampler].evaluations
    steps = (num_rows + rows_per_step - 1) // rows_per_step
    if not 0 <= request.disturb.at < steps:
        raise Invalid("disturb.at", request.disturb.at, f"it must lie in 0..{steps - 1}")
    return request.disturb.at * rows_per_step
