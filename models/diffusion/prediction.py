"""The quantity that the network predicts, and how a clean image is read off it.

The target is a pair of numbers, y = a x_0 + b eps, per noise level:

    epsilon   a = 0        b = 1       Ho et al. 2020
    x0        a = 1        b = 0
    v         a = -sigma   b = alpha   Salimans & Ho 2022
    flow      a = -1       b = 1       Lipman et al. 2023
    edm       a = sigma / (sigma_data r),  b = -sigma_data / r,  r = sqrt(sigma^2 + sigma_data^2)
              Karras et al. 2022: their F_theta, for alpha = 1

Together with x_t = alpha x_0 + sigma eps it is solved for the clean image:
x_0 = (sigma y - b x_t) / D with D = a sigma - b alpha. So every denoiser has one form,

    x0_hat = p_x x_t + p_F net(c_in x_t, c_noise, label)

with numbers per row. Where D is 0 there is no solution; `Prediction.check` refuses such a pair of
prediction and schedule when the config is read.

The functions take and give float64 arrays of any shape.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from models.arrays import AnyArray, Float64
from models.diffusion.schedule import NoiseSchedule, ScheduleName
from models.fields import Invalid

PredictionType = Literal["epsilon", "x0", "v", "flow", "edm"]
PREDICTION_TYPES: tuple[PredictionType, ...] = get_args(PredictionType)

Target = tuple[Float64, Float64]


@dataclass(frozen=True)
class PredictionKind:
    """One row of the table above. `target(alpha, sigma, sigma_data)` is (a, b), and
    `input_scale(sigma, sigma_data)` is c_in. `diffusers` is its name in diffusers, or None.
    `only_with` names the one schedule that it goes with, or None for any."""

    target: Callable[[Float64, Float64, float], Target]
    diffusers: str | None = None
    only_with: ScheduleName | None = None
    input_scale: Callable[[Float64, float], Float64] = lambda sigma, sigma_data: np.ones_like(sigma)


def _epsilon(alpha: Float64, sigma: Float64, sigma_data: float) -> Target:
    return np.zeros_like(sigma), np.ones_like(sigma)


def _x0(alpha: Float64, sigma: Float64, sigma_data: float) -> Target:
    return np.ones_like(sigma), np.zeros_like(sigma)


def _v(alpha: Float64, sigma: Float64, sigma_data: float) -> Target:
    return -sigma, alpha


def _flow(alpha: Float64, sigma: Float64, sigma_data: float) -> Target:
    return -np.ones_like(sigma), np.ones_like(sigma)


def _edm(alpha: Float64, sigma: Float64, sigma_data: float) -> Target:
    r = np.sqrt(np.square(sigma) + sigma_data**2)
    return sigma / (sigma_data * r), -sigma_data / r


def _edm_input_scale(sigma: Float64, sigma_data: float) -> Float64:
    return np.asarray(1.0 / np.sqrt(np.square(sigma) + sigma_data**2))


PREDICTIONS: dict[PredictionType, PredictionKind] = {
    "epsilon": PredictionKind(_epsilon, diffusers="epsilon"),
    "x0": PredictionKind(_x0, diffusers="sample"),
    "v": PredictionKind(_v, diffusers="v_prediction"),
    "flow": PredictionKind(_flow, only_with="flow"),
    "edm": PredictionKind(_edm, only_with="edm", input_scale=_edm_input_scale),
}


@dataclass(frozen=True)
class DenoiserCoefficients:
    """The coefficients of x0_hat = p_x x_t + p_F net(c_in x_t), of one shape."""

    p_x: Float64
    p_F: Float64
    c_in: Float64


@dataclass(frozen=True)
class Prediction:
    """A prediction type with its number: `sigma_data` is the data's standard deviation, which only
    `edm` uses."""

    type: PredictionType = "epsilon"
    sigma_data: float = 0.5

    def __post_init__(self) -> None:
        if self.type not in PREDICTIONS:
            raise Invalid("prediction_type", self.type, f"it must be one of {PREDICTION_TYPES}")
        if not 0 < self.sigma_data < np.inf:
            raise Invalid("sigma_data", self.sigma_data, "it must be above 0")

    def target_coefficients(self, alpha: Float64, sigma: Float64) -> Target:
        """Return (a, b) of y = a x0 + b eps."""
        return PREDICTIONS[self.type].target(alpha, sigma, self.sigma_data)

    def denoiser_coefficients(self, alpha: Float64, sigma: Float64) -> DenoiserCoefficients:
        """Return p_x, p_F and the input scale c_in at noise levels with sigma > 0."""
        a, b = self.target_coefficients(alpha, sigma)
        determinant = a * sigma - b * alpha
        c_in = PREDICTIONS[self.type].input_scale(sigma, self.sigma_data)
        return DenoiserCoefficients(p_x=-b / determinant, p_F=sigma / determinant, c_in=c_in)

    def check(self, schedule: NoiseSchedule) -> None:
        """Refuse a schedule where the clean image cannot be read off at every t. Raises Invalid."""
        self._check_family(schedule.config.name)
        a, b = self.target_coefficients(schedule.alpha[1:], schedule.sigma[1:])
        determinant = a * schedule.sigma[1:] - b * schedule.alpha[1:]
        singular = np.flatnonzero(np.abs(determinant) < 1e-9) + 1
        if singular.size:
            others = "'flow', 'v' or 'x0'" if schedule.config.name == "flow" else "'v' or 'x0'"
            raise self._refusal(
                f"cannot give the clean image at t = {singular[0]} "
                f"of schedule {schedule.config.name!r}, where no signal is left; use {others}"
            )

    def _check_family(self, schedule: ScheduleName) -> None:
        only_with = PREDICTIONS[self.type].only_with
        if "edm" in (self.type, schedule) and self.type != schedule:
            raise self._refusal(
                f"does not go with schedule {schedule!r}; 'edm' goes with 'edm', and only with it"
            )
        if only_with and schedule != only_with:
            raise self._refusal(
                f"does not go with schedule {schedule!r}; it needs schedule {only_with!r}"
            )

    def _refusal(self, reason: str) -> Invalid:
        message = f"prediction_type {self.type!r} {reason}"
        return Invalid.because(message, field="prediction_type", value=self.type)


def read_off(y: AnyArray, x_t: AnyArray, p_x: AnyArray, p_F: AnyArray) -> AnyArray:
    """Return x0_hat = p_x x_t + p_F y, float32 (B, C, H, W), from the network's output y of any
    precision. The coefficients are float32 (B, 1, 1, 1)."""
    y = y.astype(np.float32, copy=False) if isinstance(y, np.ndarray) else y.float()
    return p_x * x_t + p_F * y
