"""Samplers as tables: one row of numbers per network evaluation.

Every linear sampler is a list of rows of

    x  <-  k_x x + k_0 x0_hat + k_1 x0_prev + k_2 x0_prev2 + k_s noise

where x0_hat is the network's estimate of the clean image from x at this row's noise level, and
x0_prev, x0_prev2 are its estimates one and two rows earlier. So the sampling loop knows nothing of
samplers, and rows of different samplers can share one network call.

A sampler is a function from a grid of noise levels, noisiest first and clean last, to a table. It
is registered where it is written, by the decorator `sampler` with everything that is true of it
alone; the API, its refusals and its texts read that from `SAMPLERS`, so that a new sampler is a new
function here and nothing else.

Below, step i leads from (alpha, sigma) to (alpha_next, sigma_next); `Combination` does the linear
algebra, so that a sampler reads as in its paper. Float64 throughout; knows nothing of networks,
images or torch.
"""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeVar

import numpy as np

from models.diffusion.config import Variance
from models.diffusion.schedule import ScheduleName
from models.fields import Invalid
from models.sampling.grid import SPACINGS, Grid, spacings_of
from models.sampling.rows import X0, X0_PREV, X0_PREV2, Combination, Row, SamplerTable, X

# The registry -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Sampler:
    """One entry of the registry.

    `table(grid)` makes its rows; `table(grid, eta)` where it `takes_eta`, `table(grid, variance)`
    where it `takes_variance`. `evaluations` of the network make a step. `invertible`: with eta 0,
    sampling takes the path of `inversion_table` back to the image. `needs_signal`: it divides by
    alpha and cannot start where alpha is 0.
    `for_distilled`: it is the one sampler of distilled models, and of no others. `spacing` is its
    default spacing, or None for the schedule's.
    """

    table: Callable[..., SamplerTable]
    about: str
    good_for: str
    evaluations: int
    takes_eta: bool
    takes_variance: bool
    invertible: bool
    needs_signal: bool
    for_distilled: bool
    spacing: str | None

    @property
    def is_stochastic(self) -> bool:
        """Whether it adds fresh noise at eta 0."""
        levels = np.array([0.6, 0.8, 1.0]), np.array([0.8, 0.6, 0.0])
        return bool(self.table(Grid(*levels, np.zeros(3), np.zeros(3))).k_s.any())


SAMPLERS: dict[str, Sampler] = {}

Function = TypeVar("Function", bound=Callable[..., SamplerTable])


def sampler(
    *,
    about: str,
    good_for: str,
    evaluations: int = 1,
    takes_eta: bool = False,
    takes_variance: bool = False,
    invertible: bool = False,
    needs_signal: bool = False,
    for_distilled: bool = False,
    spacing: str | None = None,
) -> Callable[[Function], Function]:
    """Register the decorated function under its own name; see `Sampler`."""

    def register(function: Function) -> Function:
        SAMPLERS[function.__name__] = Sampler(
            function,
            about,
            good_for,
            evaluations,
            takes_eta,
            takes_variance,
            invertible,
            needs_signal,
            for_distilled,
            spacing,
        )
        return function

    return register


def sampler_table(
    name: str, grid: Grid, *, eta: float = 0.0, variance: Variance = "fixed_small"
) -> SamplerTable:
    """Return the rows of one sampler on one grid. `eta` in 0..1 is the share of fresh noise,
    `variance` that of a sampler that takes one.

    Raises Invalid for an unknown name, an eta out of range or not taken, and a grid that starts
    without the signal that the sampler needs.
    """
    if name not in SAMPLERS:
        raise Invalid("sampler", name, f"it must be one of {tuple(SAMPLERS)}")
    if not 0.0 <= eta <= 1.0:
        raise Invalid("eta", eta, "it must lie in 0..1")
    entry = SAMPLERS[name]
    if eta and not entry.takes_eta:
        takers = quoted((n for n, s in SAMPLERS.items() if s.takes_eta), "and")
        raise Invalid("eta", eta, f"only sampler {takers} takes it")
    if entry.needs_signal and grid.alpha[0] == 0.0:
        others = quoted((n for n, s in SAMPLERS.items() if s.needs_signal), "and")
        raise Invalid.because(
            f"sampler {name!r} cannot start where no signal is left (alpha = 0); "
            f"every sampler but {others} can",
            field="sampler",
        )
    if entry.takes_variance:
        return entry.table(grid, variance)
    return entry.table(grid, eta) if entry.takes_eta else entry.table(grid)


