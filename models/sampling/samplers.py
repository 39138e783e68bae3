"""Samplers as tables: one row of numbers per network evaluation.

Every linear sampler is a list of rows of

    x  <-  k_x x + k_0 x0_hat + k_1 x0_prev + k_2 x0_prev2 + k_s noise

where x0_hat is the clean image that the network sees in x at this row's noise level, and x0_prev,
x0_prev2 are what it saw one and two rows earlier. So the sampling loop knows nothing of samplers,
and rows of different samplers can share one network call.

A sampler is a function from a grid of noise levels, noisiest first and clean last, to a table.
Below, `a` stands for alpha, `s` for sigma; `Combination` does the linear algebra, so that a sampler
reads as in its paper. Float64 throughout; knows nothing of networks, images or torch.
"""

import math
from collections.abc import Callable
from dataclasses import astuple, dataclass
from typing import Literal, get_args

import numpy as np

from models.arrays import Float64
from models.diffusion.schedule import SCHEDULES, NoiseSchedule, ScheduleName, karras_sigmas
from models.fields import Invalid

SamplerName = Literal[
    "ddpm",
    "ddim",
    "euler",
    "euler_ancestral",
    "heun",
    "dpmpp_2m",
    "dpmpp_2m_sde",
    "dpmpp_3m",
    "deis",
    "unipc",
    "consistency",
]
SAMPLER_NAMES: tuple[SamplerName, ...] = get_args(SamplerName)

Spacing = Literal["trailing", "leading", "linspace", "karras", "logsnr", "coarse"]
SPACINGS: tuple[Spacing, ...] = get_args(Spacing)
ABOUT_SPACINGS: dict[Spacing, str] = {
    "trailing": ("even strides that begin at T; the safe choice where no signal is left there"),
    "leading": ("even strides that end at t = 1 and do not begin at T, as early code has them"),
    "linspace": "evenly from T to 1, both included",
    "karras": ("even in (sigma / alpha)^(1/7), most of them at low noise (Karras et al. 2022)"),
    "logsnr": "even in ln(alpha / sigma), most of them at low noise (Lu et al. 2022)",
    "coarse": "as karras, without the last level; the default of sampler consistency",
}

Variance = Literal["fixed_small", "fixed_large"]


@dataclass(frozen=True)
class Grid:
    """N + 1 noise levels from the noisiest to the clean image; all float64 (N + 1,).

    `c_noise` is what the network is told, `t` the schedule's time for display (interpolated where
    the level lies between two of its rows). Both are 0 at the clean end, where nobody looks.
    """

    alpha: Float64
    sigma: Float64
    c_noise: Float64
    t: Float64

    def __len__(self) -> int:
        return len(self.alpha) - 1


@dataclass(frozen=True)
class SamplerTable:
    """Rows in order; all float64 (R,). alpha, sigma, c_noise, t say where the network looks."""

    alpha: Float64
    sigma: Float64
    c_noise: Float64
    t: Float64
    k_x: Float64
    k_0: Float64
    k_1: Float64
    k_2: Float64
    k_s: Float64

    def __len__(self) -> int:
        return len(self.k_x)

    def __add__(self, other: "SamplerTable") -> "SamplerTable":
        """First this one's rows, then the other's."""
        return SamplerTable(
            *(np.concatenate(both) for both in zip(astuple(self), astuple(other), strict=True))
        )


def spacings_of(schedule: ScheduleName) -> tuple[Spacing, ...]:
    """The spacings that fit a schedule; the first is its default. `edm` is not made of timesteps,
    so those that stride over timesteps say nothing there."""
    if SCHEDULES[schedule].family.is_made_of_timesteps:
        return SPACINGS
    return ("karras", "logsnr", "coarse")


def default_spacing(sampler: SamplerName, schedule: ScheduleName) -> Spacing:
    return "coarse" if sampler == "consistency" else spacings_of(schedule)[0]


