"""What the network predicts, and how a clean image is read off it.

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

with numbers per row. Where D is 0 there is no answer; `Prediction.check` refuses such a pair of
prediction and schedule when the config is read.

The functions take and give float64 arrays of any shape.
"""

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from models.diffusion.schedule import Float64, NoiseSchedule

PredictionType = Literal["epsilon", "x0", "v", "flow", "edm"]
PREDICTION_TYPES: tuple[PredictionType, ...] = get_args(PredictionType)


@dataclass(frozen=True)
class DenoiserCoefficients:
    p_x: Float64
    p_F: Float64
    c_in: Float64


@dataclass(frozen=True)
class Prediction:
    """`sigma_data` is the data's standard deviation; only `edm` uses it."""

    type: PredictionType = "epsilon"
    sigma_data: float = 0.5

    def __post_init__(self) -> None:
        if self.type not in PREDICTION_TYPES:
            raise ValueError(
                f"prediction_type is {self.type!r}; it must be one of {PREDICTION_TYPES}"
            )
        if not 0 < self.sigma_data < np.inf:
            raise ValueError(f"sigma_data is {self.sigma_data}; it must be above 0")

    def target_coefficients(self, alpha: Float64, sigma: Float64) -> tuple[Float64, Float64]:
        """(a, b) of y = a x0 + b eps."""
        zero, one = np.zeros_like(sigma), np.ones_like(sigma)
        match self.type:
            case "epsilon":
                return zero, one
            case "x0":
                return one, zero
            case "v":
                return -sigma, alpha
            case "flow":
                return -one, one
            case "edm":
                r = np.sqrt(np.square(sigma) + self.sigma_data**2)
                return sigma / (self.sigma_data * r), -self.sigma_data / r

    def denoiser_coefficients(self, alpha: Float64, sigma: Float64) -> DenoiserCoefficients:
        """p_x, p_F and the input scale c_in at noise levels with sigma > 0."""
        a, b = self.target_coefficients(alpha, sigma)
        determinant = a * sigma - b * alpha
        if self.type == "edm":
            c_in = 1.0 / np.sqrt(np.square(sigma) + self.sigma_data**2)
        else:
            c_in = np.ones_like(sigma)
        return DenoiserCoefficients(p_x=-b / determinant, p_F=sigma / determinant, c_in=c_in)

    def check(self, schedule: NoiseSchedule) -> None:
        """ValueError where the clean image cannot be read off the prediction at every t."""
        if (self.type == "edm") != (schedule.config.name == "edm"):
            raise ValueError(
                f"prediction_type {self.type!r} does not go with schedule "
                f"{schedule.config.name!r}; 'edm' goes with 'edm', and only with it"
            )
        if self.type == "flow" and schedule.config.name != "flow":
            raise ValueError(
                f"prediction_type 'flow' does not go with schedule {schedule.config.name!r}; "
                "it needs schedule 'flow'"
            )
        a, b = self.target_coefficients(schedule.alpha[1:], schedule.sigma[1:])
        determinant = a * schedule.sigma[1:] - b * schedule.alpha[1:]
        singular = np.flatnonzero(np.abs(determinant) < 1e-9) + 1
        if singular.size:
            others = "'flow', 'v' or 'x0'" if schedule.config.name == "flow" else "'v' or 'x0'"
            raise ValueError(
                f"prediction_type {self.type!r} cannot give the clean image at t = {singular[0]} "
                f"of schedule {schedule.config.name!r}, where no signal is left; use {others}"
            )