def default_spacing(name: str, schedule: ScheduleName, of_model: str | None = None) -> str:
    """Return the spacing where a request gives none: that of the model, if it has one."""
    entry = SAMPLERS[name]
    if of_model and not entry.for_distilled:
        return of_model
    return entry.spacing or spacings_of(schedule)[0]


def about_spacing(spacing: str) -> str:
    """Return what a spacing is, and of which samplers it is the default."""
    defaults = (
        f"; the default of sampler {n}" for n, s in SAMPLERS.items() if s.spacing == spacing
    )
    return SPACINGS[spacing].about + "".join(defaults)


def quoted(names: Iterable[str], conjunction: str, quote: str = "'") -> str:
    """Return names as a phrase: 'a', 'b' and 'c'."""
    *first, last = (f"{quote}{name}{quote}" for name in names)
    return f"{', '.join(first)} {conjunction} {last}" if first else last


# Ancestral sampling: Ho et al. 2020, eq. 7, for any spacing ---------------------------------------


@sampler(
    about="Ancestral sampling with the posterior's variance (Ho et al. 2020, eq. 7).",
    good_for=(
        "What the model was derived for, with as many steps as it was trained with;"
        " fresh noise at every step mends earlier errors, and needs hundreds of "
        "steps to be worth it."
    ),
    takes_variance=True,
)
def ddpm(grid: Grid, variance: Variance = "fixed_small") -> SamplerTable:
    rows = []
    for i in range(len(grid)):
        alpha, sigma, alpha_next, sigma_next = _ends(grid, i)
        posterior_x, posterior_0, step_variance = _posterior(alpha, sigma, alpha_next, sigma_next)
        small = sigma_next**2 * step_variance / sigma**2
        noise = small if variance == "fixed_small" else step_variance
        update = posterior_x * X + posterior_0 * X0
        # The last step goes to its mean: sigma_next = 0.
        rows.append(Row(i, update, math.sqrt(noise) if sigma_next else 0.0))
    return SamplerTable.of(grid, rows)


# Implicit sampling: Song et al. 2021, eq. 12 ------------------------------------------------------


@sampler(
    about="Implicit sampling; eta is the share of fresh noise (Song et al. 2021, eq. 12).",
    good_for=(
        "Images that are a smooth function of their noise: interpolation (seed_to),"
        " inversion of a given image, img2img. 20 to 50 steps."
    ),
    takes_eta=True,
    invertible=True,
)
def ddim(grid: Grid, eta: float = 0.0) -> SamplerTable:
    rows = []
    for i in range(len(grid)):
        alpha, sigma, alpha_next, sigma_next = _ends(grid, i)
        _, _, step_variance = _posterior(alpha, sigma, alpha_next, sigma_next)
        noise = eta * math.sqrt(max(sigma_next**2 * step_variance / sigma**2, 0.0))
        eps = (X - alpha * X0) / sigma
        # With eta 1 and no signal at the start all of sigma_next is fresh, up to rounding.
        kept = math.sqrt(max(sigma_next**2 - noise**2, 0.0))
        rows.append(Row(i, alpha_next * X0 + kept * eps, noise))
    return SamplerTable.of(grid, rows)


@sampler(
    about="Euler's method on the probability-flow ODE; the same rows as ddim with eta 0.",
    good_for="The plain reference for the ODE samplers.",
    invertible=True,
)
def euler(grid: Grid) -> SamplerTable:
    """Euler on d(x / alpha) / d(sigma / alpha) IS deterministic DDIM."""
    return ddim(grid)


@sampler(
    about=(
        "An Euler step further down than asked, then fresh noise; the same rows as ddim with eta 1."
    ),
    good_for="Variety at 20 to 50 steps; images change with the number of steps.",
)
def euler_ancestral(grid: Grid) -> SamplerTable:
    """Euler with fresh noise for the part that it skips is DDIM with eta 1."""
    return ddim(grid, 1.0)


