"""Noise schedules: how much signal and how much noise an image holds at time t.

A schedule is two float64 tables, `alpha` and `sigma`, with x_t = alpha_t x_0 + sigma_t eps.
Index 0 is the clean image (alpha 1, sigma 0) and t = 1..T is noised; T is `num_train_timesteps`.
(diffusers counts from the first noised step: its t is ours minus 1.) Everything else, betas,
alphas_cumprod, snr and the kernel between any two times, is derived from the two tables.

Knows nothing of networks, images or torch.
"""

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from models.fields import check_number, check_whole

ScheduleName = Literal["linear", "scaled_linear", "cosine", "sigmoid", "edm", "flow"]
SCHEDULE_NAMES: tuple[ScheduleName, ...] = get_args(ScheduleName)

MAX_BETA = 0.999  # the cosine schedule's last steps would otherwise destroy all signal at once
MAX_TRAIN_TIMESTEPS = 10_000
# What float64 still tells from 0, 1 and infinity, squared and multiplied up.
BETA_RANGE = (1e-8, 0.9999)
SIGMA_RANGE = (1e-6, 1e6)
RHO_RANGE = (0.5, 100.0)

Float64 = NDArray[np.float64]


@dataclass(frozen=True)
class ScheduleConfig:
    """What a model must remember of its schedule. `beta_*` belong to the linear ones,
    `sigma_*` and `rho` to `edm`."""

    name: ScheduleName = "linear"
    num_train_timesteps: int = 1000
    beta_start: float = 1e-4
    beta_end: float = 0.02
    rescale_zero_terminal_snr: bool = False
    sigma_min: float = 0.002
    sigma_max: float = 80.0
    rho: float = 7.0

    def __post_init__(self) -> None:
        if self.name not in SCHEDULE_NAMES:
            raise ValueError(f"schedule is {self.name!r}; it must be one of {SCHEDULE_NAMES}")
        check_whole("num_train_timesteps", self.num_train_timesteps, 1, MAX_TRAIN_TIMESTEPS)
        check_number("beta_start", self.beta_start, *BETA_RANGE)
        check_number("beta_end", self.beta_end, *BETA_RANGE)
        check_number("sigma_min", self.sigma_min, *SIGMA_RANGE)
        check_number("sigma_max", self.sigma_max, *SIGMA_RANGE)
        check_number("rho", self.rho, *RHO_RANGE)
        if self.beta_start > self.beta_end:
            raise ValueError(
                f"beta_start is {self.beta_start}; it must not exceed beta_end, {self.beta_end}"
            )
        if self.sigma_min >= self.sigma_max:
            raise ValueError(
                f"sigma_min is {self.sigma_min}; it must be below sigma_max, {self.sigma_max}"
            )
        if self.rescale_zero_terminal_snr and self.name in ("edm", "flow"):
            raise ValueError(
                f"rescale_zero_terminal_snr does not apply to {self.name!r}; "
                "it rescales the variance-preserving schedules"
            )
        if self.rescale_zero_terminal_snr and self.num_train_timesteps < 2:
            raise ValueError("rescale_zero_terminal_snr needs num_train_timesteps of at least 2")