def timestep_grid(
    schedule: NoiseSchedule, num_inference_steps: int, spacing: Spacing | None = None
) -> Grid:
    """The levels that a sampler visits.

    Rows of the schedule: `trailing` starts at T and strides evenly; `leading` never starts at T;
    `linspace` spans 1..T. Levels of their own, from T exactly to t = 1: `karras` is even in
    (sigma / alpha)^(1 / rho) (EDM, eq. 5), `logsnr` in ln(alpha / sigma) (Lu et al. 2022).
    `coarse` is `karras` of one level more without the last, which is as good as clean: for a model
    that jumps to the clean image from anywhere.

    None is the default of `spacings_of`. Raises Invalid for a spacing that does not fit, or
    steps outside 1..T.
    """
    T = schedule.num_train_timesteps
    fitting = spacings_of(schedule.config.name)
    spacing = spacing or fitting[0]
    if spacing not in SPACINGS:
        raise Invalid("spacing", spacing, f"it must be one of {SPACINGS}")
    if not 1 <= num_inference_steps <= T:
        raise Invalid(
            "num_inference_steps",
            num_inference_steps,
            f"it must lie in 1..{T}, the model's num_train_timesteps",
        )
    if spacing not in fitting:
        raise Invalid.because(
            f"spacing {spacing!r} does not fit schedule {schedule.config.name!r}; "
            f"it takes one of {fitting}",
            field="spacing",
        )
    n = num_inference_steps
    match spacing:
        case "karras" | "logsnr" if n > 1:
            return _spread(schedule, n, spacing)
        case "coarse" if n > 1:
            return _without(_spread(schedule, n + 1, "karras"), n)
        case "leading":
            steps = np.arange(n)[::-1] * (T // n) + 1
        case "linspace":
            steps = np.round(np.linspace(T, 1, n)).astype(np.int64)
        case _:  # trailing; and a single level is T however it is spaced
            steps = np.round(T - np.arange(n) * (T / n)).astype(np.int64)
    return _with_clean_end(
        schedule.alpha[steps], schedule.sigma[steps], schedule.c_noise(steps), steps.astype(float)
    )


def grid_from(grid: Grid, first: int) -> Grid:
    """The tail of a grid from level `first`, where img2img starts; a sampler's history starts
    afresh there. Raises Invalid for a level outside 0..N - 1."""
    if not 0 <= first < len(grid):
        raise Invalid("first", first, f"it must lie in 0..{len(grid) - 1}")
    return Grid(grid.alpha[first:], grid.sigma[first:], grid.c_noise[first:], grid.t[first:])


def first_level(grid: Grid, strength: float) -> int:
    """Where `grid_from` starts for a strength in (0, 1]: that share of the N steps is walked,
    rounded, at least one. Raises Invalid for a strength out of range."""
    if not 0.0 < strength <= 1.0:
        raise Invalid("strength", strength, "it must lie above 0 and at most at 1")
    return len(grid) - max(1, math.floor(strength * len(grid) + 0.5))


def sampler_table(
    name: SamplerName,
    grid: Grid,
    *,
    eta: float = 0.0,
    variance: Variance = "fixed_small",
) -> SamplerTable:
    """The rows of one sampler on one grid. `eta` in 0..1 is DDIM's share of fresh noise; `variance`
    is DDPM's. Raises Invalid for an unknown name or an eta out of range."""
    if name not in SAMPLER_NAMES:
        raise Invalid("sampler", name, f"it must be one of {SAMPLER_NAMES}")
    if not 0.0 <= eta <= 1.0:
        raise Invalid("eta", eta, "it must lie in 0..1")
    if eta and name != "ddim":
        raise Invalid("eta", eta, "only sampler 'ddim' takes it")
    return SAMPLERS[name].table(grid, eta, variance)


# Ancestral sampling: Ho et al. 2020, eq. 7, for any spacing ---------------------------------------


def ddpm(grid: Grid, variance: Variance = "fixed_small") -> SamplerTable:
    rows = []
    for i in range(len(grid)):
        a_t, s_t, a_s, s_s = _ends(grid, i)
        posterior_x, posterior_0, sigma2_ts = _posterior(a_t, s_t, a_s, s_s)
        small = s_s**2 * sigma2_ts / s_t**2
        noise = small if variance == "fixed_small" else sigma2_ts
        # The last step goes to its mean: s_s = 0.
        rows.append(Row(i, posterior_x * X + posterior_0 * X0, math.sqrt(noise) if s_s else 0.0))
    return _table(grid, rows)


# Implicit sampling: Song et al. 2021, eq. 12 ------------------------------------------------------


def ddim(grid: Grid, eta: float = 0.0) -> SamplerTable:
    rows = []
    for i in range(len(grid)):
        a_t, s_t, a_s, s_s = _ends(grid, i)
        _, _, sigma2_ts = _posterior(a_t, s_t, a_s, s_s)
        noise = eta * math.sqrt(max(s_s**2 * sigma2_ts / s_t**2, 0.0))
        eps = (X - a_t * X0) / s_t
        # With eta 1 and no signal at t all of s_s is fresh, up to rounding.
        kept = math.sqrt(max(s_s**2 - noise**2, 0.0))
        rows.append(Row(i, a_s * X0 + kept * eps, noise))
    return _table(grid, rows)


# Second order, two evaluations a step: Karras et al. 2022, algorithm 1 ---------------------------


def heun(grid: Grid) -> SamplerTable:
    """The second row of a step starts from the first's result, of which its base point is a linear
    function; so it needs one column of history and no second image."""
    _needs_signal("heun", grid)
    rows = []
    for i in range(len(grid)):
        a_t, s_t, a_s, s_s = _ends(grid, i)
        r_t, r_s = s_t / a_t, s_s / a_s  # in x / a the ODE is d(x / a) / dr = eps
        euler = _euler(X, X0, a_t, s_t, a_s, s_s)
        rows.append(Row(i, euler))
        if s_s == 0.0:
            break
        # Row two sees X = euler(base, X0_PREV): solve for the base point.
        base = (X - euler.x0 * X0_PREV) / euler.x
        slope_t, slope_s = (base / a_t - X0_PREV) / r_t, (X / a_s - X0) / r_s
        rows.append(Row(i + 1, a_s * (base / a_t + 0.5 * (r_s - r_t) * (slope_t + slope_s))))
    return _table(grid, rows)


# Multistep: Lu et al. 2022, DPM-Solver++(2M), algorithm 2 ----------------------------------------


def dpmpp_2m(grid: Grid) -> SamplerTable:
    return _table(
        grid,
        [Row(i, _euler(X, _midpoint(grid, i), *_ends(grid, i))) for i in range(len(grid))],
    )


# The same with fresh noise: Lu et al. 2022, SDE-DPM-Solver++(2M) ---------------------------------


def dpmpp_2m_sde(grid: Grid, eta: float = 1.0) -> SamplerTable:
    """`eta` scales the noise: 1 solves the reverse SDE, 0 is `dpmpp_2m`. With x0_hat held over the
    step instead of extrapolated, eta 1 would be `ddpm` with fixed_small."""
    rows = []
    for i in range(len(grid)):
        a_t, s_t, a_s, s_s = _ends(grid, i)
        shrink = (a_t * s_s) / (a_s * s_t)  # e^-h; 0 from no signal and to no noise
        kept = shrink**eta
        update = (s_s / s_t) * kept * X + a_s * (1.0 - shrink * kept) * _midpoint(grid, i)
        rows.append(Row(i, update, s_s * math.sqrt(1.0 - kept**2)))
    return _table(grid, rows)


# With a parabola through the last three: DPM-Solver++(3M), and DEIS for x0_hat -------------------


def dpmpp_3m(grid: Grid) -> SamplerTable:
    """DPM-Solver++(3M) as its authors' code and the ports of it have it. There the bend of the
    parabola has half the weight that the integral gives it (compare `deis`): the order is 2, with a
    quarter of 2M's error, and coarse grids overshoot less than with the whole weight."""
    rows = []
    for i in range(len(grid)):
        x0 = _midpoint(grid, i)
        if _parabola_holds(grid, i):
            slope, bend = _parabola(grid, i)
            mean, mean_square = _exponential_means(_log_snr_step(grid, i))
            x0 = X0 + mean * slope + 0.5 * mean_square * bend
        rows.append(Row(i, _euler(X, x0, *_ends(grid, i))))
    return _table(grid, rows)


def deis(grid: Grid) -> SamplerTable:
    """Zhang & Chen 2023 in ln(sigma / alpha), order 3: the ODE with its linear part solved exactly
    and the network's answer replaced by the parabola through the last three.

    Theirs extrapolates eps. The eps of an earlier row needs that row's x, which depends on x0_hat
    of every row before it, so no fixed number of columns holds it. This is the same method for
    x0_hat, which two columns of history hold.
    """
    rows = []
    for i in range(len(grid)):
        x0 = X0
        if i > 0 and grid.sigma[i + 1] > 0.0:
            slope, bend = _parabola(grid, i)
            mean, mean_square = _exponential_means(_log_snr_step(grid, i))
            x0 = X0 + mean * slope + mean_square * bend
        rows.append(Row(i, _euler(X, x0, *_ends(grid, i))))
    return _table(grid, rows)


# Predictor and corrector in one row: Zhao et al. 2023, UniPC-2 with B_2(h) = e^h - 1 --------------


def unipc(grid: Grid) -> SamplerTable:
    """Row i sees the predicted point. From it the base point of the last step is recovered, the
    point corrected by what the network now sees there, and the next point predicted."""
    _needs_signal("unipc", grid)
    rows: list[Row] = []
    step = Combination()  # the last step as a function of its base point and images
    for i in range(len(grid)):
        a_t, s_t, a_s, s_s = _ends(grid, i)
        point = X
        if i > 0:
            base = (X - step.x0 * X0_PREV - step.x0_prev * X0_PREV2) / step.x
            point = _unipc_corrected(grid, i, base)
        x0 = _midpoint(grid, i)
        step = _euler(X, x0, a_t, s_t, a_s, s_s)
        rows.append(Row(i, _euler(point, x0, a_t, s_t, a_s, s_s)))
    return _table(grid, rows)


# From every level straight to the clean image, and back up with fresh noise: Song et al. 2023,
# algorithm 1 ------------------------------------------------------------------------------------


def consistency(grid: Grid) -> SamplerTable:
    """For models that were tuned for it (models.training.consistency); the last row ends at its
    x0_hat."""
    rows = [Row(i, _ends(grid, i)[2] * X0, _ends(grid, i)[3]) for i in range(len(grid))]
    return _table(grid, rows)


def _unipc_corrected(grid: Grid, i: int, base: "Combination") -> "Combination":
    """UniC: the step from i - 1 to i once more, with x0_hat at i known (order 1 for the first)."""
    a_t, s_t, a_s, s_s = _ends(grid, i - 1)
    h = _log_snr_step(grid, i - 1)
    weight, bend = 0.5, Combination()
    if i > 1:
        # Match the first two moments of exp on the points r = -h_prev / h and 1 (eq. 10).
        r = -_log_snr_step(grid, i - 2) / h
        phi_1 = math.expm1(-h)
        b_1 = (phi_1 / -h - 1.0) / phi_1
        b_2 = 2.0 * ((phi_1 / -h - 1.0) / -h - 0.5) / phi_1
        weight = (b_2 - r * b_1) / (1.0 - r)
        bend = (b_1 - weight) * (X0_PREV2 - X0_PREV) / r
    x0 = X0_PREV + bend + weight * (X0 - X0_PREV)
    return _euler(base, x0, a_t, s_t, a_s, s_s)


# Inversion: DDIM walked from the image to its noise -----------------------------------------------


def inversion_table(grid: Grid) -> SamplerTable:
    """From an image to the noise that deterministic DDIM on the same grid turns back into it, up to
    an error that falls with the number of steps. N rows; x starts as alpha[0] of the table times
    the image and ends at the grid's noisiest level. The table has no noise; x0_hat is not to be
    clipped, and the noise is found for the label and guidance it is walked with.

    Each row takes eps from the level where its step starts. The first starts at the clean image,
    where eps cannot be read off, and takes it from the least noisy level. Raises Invalid where
    that level has no signal: one step from noise to image cannot be inverted.
    """
    last = len(grid) - 1
    if grid.alpha[last] == 0.0:
        raise Invalid.because(
            f"inversion needs a level with signal left; this grid of {len(grid)} has none: "
            "take more num_inference_steps"
        )
    # X is a image; one step from clean gives a image + s eps, with s eps = X - a x0_hat.
    rows = [Row(last, 2.0 * X - float(grid.alpha[last]) * X0)]
    for i in range(last, 0, -1):
        a_t, s_t = float(grid.alpha[i]), float(grid.sigma[i])
        a_s, s_s = float(grid.alpha[i - 1]), float(grid.sigma[i - 1])
        rows.append(Row(i, _euler(X, X0, a_t, s_t, a_s, s_s)))
    return _table(grid, rows)


# Linear algebra ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Combination:
    """A linear combination of what a row has in hand."""

    x: float = 0.0
    x0: float = 0.0
    x0_prev: float = 0.0
    x0_prev2: float = 0.0

    def __add__(self, other: "Combination") -> "Combination":
        return Combination(
            self.x + other.x,
            self.x0 + other.x0,
            self.x0_prev + other.x0_prev,
            self.x0_prev2 + other.x0_prev2,
        )

    def __rmul__(self, k: float) -> "Combination":
        return Combination(k * self.x, k * self.x0, k * self.x0_prev, k * self.x0_prev2)

    def __sub__(self, other: "Combination") -> "Combination":
        return self + -1.0 * other

    def __truediv__(self, k: float) -> "Combination":
        return (1.0 / k) * self


X = Combination(x=1.0)
X0 = Combination(x0=1.0)
X0_PREV = Combination(x0_prev=1.0)
X0_PREV2 = Combination(x0_prev2=1.0)


@dataclass(frozen=True)
class Row:
    """One row: where on the grid the network looks, what becomes of x, how much fresh noise."""

    level: int
    update: Combination
    noise: float = 0.0


def _table(grid: Grid, rows: list[Row]) -> SamplerTable:
    level = [row.level for row in rows]
    return SamplerTable(
        alpha=grid.alpha[level],
        sigma=grid.sigma[level],
        c_noise=grid.c_noise[level],
        t=grid.t[level],
        k_x=np.array([row.update.x for row in rows]),
        k_0=np.array([row.update.x0 for row in rows]),
        k_1=np.array([row.update.x0_prev for row in rows]),
        k_2=np.array([row.update.x0_prev2 for row in rows]),
        k_s=np.array([row.noise for row in rows]),
    )


def _euler(
    x: Combination, x0: Combination, a_t: float, s_t: float, a_s: float, s_s: float
) -> Combination:
    """The probability-flow ODE from t to s with the clean image held at x0; exact if it is."""
    return (s_s / s_t) * x + (a_s - s_s * a_t / s_t) * x0


def _midpoint(grid: Grid, i: int) -> Combination:
    """x0_hat extrapolated in log-SNR to the middle of step i by a straight line. The first step has
    no line, and the last is safest without: both take x0_hat as it is."""
    if i == 0 or grid.sigma[i + 1] == 0.0:
        return X0
    r = _log_snr_step(grid, i - 1) / _log_snr_step(grid, i)
    return X0 + (X0 - X0_PREV) / (2.0 * r)


def _parabola_holds(grid: Grid, i: int) -> bool:
    """Whether step i may follow a parabola: there are three points, the step does not end clean,
    and it is no longer in log-SNR than the two before it together. `leading` and `linspace` end
    with one that is, over which a parabola would be extrapolated with weights of 10 to 30."""
    return (
        i > 1
        and bool(grid.sigma[i + 1] > 0.0)
        and _log_snr_step(grid, i) <= _log_snr_step(grid, i - 1) + _log_snr_step(grid, i - 2)
    )


def _parabola(grid: Grid, i: int) -> tuple[Combination, Combination]:
    """x0_hat over step i >= 1, extrapolated in log-SNR through the last three: X0 + u slope
    + u^2 bend for u in 0..1; through the last two where `_parabola_holds` does not."""
    h = _log_snr_step(grid, i)
    r = _log_snr_step(grid, i - 1) / h
    secant = (X0 - X0_PREV) / r
    if not _parabola_holds(grid, i):
        return secant, Combination()
    r_prev = _log_snr_step(grid, i - 2) / h
    bend = (secant - (X0_PREV - X0_PREV2) / r_prev) / (r + r_prev)
    return secant + r * bend, bend


def _exponential_means(h: float) -> tuple[float, float]:
    """The means of u and u^2 over 0..1 under the weight e^(h u), with which x0_hat enters a step of
    length h in log-SNR."""
    q = -math.expm1(-h)
    return 1.0 / q - 1.0 / h, (1.0 - 2.0 / h) / q + 2.0 / h**2


def _posterior(a_t: float, s_t: float, a_s: float, s_s: float) -> tuple[float, float, float]:
    """q(x_s | x_t, x0): the mean's coefficients on x_t and x0, and sigma2_ts."""
    a_ts = a_t / a_s
    sigma2_ts = s_t**2 - (a_ts * s_s) ** 2
    return a_ts * s_s**2 / s_t**2, a_s * sigma2_ts / s_t**2, sigma2_ts


def _ends(grid: Grid, i: int) -> tuple[float, float, float, float]:
    """alpha, sigma where step i begins and where it ends."""
    return (
        float(grid.alpha[i]),
        float(grid.sigma[i]),
        float(grid.alpha[i + 1]),
        float(grid.sigma[i + 1]),
    )


def _log_snr_step(grid: Grid, i: int) -> float:
    """h = lambda_{i+1} - lambda_i, lambda = ln(alpha / sigma); infinite from a level of alpha 0."""
    a_t, s_t, a_s, s_s = _ends(grid, i)
    return math.inf if a_t == 0.0 else math.log(a_s / s_s) - math.log(a_t / s_t)


def _needs_signal(name: str, grid: Grid) -> None:
    if grid.alpha[0] == 0.0:
        raise Invalid.because(
            f"sampler {name!r} cannot start where no signal is left (alpha = 0); "
            "every sampler but 'heun' and 'unipc' can",
            field="sampler",
        )


def _spread(schedule: NoiseSchedule, n: int, spacing: Literal["karras", "logsnr"]) -> Grid:
    """n >= 2 levels from T exactly to t = 1, even in a function of sigma / alpha. Where no signal
    is left at T, the spread begins at T - 1 and its first level gives way to T."""
    last = np.array([schedule.num_train_timesteps])
    noisiest = last[0] if schedule.alpha[last[0]] > 0.0 else last[0] - 1
    high, low = (float(schedule.sigma[t] / schedule.alpha[t]) for t in (noisiest, 1))
    if spacing == "karras":
        ratio = karras_sigmas(high, low, schedule.config.rho, n)
    else:
        ratio = np.geomspace(high, low, n)
    alpha, sigma, c_noise, t = schedule.between(ratio[1:])
    return _with_clean_end(
        np.append(schedule.alpha[last], alpha),
        np.append(schedule.sigma[last], sigma),
        np.append(schedule.c_noise(last), c_noise),
        np.append(last.astype(float), t),
    )


def _without(grid: Grid, level: int) -> Grid:
    return Grid(*(np.delete(v, level) for v in (grid.alpha, grid.sigma, grid.c_noise, grid.t)))


def _with_clean_end(alpha: Float64, sigma: Float64, c_noise: Float64, t: Float64) -> Grid:
    return Grid(
        alpha=np.append(alpha, 1.0),
        sigma=np.append(sigma, 0.0),
        c_noise=np.append(c_noise, 0.0),
        t=np.append(t, 0.0),
    )


# The samplers, a row each -------------------------------------------------------------------------


@dataclass(frozen=True)
class Sampler:
    """`table(grid, eta, variance)` makes its rows. `evaluations` of the network make a step."""

    about: str
    good_for: str
    table: Callable[[Grid, float, Variance], SamplerTable]
    evaluations: int = 1


SAMPLERS: dict[SamplerName, Sampler] = {
    "ddpm": Sampler(
        about="Ancestral sampling with the posterior's variance (Ho et al. 2020, eq. 7).",
        good_for=(
            "What the model was derived for, with as many steps as it was trained with;"
            " fresh noise at every step mends earlier errors, and needs hundreds of "
            "steps to be worth it."
        ),
        table=lambda grid, eta, variance: ddpm(grid, variance),
    ),
    "ddim": Sampler(
        about=("Implicit sampling; eta is the share of fresh noise (Song et al. 2021, eq. 12)."),
        good_for=(
            "Images that are a smooth function of their noise: interpolation (seed_to),"
            " inversion of a given image, img2img. 20 to 50 steps."
        ),
        table=lambda grid, eta, variance: ddim(grid, eta),
    ),
    # Euler on d(x / a) / d(s / a) IS deterministic DDIM.
    "euler": Sampler(
        about=("Euler's method on the probability-flow ODE; the same rows as ddim with eta 0."),
        good_for="The plain reference for the ODE samplers.",
        table=lambda grid, eta, variance: ddim(grid),
    ),
    # And with fresh noise for what Euler skips, this is DDIM with eta 1.
    "euler_ancestral": Sampler(
        about=(
            "An Euler step further down than asked, then fresh noise; the same rows as "
            "ddim with eta 1."
        ),
        good_for="Variety at 20 to 50 steps; images change with the number of steps.",
        table=lambda grid, eta, variance: ddim(grid, 1.0),
    ),
    "heun": Sampler(
        about=(
            "Two evaluations of the network a step, second order (Karras et al. 2022, algorithm 1)."
        ),
        good_for="Precision where time does not matter; the default of the EDM paper.",
        table=lambda grid, eta, variance: heun(grid),
        evaluations=2,
    ),
    "dpmpp_2m": Sampler(
        about=("DPM-Solver++(2M): second order from the last two estimates (Lu et al. 2022)."),
        good_for="The default: good images in 10 to 25 steps, one evaluation each.",
        table=lambda grid, eta, variance: dpmpp_2m(grid),
    ),
    "dpmpp_2m_sde": Sampler(
        about="DPM-Solver++(2M) on the reverse SDE, with fresh noise (Lu et al. 2022).",
        good_for="The detail of stochastic sampling in 20 to 50 steps.",
        table=lambda grid, eta, variance: dpmpp_2m_sde(grid),
    ),
    "dpmpp_3m": Sampler(
        about="DPM-Solver++(3M): a parabola through the last three estimates.",
        good_for="Closest to the ODE's solution at 15 to 50 steps.",
        table=lambda grid, eta, variance: dpmpp_3m(grid),
    ),
    "deis": Sampler(
        about=("Exponential integrator of third order for x0_hat (after Zhang & Chen 2023)."),
        good_for="Few steps, 8 to 20, on smooth schedules.",
        table=lambda grid, eta, variance: deis(grid),
    ),
    "unipc": Sampler(
        about="Predictor and corrector of order 2 in one evaluation (Zhao et al. 2023).",
        good_for="Very few steps, 5 to 15.",
        table=lambda grid, eta, variance: unipc(grid),
    ),
    "consistency": Sampler(
        about=(
            "From each level straight to the clean image, and back up with fresh noise "
            "(Song et al. 2023, algorithm 1)."
        ),
        good_for="Models made by a job of kind `distill`, and only those: 1, 2 or 4 steps.",
        table=lambda grid, eta, variance: consistency(grid),
    ),
}