# Second order, two evaluations a step: Karras et al. 2022, algorithm 1 ---------------------------


@sampler(
    about="Two evaluations of the network a step, second order (Karras et al. 2022, algorithm 1).",
    good_for="Precision where time does not matter; the default of the EDM paper.",
    evaluations=2,
    needs_signal=True,
)
def heun(grid: Grid) -> SamplerTable:
    """Correct each Euler step by the slope at its end.

    The second row of a step starts from the first's result, of which the step's base point is a
    linear function; so it needs one column of history and no second image.
    """
    rows = []
    for i in range(len(grid)):
        alpha, sigma, alpha_next, sigma_next = _ends(grid, i)
        # In x / alpha the ODE is d(x / alpha) / d ratio = eps.
        ratio, ratio_next = sigma / alpha, sigma_next / alpha_next
        predicted = _euler(X, X0, alpha, sigma, alpha_next, sigma_next)
        rows.append(Row(i, predicted))
        if sigma_next == 0.0:
            break
        # Row two has X = predicted(base, X0_PREV): solve for the base point.
        base = (X - predicted.x0 * X0_PREV) / predicted.x
        slope, slope_next = (base / alpha - X0_PREV) / ratio, (X / alpha_next - X0) / ratio_next
        corrected = base / alpha + 0.5 * (ratio_next - ratio) * (slope + slope_next)
        rows.append(Row(i + 1, alpha_next * corrected))
    return SamplerTable.of(grid, rows)


# Multistep: Lu et al. 2022, DPM-Solver++(2M), algorithm 2 ----------------------------------------


@sampler(
    about="DPM-Solver++(2M): second order from the last two estimates (Lu et al. 2022).",
    good_for="The default: good images in 10 to 25 steps, one evaluation each.",
)
def dpmpp_2m(grid: Grid) -> SamplerTable:
    return SamplerTable.of(
        grid, [Row(i, _euler(X, _midpoint(grid, i), *_ends(grid, i))) for i in range(len(grid))]
    )


# The same with fresh noise: Lu et al. 2022, SDE-DPM-Solver++(2M) ---------------------------------


@sampler(
    about="DPM-Solver++(2M) on the reverse SDE, with fresh noise (Lu et al. 2022).",
    good_for="The detail of stochastic sampling in 20 to 50 steps.",
)
def dpmpp_2m_sde(grid: Grid, eta: float = 1.0) -> SamplerTable:
    """Solve the reverse SDE. `eta` scales the noise: 1 is the SDE itself, 0 is `dpmpp_2m`. With
    x0_hat held over the step instead of extrapolated, eta 1 would be `ddpm` with fixed_small."""
    rows = []
    for i in range(len(grid)):
        alpha, sigma, alpha_next, sigma_next = _ends(grid, i)
        # e^-h; 0 from no signal and to no noise.
        shrink = (alpha * sigma_next) / (alpha_next * sigma)
        kept = shrink**eta
        update = (sigma_next / sigma) * kept * X
        update += alpha_next * (1.0 - shrink * kept) * _midpoint(grid, i)
        rows.append(Row(i, update, sigma_next * math.sqrt(1.0 - kept**2)))
    return SamplerTable.of(grid, rows)


# With a parabola through the last three: DPM-Solver++(3M), and DEIS for x0_hat -------------------


@sampler(
    about="DPM-Solver++(3M): a parabola through the last three estimates.",
    good_for="Closest to the ODE's solution at 15 to 50 steps.",
)
def dpmpp_3m(grid: Grid) -> SamplerTable:
    """Follow a parabola, as the authors' code of DPM-Solver++(3M) and its ports do. There the bend
    of the parabola has half the weight that the integral gives it (compare `deis`): the order is
    2, with a quarter of 2M's error, and coarse grids overshoot less than with the whole weight."""
    rows = []
    for i in range(len(grid)):
        x0 = _midpoint(grid, i)
        if _parabola_holds(grid, i):
            slope, bend = _parabola(grid, i)
            mean, mean_square = _exponential_means(_log_snr_step(grid, i))
            x0 = X0 + mean * slope + 0.5 * mean_square * bend
        rows.append(Row(i, _euler(X, x0, *_ends(grid, i))))
    return SamplerTable.of(grid, rows)


