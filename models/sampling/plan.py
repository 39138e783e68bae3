"""From what is asked for to what is done: a request for images, compiled to rows.

`SampleRequest` is all that decides the images of one call; `Plan` is the sampler's table with
everything else that may differ from row to row. Whoever walks a plan (models.sampling.generate for
one request alone, models.engine.engine for many at once) knows nothing of samplers, strengths or
intervals.

Knows nothing of networks or torch.
"""

import base64
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.arrays import UInt8
from models.diffusion.prediction import Prediction
from models.diffusion.schedule import NoiseSchedule
from models.fields import Invalid
from models.sampling.grid import SpacingName, first_level, grid_from, timestep_grid
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

# Columns of Plan.coefficients, for a row's network call and its update.
C_IN, C_NOISE, P_X, P_F = range(4)
K_X, K_0, K_1, K_2, K_S = range(4, 9)
GUIDANCE = 9  # 1: the network is asked once
OPEN = 10  # 1: it is not told the class
BOUND = 11  # x0_hat is kept within it
DISTURB = 12  # noise added to x_t before the network sees it
SHOWN = 13  # what x_t is divided by to be shown
COLUMNS = 14

DEFAULT_STEPS = 20
DEFAULT_CONSISTENCY_STEPS, MAX_CONSISTENCY_STEPS = 2, 8


@dataclass(frozen=True)
class Disturbance:
    """Standard normal noise times `strength`, added to x_t before step `at` (0 is the first)."""

    at: int
    strength: float


@dataclass(frozen=True)
class SampleRequest:
    """Image i of a request is a function of it, the model and i.

    `labels` is a class index per image, or None to leave the class open; `guidance_interval` is
    in t: outside of it the network is asked once. `init_image` (H, W, C) is where img2img starts,
    at the level that leaves `strength` of the steps; with a `mask` (H, W), 255 where the image is
    to be made anew, its other part stays. `seed_to` turns image i's first noise from that of
    `seed` to that of `seed_to`, from the first image to the last, on the circle between them.
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
    clip: bool = True  # keep x0_hat in [-1, 1], where images live
    init_image: UInt8 | None = field(default=None, compare=False)
    mask: UInt8 | None = field(default=None, compare=False)

    def to_dict(self) -> dict[str, Any]:
        """For JSON; pictures are base64 of their bytes, with their shape."""
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

    def angle(self, image: int) -> float:
        """How far image i's first noise is turned towards that of `seed_to`, 0..pi/2."""
        if self.seed_to is None or self.num_images == 1:
            return 0.0
        return 0.5 * math.pi * image / (self.num_images - 1)

    def noise_index(self, image: int) -> int:
        """Images between two seeds differ in nothing else."""
        return image if self.seed_to is None else 0


@dataclass(frozen=True)
class Plan:
    """`table` and `coefficients`, float32 (R, COLUMNS), have a row for each network evaluation in
    order; `evaluations` says how many rows of a network call each takes, 2 where it is guided. The
    walk starts from from_image x0 + from_noise noise."""

    table: SamplerTable
    coefficients: NDArray[np.float32]
    evaluations: tuple[int, ...]
    from_image: float
    from_noise: float

    def __len__(self) -> int:
        return len(self.evaluations)


def make_plan(schedule: NoiseSchedule, prediction: Prediction, request: SampleRequest) -> Plan:
    """Raises Invalid that begins with the name of the field at fault."""
    _check(request)
    spacing = request.spacing or default_spacing(request.sampler, schedule.config.name)
    grid = timestep_grid(schedule, request.num_inference_steps, spacing)
    first = first_level(grid, request.strength)
    table = sampler_table(request.sampler, grid_from(grid, first), eta=request.eta)
    before = 0  # rows that look for the noise
    if request.invert:
        finding = inversion_table(grid_from(grid, first))
        before, table = len(finding), finding + table
    coefficients = _coefficients(prediction, request, table, before)
    from_image, from_noise = float(table.alpha[0]), float(table.sigma[0])
    if request.invert:
        from_noise = 0.0
    elif request.init_image is None or first == 0:
        from_image, from_noise = 0.0, math.hypot(from_image, from_noise)  # x_T of unit variance
    return Plan(
        table=table,
        coefficients=coefficients,
        evaluations=tuple(2 if g != 1.0 else 1 for g in coefficients[:, GUIDANCE].tolist()),
        from_image=from_image,
        from_noise=from_noise,
    )


def check_labels(request: SampleRequest, num_classes: int) -> None:
    """Raises Invalid where the classes do not fit a model with so many."""
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


_PICTURES = ("init_image", "mask")


def _packed(picture: UInt8) -> dict[str, Any]:
    return {"shape": picture.shape, "data": base64.b64encode(picture.tobytes()).decode()}


def _unpacked(packed: Mapping[str, Any]) -> UInt8:
    picture = np.frombuffer(base64.b64decode(packed["data"]), np.uint8)
    return picture.reshape(packed["shape"])


def _check(request: SampleRequest) -> None:
    if request.num_images < 1:
        raise Invalid("num_images", request.num_images, "it must be at least 1")
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


def _coefficients(
    prediction: Prediction, request: SampleRequest, table: SamplerTable, before: int
) -> NDArray[np.float32]:
    """`before` is how many rows look for the noise; they are neither guided nor told the class, so
    that a class changes the image afterwards."""
    denoiser = prediction.denoiser_coefficients(table.alpha, table.sigma)
    k = np.zeros((len(table), COLUMNS))
    k[:, C_IN], k[:, C_NOISE] = denoiser.c_in, table.c_noise
    k[:, P_X], k[:, P_F] = denoiser.p_x, denoiser.p_F
    k[:, K_X], k[:, K_0], k[:, K_S] = table.k_x, table.k_0, table.k_s
    k[:, K_1], k[:, K_2] = table.k_1, table.k_2
    k[:, GUIDANCE] = request.guidance_scale
    if request.guidance_interval:
        low, high = request.guidance_interval
        k[(table.t < low) | (table.t > high), GUIDANCE] = 1.0
    k[:before, GUIDANCE], k[:before, OPEN] = 1.0, 1.0
    k[:, BOUND] = 1.0 if request.clip and not request.invert else np.inf
    if request.disturb:
        k[before + _row_of_step(request, len(table) - before), DISTURB] = request.disturb.strength
    k[:, SHOWN] = np.maximum(1.0, np.hypot(table.alpha, table.sigma))
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