@dataclass(frozen=True)
class NoiseSchedule:
    """The tables. `alpha` and `sigma` are (T + 1,) float64; sigma_t / alpha_t grows with t."""

    config: ScheduleConfig
    alpha: Float64
    sigma: Float64

    @classmethod
    def from_config(cls, config: ScheduleConfig) -> "NoiseSchedule":
        if config.name == "edm":
            levels = karras_sigmas(
                config.sigma_max, config.sigma_min, config.rho, config.num_train_timesteps
            )
            sigma = np.concatenate([[0.0], levels[::-1]])
            return cls(config, np.ones_like(sigma), sigma)
        if config.name == "flow":
            sigma = np.arange(config.num_train_timesteps + 1) / config.num_train_timesteps
            return cls(config, 1.0 - sigma, sigma)
        alphas_cumprod = np.cumprod(1.0 - _betas(config))
        if config.rescale_zero_terminal_snr:
            alphas_cumprod = _zero_terminal_snr(np.asarray(alphas_cumprod))
        alphas_cumprod = np.concatenate([[1.0], alphas_cumprod])
        return cls(config, np.sqrt(alphas_cumprod), np.sqrt(1.0 - alphas_cumprod))

    @property
    def num_train_timesteps(self) -> int:
        return len(self.alpha) - 1

    @property
    def snr(self) -> Float64:
        """Signal-to-noise ratio alpha^2 / sigma^2 of t = 0..T; infinite at t = 0."""
        with np.errstate(divide="ignore"):
            return np.asarray(np.square(self.alpha) / np.square(self.sigma))

    @property
    def alphas_cumprod(self) -> Float64:
        """alpha_t^2 of t = 0..T. For `edm` and `flow`, which do not keep the variance, that of the
        variance-preserving process with the same signal-to-noise ratio."""
        return np.asarray(np.square(self.alpha) / (np.square(self.alpha) + np.square(self.sigma)))

    @property
    def betas(self) -> Float64:
        """The variance that each step adds, beta_t of t = 1..T: (T,)."""
        alphas_cumprod = self.alphas_cumprod
        return 1.0 - alphas_cumprod[1:] / alphas_cumprod[:-1]

    @property
    def is_variance_preserving(self) -> bool:
        return self.config.name not in ("edm", "flow")

    def c_noise(self, t: NDArray[np.int64]) -> Float64:
        """What the network is told of the noise level at t >= 1: ln(sigma) / 4 for `edm` (EDM,
        table 1), else t - 1, as diffusers counts."""
        if self.config.name == "edm":
            return np.asarray(np.log(self.sigma[t]) / 4.0)
        return t.astype(np.float64) - 1.0

    def between(self, ratio: Float64) -> tuple[Float64, Float64, Float64, Float64]:
        """alpha, sigma, c_noise and t of the levels with sigma / alpha = `ratio`, which may lie
        between two rows of the tables: c_noise and t are interpolated in log-SNR. Within the
        ratios of t = 1..T; all shaped like `ratio`."""
        rows = np.flatnonzero(self.alpha[1:] > 0.0) + 1
        t = np.interp(np.log(ratio), np.log(self.sigma[rows] / self.alpha[rows]), rows)
        match self.config.name:
            case "edm":
                return np.ones_like(ratio), ratio, np.log(ratio) / 4.0, t
            case "flow":
                alpha = 1.0 / (1.0 + ratio)
            case _:
                alpha = 1.0 / np.sqrt(1.0 + np.square(ratio))
        return alpha, ratio * alpha, t - 1.0, t


def transition(alpha: Float64, sigma: Float64, s: int, t: int) -> tuple[float, float]:
    """The kernel q(x_t | x_s) = N(alpha_ts x_s, sigma2_ts I) between two rows s < t of the tables.

    With s = 0 it is the closed form; with s = t - 1 it is one step, sqrt(1 - beta_t) and beta_t.
    """
    alpha_ts = float(alpha[t] / alpha[s])
    return alpha_ts, float(sigma[t] ** 2 - (alpha_ts * sigma[s]) ** 2)


def karras_sigmas(sigma_max: float, sigma_min: float, rho: float, n: int) -> Float64:
    """n noise levels from sigma_max to sigma_min, evenly spaced in sigma^(1/rho) (EDM, eq. 5)."""
    ramp = np.linspace(0.0, 1.0, n) if n > 1 else np.zeros(1)
    high, low = sigma_max ** (1 / rho), sigma_min ** (1 / rho)
    return np.asarray((high + ramp * (low - high)) ** rho, dtype=np.float64)


def _betas(config: ScheduleConfig) -> Float64:
    steps = config.num_train_timesteps
    match config.name:
        case "linear":  # Ho et al. 2020
            return np.linspace(config.beta_start, config.beta_end, steps)
        case "scaled_linear":  # Rombach et al. 2022
            return np.linspace(config.beta_start**0.5, config.beta_end**0.5, steps) ** 2
        case "cosine":  # Nichol & Dhariwal 2021, eq. 17
            u = np.arange(steps + 1) / steps
            return _betas_of(np.cos((u + 0.008) / 1.008 * np.pi / 2) ** 2)
        case "sigmoid":  # Jabri et al. 2022, with start -3, end 3 and temperature 1
            u = np.arange(steps + 1) / steps
            return _betas_of(_sigmoid(3.0) - _sigmoid(6.0 * u - 3.0) + 1e-12)
        case _:
            raise ValueError(f"schedule {config.name!r} has no betas")


def _betas_of(alphas_cumprod: Float64) -> Float64:
    return np.minimum(1.0 - alphas_cumprod[1:] / alphas_cumprod[:-1], MAX_BETA)


def _sigmoid(x: Float64 | float) -> Float64:
    return np.asarray(1.0 / (1.0 + np.exp(-np.asarray(x))))


def _zero_terminal_snr(alphas_cumprod: Float64) -> Float64:
    """Shift and scale sqrt(abar) so that the last is 0 and the first stays (Lin et al. 2023)."""
    root = np.sqrt(alphas_cumprod)
    return np.asarray(np.square((root - root[-1]) * root[0] / (root[0] - root[-1])))