@sampler(
    about="Exponential integrator of third order for x0_hat (after Zhang & Chen 2023).",
    good_for="Few steps, 8 to 20, on smooth schedules.",
)
def deis(grid: Grid) -> SamplerTable:
    """Solve the ODE's linear part exactly, with the parabola through the last three estimates in
    place of the network's output: Zhang & Chen 2023 in ln(sigma / alpha), order 3.

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
    return SamplerTable.of(grid, rows)


# Predictor and corrector in one row: Zhao et al. 2023, UniPC-2 with B_2(h) = e^h - 1 --------------


@sampler(
    about="Predictor and corrector of order 2 in one evaluation (Zhao et al. 2023).",
    good_for="Very few steps, 5 to 15.",
    needs_signal=True,
)
def unipc(grid: Grid) -> SamplerTable:
    """Call the network at the predicted point of each step, then correct and predict in one row.

    From the predicted point the base point of the last step is recovered, the point corrected by
    the estimate there, and the next point predicted.
    """
    rows: list[Row] = []
    step = Combination()  # the last step as a function of its base point and estimates
    for i in range(len(grid)):
        point = X
        if i > 0:
            base = (X - step.x0 * X0_PREV - step.x0_prev * X0_PREV2) / step.x
            point = _unipc_corrected(grid, i, base)
        x0 = _midpoint(grid, i)
        step = _euler(X, x0, *_ends(grid, i))
        rows.append(Row(i, _euler(point, x0, *_ends(grid, i))))
    return SamplerTable.of(grid, rows)


def _unipc_corrected(grid: Grid, i: int, base: Combination) -> Combination:
    """Take the step from i - 1 to i once more, with x0_hat at i known (UniC; order 1 for the first
    step)."""
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
    return _euler(base, x0, *_ends(grid, i - 1))


# From every level straight to the clean image, and back up with fresh noise: Song et al. 2023,
# algorithm 1 ------------------------------------------------------------------------------------


@sampler(
    about=(
        "From each level straight to the clean image, and back up with fresh noise "
        "(Song et al. 2023, algorithm 1)."
    ),
    good_for="Models made by a job of kind `distill`, and only those: 1, 2 or 4 steps.",
    for_distilled=True,
    spacing="coarse",
)
def consistency(grid: Grid) -> SamplerTable:
    """Jump to x0_hat and noise it to the next level. For models that were tuned for it
    (models.training.consistency); the last row ends at its x0_hat."""
    rows = []
    for i in range(len(grid)):
        _, _, alpha_next, sigma_next = _ends(grid, i)
        rows.append(Row(i, alpha_next * X0, sigma_next))
    return SamplerTable.of(grid, rows)


# Inversion: DDIM from the image back to its noise -------------------------------------------------


def inversion_table(grid: Grid) -> SamplerTable:
    """Return the rows from an image to the noise that deterministic DDIM on the same grid turns
    back into it, up to an error that falls with the number of steps.

    N rows; x starts as alpha[0] of the table times the image and ends at the grid's noisiest level.
    The table has no noise; x0_hat is not to be clipped, and the noise found belongs to the label
    and guidance of the inversion.

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
    # X is alpha image; one step from clean gives alpha image + sigma eps, with
    # sigma eps = X - alpha x0_hat.
    rows = [Row(last, 2.0 * X - float(grid.alpha[last]) * X0)]
    for i in range(last, 0, -1):
        less_noisy, noisier = _level(grid, i), _level(grid, i - 1)
        rows.append(Row(i, _euler(X, X0, *less_noisy, *noisier)))
    return SamplerTable.of(grid, rows)


# What several of them share -----------------------------------------------------------------------


def _euler(
    x: Combination,
    x0: Combination,
    alpha: float,
    sigma: float,
    alpha_next: float,
    sigma_next: float,
) -> Combination:
    """Follow the probability-flow ODE over a step with the clean image held at x0; exact if it
    is."""
    return (sigma_next / sigma) * x + (alpha_next - sigma_next * alpha / sigma) * x0


