"""Noise schedules: how much signal and how much noise an image holds at time t.

A schedule is two float64 tables, `alpha` and `sigma`, with x_t = alpha_t x_0 + sigma_t eps.
Index 0 is the clean image (alpha 1, sigma 0) and t = 1..T is noised; T is `num_train_timesteps`.
(diffusers counts from the first noised step: its t is ours minus 1.) Everything else, betas,
alphas_cumprod, snr and the kernel between any two times, is derived from the two tables.

Knows nothing of networks or images; all arithmetic is numpy's.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Literal, get_args

import numpy as np
from annotated_types import Interval
from typing_extensions import Doc

from models.arrays import Float64, Int64
from models.fields import Invalid, Label, check_fields

ScheduleName = Literal["linear", "scaled_linear", "cosine", "sigmoid", "edm", "flow"]
SCHEDULE_NAMES: tuple[ScheduleName, ...] = get_args(ScheduleName)

MAX_BETA = 0.999  # the cosine schedule's last steps would otherwise destroy all signal at once
MAX_TRAIN_TIMESTEPS = 10_000
# The ranges within which float64 still tells values from 0, 1 and infinity, squared and multiplied.
BETA = Interval(ge=1e-8, le=0.9999)
SIGMA = Interval(ge=1e-6, le=1e6)


@dataclass(frozen=True)
class ScheduleConfig:
    """A schedule's name and numbers, as a model keeps them. `beta_*` belong to the linear ones,
    `sigma_*` and `rho` to `edm`."""

    name: Annotated[
        ScheduleName,
        Doc("where left out the preset's: `linear` of ddpm, `edm` of edm"),
        Label("Schedule"),
    ] = "linear"
    num_train_timesteps: Annotated[
        int,
        Interval(ge=1, le=MAX_TRAIN_TIMESTEPS),
        Doc(f"1..{MAX_TRAIN_TIMESTEPS}; 1000 where left out"),
        Label("Time steps"),
    ] = 1000
    beta_start: Annotated[float, BETA, Doc("1e-4 where left out"), Label("First beta")] = 1e-4
    beta_end: Annotated[float, BETA, Doc("0.02 where left out"), Label("Last beta")] = 0.02
    rescale_zero_terminal_snr: Annotated[
        bool,
        Doc("no signal is left at the last step; goes with prediction_type `v` or `x0`"),
        Label("No signal at the last step"),
    ] = False
    sigma_min: Annotated[float, SIGMA, Doc("0.002 where left out"), Label("Smallest sigma")] = 0.002
    sigma_max: Annotated[float, SIGMA, Doc("80 where left out"), Label("Largest sigma")] = 80.0
    rho: Annotated[
        float, Interval(ge=0.5, le=100.0), Doc("7 where left out"), Label("Rho, which spaces sigma")
    ] = 7.0

    def __post_init__(self) -> None:
        if self.name not in SCHEDULE_NAMES:  # files and callers know the field as "schedule"
            raise Invalid("schedule", self.name, f"it must be one of {SCHEDULE_NAMES}")
        check_fields(self)
        if self.beta_start > self.beta_end:
            rule = f"it must not exceed beta_end, {self.beta_end}"
            raise Invalid("beta_start", self.beta_start, rule)
        if self.sigma_min >= self.sigma_max:
            raise Invalid(
                "sigma_min", self.sigma_min, f"it must be below sigma_max, {self.sigma_max}"
            )
        if self.rescale_zero_terminal_snr:
            self._check_rescaling()

    def _check_rescaling(self) -> None:
        field = "rescale_zero_terminal_snr"
        if not SCHEDULES[self.name].family.is_variance_preserving:
            message = (
                f"{field} does not apply to {self.name!r}; "
                "it rescales the variance-preserving schedules"
            )
            raise Invalid.because(message, field=field, value=True)
        if self.num_train_timesteps < 2:
            message = f"{field} needs num_train_timesteps of at least 2"
            raise Invalid.because(message, field=field, value=True)


@dataclass(frozen=True)
class NoiseSchedule:
    """A schedule's tables. `alpha` and `sigma` are (T + 1,) float64; sigma_t / alpha_t grows with
    t."""

    config: ScheduleConfig
    alpha: Float64
    sigma: Float64

    @classmethod
    def from_config(cls, config: ScheduleConfig) -> "NoiseSchedule":
        return cls(config, *SCHEDULES[config.name].tables(config))

    @property
    def family(self) -> "Family":
        return SCHEDULES[self.config.name].family

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
        """alpha_t^2 of t = 0..T. `edm` and `flow` do not preserve the variance: for them it is that
        of the variance-preserving process with the same signal-to-noise ratio."""
        return np.asarray(np.square(self.alpha) / (np.square(self.alpha) + np.square(self.sigma)))

    @property
    def betas(self) -> Float64:
        """beta_t of t = 1..T, (T,): the variance that each step adds."""
        alphas_cumprod = self.alphas_cumprod
        return 1.0 - alphas_cumprod[1:] / alphas_cumprod[:-1]

    @property
    def is_variance_preserving(self) -> bool:
        return self.family.is_variance_preserving

    def c_noise(self, t: Int64) -> Float64:
        """Return the noise label that conditions the network, at t >= 1."""
        return self.family.c_noise(t.astype(np.float64), self.sigma[t])

    def between(self, ratio: Float64) -> tuple[Float64, Float64, Float64, Float64]:
        """Return alpha, sigma, c_noise and t of the levels with sigma / alpha = `ratio`.

        A level may lie between two rows of the tables: c_noise and t are interpolated in log-SNR.
        `ratio` must lie within the ratios of t = 1..T; all results are shaped like it.
        """
        rows = np.flatnonzero(self.alpha[1:] > 0.0) + 1
        t = np.interp(np.log(ratio), np.log(self.sigma[rows] / self.alpha[rows]), rows)
        alpha = self.family.alpha_of(ratio)
        sigma = ratio * alpha
        return alpha, sigma, self.family.c_noise(t, sigma), t


def transition(alpha: Float64, sigma: Float64, s: int, t: int) -> tuple[float, float]:
    """Return (alpha_ts, sigma2_ts) of q(x_t | x_s) = N(alpha_ts x_s, sigma2_ts I), for two rows
    s < t of the tables.

    With s = 0 it is the closed form; with s = t - 1 it is one step, sqrt(1 - beta_t) and beta_t.
    """
    alpha_ts = float(alpha[t] / alpha[s])
    return alpha_ts, float(sigma[t] ** 2 - (alpha_ts * sigma[s]) ** 2)


def karras_sigmas(sigma_max: float, sigma_min: float, rho: float, n: int) -> Float64:
    """Return n noise levels from sigma_max to sigma_min, evenly spaced in sigma^(1/rho) (EDM,
    eq. 5)."""
    ramp = np.linspace(0.0, 1.0, n) if n > 1 else np.zeros(1)
    high, low = sigma_max ** (1 / rho), sigma_min ** (1 / rho)
    return np.asarray((high + ramp * (low - high)) ** rho, dtype=np.float64)


# Families: how alpha and sigma share a noise-to-signal ratio --------------------------------------


@dataclass(frozen=True)
class Family:
    """The common properties of schedules of one kind.

    `alpha_of(sigma / alpha)` is the signal's share at a noise-to-signal ratio. `c_noise(t, sigma)`
    is the label that conditions the network on the noise level. `is_made_of_timesteps` is False
    if levels are values of sigma: training then draws ln(sigma) instead of t, and sampling spaces
    sigma instead of striding over t.
    """

    alpha_of: Callable[[Float64], Float64]
    c_noise: Callable[[Float64, Float64], Float64]
    is_variance_preserving: bool = False
    is_made_of_timesteps: bool = True


def _timestep_of_diffusers(t: Float64, sigma: Float64) -> Float64:
    return t - 1.0


VARIANCE_PRESERVING = Family(
    alpha_of=lambda ratio: np.asarray(1.0 / np.sqrt(1.0 + np.square(ratio))),
    c_noise=_timestep_of_diffusers,
    is_variance_preserving=True,
)
FLOW = Family(alpha_of=lambda ratio: 1.0 / (1.0 + ratio), c_noise=_timestep_of_diffusers)
EDM = Family(
    alpha_of=np.ones_like,
    c_noise=lambda t, sigma: np.asarray(np.log(sigma) / 4.0),  # EDM, table 1
    is_made_of_timesteps=False,
)


# Tables: alpha and sigma of t = 0..T --------------------------------------------------------------

Tables = tuple[Float64, Float64]


def _edm(config: ScheduleConfig) -> Tables:
    levels = karras_sigmas(
        config.sigma_max, config.sigma_min, config.rho, config.num_train_timesteps
    )
    sigma = np.concatenate([[0.0], levels[::-1]])
    return np.ones_like(sigma), sigma


def _flow(config: ScheduleConfig) -> Tables:
    sigma = np.arange(config.num_train_timesteps + 1) / config.num_train_timesteps
    return 1.0 - sigma, sigma


def _from_betas(betas: Callable[[ScheduleConfig], Float64]) -> Callable[[ScheduleConfig], Tables]:
    """Return the function that makes the tables of a variance-preserving schedule."""

    def tables(config: ScheduleConfig) -> Tables:
        alphas_cumprod = np.cumprod(1.0 - betas(config))
        if config.rescale_zero_terminal_snr:
            alphas_cumprod = _zero_terminal_snr(np.asarray(alphas_cumprod))
        alphas_cumprod = np.concatenate([[1.0], alphas_cumprod])
        return np.sqrt(alphas_cumprod), np.sqrt(1.0 - alphas_cumprod)

    return tables


def _linear(config: ScheduleConfig) -> Float64:
    return np.linspace(config.beta_start, config.beta_end, config.num_train_timesteps)


def _scaled_linear(config: ScheduleConfig) -> Float64:
    low, high = config.beta_start**0.5, config.beta_end**0.5
    return np.asarray(np.linspace(low, high, config.num_train_timesteps) ** 2)


def _cosine(config: ScheduleConfig) -> Float64:
    u = np.arange(config.num_train_timesteps + 1) / config.num_train_timesteps
    return _betas_of(np.cos((u + 0.008) / 1.008 * np.pi / 2) ** 2)  # their eq. 17


def _sigmoid_betas(config: ScheduleConfig) -> Float64:
    """Return betas for start -3, end 3 and temperature 1."""
    u = np.arange(config.num_train_timesteps + 1) / config.num_train_timesteps
    return _betas_of(_sigmoid(3.0) - _sigmoid(6.0 * u - 3.0) + 1e-12)


def _betas_of(alphas_cumprod: Float64) -> Float64:
    return np.minimum(1.0 - alphas_cumprod[1:] / alphas_cumprod[:-1], MAX_BETA)


def _sigmoid(x: Float64 | float) -> Float64:
    return np.asarray(1.0 / (1.0 + np.exp(-np.asarray(x))))


def _zero_terminal_snr(alphas_cumprod: Float64) -> Float64:
    """Shift and scale sqrt(abar) so that the last is 0 and the first stays (Lin et al. 2023)."""
    root = np.sqrt(alphas_cumprod)
    return np.asarray(np.square((root - root[-1]) * root[0] / (root[0] - root[-1])))


# The schedules, a row each ------------------------------------------------------------------------


@dataclass(frozen=True)
class ScheduleKind:
    """One row of the table of schedules. `tables` makes alpha and sigma (T + 1,) from a config.
    `diffusers` is its name as a beta_schedule of diffusers, or None if its betas need a table."""

    about: str
    family: Family
    tables: Callable[[ScheduleConfig], Tables]
    diffusers: str | None = None


SCHEDULES: dict[ScheduleName, ScheduleKind] = {
    "linear": ScheduleKind(
        "beta rises evenly from 1e-4 to 0.02 (Ho et al. 2020)",
        VARIANCE_PRESERVING,
        _from_betas(_linear),
        diffusers="linear",
    ),
    "scaled_linear": ScheduleKind(
        "the square root of beta rises evenly (Rombach et al. 2022)",
        VARIANCE_PRESERVING,
        _from_betas(_scaled_linear),
        diffusers="scaled_linear",
    ),
    "cosine": ScheduleKind(
        "alphas_cumprod falls as a squared cosine (Nichol & Dhariwal 2021)",
        VARIANCE_PRESERVING,
        _from_betas(_cosine),
    ),
    "sigmoid": ScheduleKind(
        "alphas_cumprod falls as a sigmoid (Jabri et al. 2022)",
        VARIANCE_PRESERVING,
        _from_betas(_sigmoid_betas),
    ),
    "edm": ScheduleKind(
        "alpha is 1 and sigma rises from 0.002 to 80 (Karras et al. 2022)", EDM, _edm
    ),
    "flow": ScheduleKind("alpha = 1 - t/T and sigma = t/T (Lipman et al. 2023)", FLOW, _flow),
}