def _midpoint(grid: Grid, i: int) -> Combination:
    """Extrapolate x0_hat in log-SNR to the middle of step i by a straight line. The first step has
    no line, and the last is safest without: both take x0_hat as it is."""
    if i == 0 or grid.sigma[i + 1] == 0.0:
        return X0
    r = _log_snr_step(grid, i - 1) / _log_snr_step(grid, i)
    return X0 + (X0 - X0_PREV) / (2.0 * r)


def _parabola_holds(grid: Grid, i: int) -> bool:
    """Tell whether step i may follow a parabola: there are three points, the step does not end
    clean, and it is no longer in log-SNR than the two before it together. `leading` and `linspace`
    end with a longer one, over which a parabola would be extrapolated with weights of 10 to 30."""
    return (
        i > 1
        and bool(grid.sigma[i + 1] > 0.0)
        and _log_snr_step(grid, i) <= _log_snr_step(grid, i - 1) + _log_snr_step(grid, i - 2)
    )


def _parabola(grid: Grid, i: int) -> tuple[Combination, Combination]:
    """Return slope and bend of x0_hat over step i >= 1, extrapolated in log-SNR through the last
    three estimates: X0 + u slope + u^2 bend for u in 0..1. Through the last two where
    `_parabola_holds` does not."""
    h = _log_snr_step(grid, i)
    r = _log_snr_step(grid, i - 1) / h
    secant = (X0 - X0_PREV) / r
    if not _parabola_holds(grid, i):
        return secant, Combination()
    r_prev = _log_snr_step(grid, i - 2) / h
    bend = (secant - (X0_PREV - X0_PREV2) / r_prev) / (r + r_prev)
    return secant + r * bend, bend


def _exponential_means(h: float) -> tuple[float, float]:
    """Return the means of u and u^2 over 0..1 under the weight e^(h u), with which x0_hat enters a
    step of length h in log-SNR."""
    q = -math.expm1(-h)
    return 1.0 / q - 1.0 / h, (1.0 - 2.0 / h) / q + 2.0 / h**2


def _posterior(
    alpha: float, sigma: float, alpha_next: float, sigma_next: float
) -> tuple[float, float, float]:
    """Return the coefficients of x_t and x0 in the mean of q(x_s | x_t, x0), and the variance of
    the kernel q(x_t | x_s), for t the step's start and s its end."""
    scale = alpha / alpha_next
    variance = sigma**2 - (scale * sigma_next) ** 2
    return scale * sigma_next**2 / sigma**2, alpha_next * variance / sigma**2, variance


def _ends(grid: Grid, i: int) -> tuple[float, float, float, float]:
    """Return alpha, sigma where step i begins and where it ends."""
    return *_level(grid, i), *_level(grid, i + 1)


def _level(grid: Grid, i: int) -> tuple[float, float]:
    return float(grid.alpha[i]), float(grid.sigma[i])


def _log_snr_step(grid: Grid, i: int) -> float:
    """Return h = lambda_{i+1} - lambda_i, lambda = ln(alpha / sigma); infinite from a level of
    alpha 0."""
    alpha, sigma, alpha_next, sigma_next = _ends(grid, i)
    if alpha == 0.0:
        return math.inf
    return math.log(alpha_next / sigma_next) - math.log(alpha / sigma)


# The names ----------------------------------------------------------------------------------------

SAMPLER_NAMES = tuple(SAMPLERS)
DEFAULT_SAMPLER = dpmpp_2m.__name__
PLAIN_SAMPLER = ddim.__name__  # its steps need x and the estimate of the clean image, and no others
INVERTIBLE = tuple(name for name, entry in SAMPLERS.items() if entry.invertible)  # default first
(DISTILLED_SAMPLER,) = (name for name, entry in SAMPLERS.items() if entry.for_distilled)

# Any of the names above; pydantic and OpenAPI see the list of them.
if TYPE_CHECKING:
    SamplerName = str
else:
    SamplerName = Literal[SAMPLER_NAMES]
