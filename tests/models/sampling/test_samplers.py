"""Samplers against closed forms (oracles 2 to 5) and, row by row, against diffusers (oracle 10)."""

import math
from itertools import pairwise

import numpy as np
import pytest
import torch

from models.diffusion.schedule import SCHEDULE_NAMES, NoiseSchedule, ScheduleConfig
from models.fields import Invalid
from models.sampling.grid import Grid, first_level, grid_from, spacings_of, timestep_grid
from models.sampling.rows import SamplerTable
from models.sampling.samplers import (
    SAMPLER_NAMES,
    ddim,
    ddpm,
    default_spacing,
    deis,
    dpmpp_2m,
    dpmpp_2m_sde,
    dpmpp_3m,
    heun,
    inversion_table,
    sampler_table,
    unipc,
)

LINEAR = NoiseSchedule.from_config(ScheduleConfig())
EDM = NoiseSchedule.from_config(ScheduleConfig("edm"))
COLUMNS = ("k_x", "k_0", "k_1", "k_2", "k_s")
ONE_ROW_A_STEP = [name for name in SAMPLER_NAMES if name not in ("heun", "unipc")]


def walk(table: SamplerTable, x, denoiser, noise=None):
    """The sampling loop in plain float64; `denoiser(x, alpha, sigma)` gives x0_hat."""
    prev = prev2 = np.zeros_like(x)
    path = []
    for i in range(len(table)):
        x0 = denoiser(x, table.alpha[i], table.sigma[i])
        x = table.k_x[i] * x + table.k_0[i] * x0 + table.k_1[i] * prev + table.k_2[i] * prev2
        if table.k_s[i]:
            x = x + table.k_s[i] * noise[i]
        prev, prev2 = x0, prev
        path.append(x)
    return path


def gaussian_denoiser(mean, std):
    """The exact denoiser of data N(mean, std^2)."""

    def denoiser(x, alpha, sigma):
        ratio = sigma / alpha
        return (std**2 * x / alpha + ratio**2 * mean) / (std**2 + ratio**2)

    return denoiser


# Oracles 2 and 3: the probability-flow ODE of a Gaussian ------------------------------------------


@pytest.mark.parametrize("name", ["linear", "cosine", "edm"])
@pytest.mark.parametrize("steps", [1, 7, 50, 999])
@pytest.mark.parametrize("sampler", ["ddim", "euler"])
def test_deterministic_ddim_is_the_exact_product_on_any_grid(name, steps, sampler):
    schedule = NoiseSchedule.from_config(ScheduleConfig(name))
    grid = timestep_grid(schedule, steps)
    mean, std, x = 0.3, 0.5, np.array([2.0, -1.0])
    end = walk(sampler_table(sampler, grid), x, gaussian_denoiser(mean, std))[-1]
    a = grid.sigma / grid.alpha
    product = np.prod((std**2 + a[:-1] * a[1:]) / (std**2 + a[:-1] ** 2))
    np.testing.assert_allclose(end - mean, (x / grid.alpha[0] - mean) * product, rtol=1e-9)


@pytest.mark.parametrize("schedule", [LINEAR, EDM], ids=["linear", "edm"])
@pytest.mark.parametrize("steps", [1, 2, 50, 1000])
def test_inversion_is_the_same_product_on_the_reversed_grid(schedule, steps):
    grid = timestep_grid(schedule, steps)
    mean, std, image = -0.2, 0.7, np.array([0.4, -0.9])
    table = inversion_table(grid)
    assert len(table) == steps
    end = walk(table, table.alpha[0] * image, gaussian_denoiser(mean, std))[-1]
    a = (grid.sigma / grid.alpha)[-2::-1]  # from the least noisy level up
    first = 1 + a[0] ** 2 / (std**2 + a[0] ** 2)  # from clean, with eps of the level above
    product = first * np.prod((std**2 + a[:-1] * a[1:]) / (std**2 + a[:-1] ** 2))
    np.testing.assert_allclose(end / grid.alpha[0] - mean, (image - mean) * product, rtol=1e-9)


@pytest.mark.parametrize("schedule", [LINEAR, EDM], ids=["linear", "edm"])
def test_inverting_and_sampling_give_the_image_back_the_better_the_more_steps(schedule):
    mean, std, image = 0.3, 0.5, np.array([0.9, -0.5])
    denoiser = gaussian_denoiser(mean, std)
    errors = []
    for steps in (125, 250, 500, 1000):
        grid = timestep_grid(schedule, steps)
        table = inversion_table(grid)
        noise = walk(table, table.alpha[0] * image, denoiser)[-1]
        errors.append(np.abs(walk(ddim(grid), noise, denoiser)[-1] - image).max())
    assert errors[-1] < 0.006
    for coarse, fine in pairwise(errors):
        assert 1.7 < coarse / fine < 2.1, errors  # DDIM is of first order, both ways


def test_inversion_may_end_where_no_signal_is_left():
    schedule = NoiseSchedule.from_config(ScheduleConfig(rescale_zero_terminal_snr=True))
    table = inversion_table(timestep_grid(schedule, 10))
    assert all(np.isfinite(getattr(table, k)).all() for k in COLUMNS)
    with pytest.raises(Invalid, match=r"level with signal.*num_inference_steps"):
        inversion_table(timestep_grid(schedule, 1))


@pytest.mark.parametrize("sampler", ["heun", "dpmpp_2m", "dpmpp_3m", "deis", "unipc"])
def test_higher_order_samplers_reach_the_exact_flow_of_a_gaussian(sampler):
    grid = timestep_grid(EDM, 200)
    mean, std, x = 0.3, 0.5, np.array([80.0, -40.0])
    end = walk(sampler_table(sampler, grid), x, gaussian_denoiser(mean, std))[-1]
    exact = mean + (x - mean) * std / np.sqrt(std**2 + grid.sigma[0] ** 2)
    np.testing.assert_allclose(end, exact, atol=2e-3)


# What every linear sampler owes: a known image and its noise --------------------------------------


@pytest.mark.parametrize("name", ONE_ROW_A_STEP)
@pytest.mark.parametrize("schedule", SCHEDULE_NAMES)
def test_where_the_image_is_known_every_row_goes_from_one_marginal_to_the_next(name, schedule):
    grid = timestep_grid(NoiseSchedule.from_config(ScheduleConfig(schedule)), 23)
    table = sampler_table(name, grid)
    mean = table.k_x * grid.alpha[:-1] + table.k_0 + table.k_1 + table.k_2
    variance = (table.k_x * grid.sigma[:-1]) ** 2 + table.k_s**2
    np.testing.assert_allclose(mean, grid.alpha[1:], rtol=1e-11)
    np.testing.assert_allclose(variance, grid.sigma[1:] ** 2, rtol=1e-11, atol=1e-16)


# Oracle 4: ancestral sampling's variance ----------------------------------------------------------


@pytest.mark.parametrize(
    ("variance", "std2", "expected"),
    [
        ("fixed_small", 0.25, 0.24613),
        ("fixed_large", 0.25, 0.25075),
        ("fixed_large", 1.0, None),
    ],
)
def test_ddpm_follows_its_variance_recursion(variance, std2, expected):
    grid = timestep_grid(LINEAR, 1000)
    table = ddpm(grid, variance)
    v = 1.0
    for i in range(len(table)):
        alpha, sigma = table.alpha[i], table.sigma[i]
        gain = table.k_x[i] + table.k_0[i] * alpha * std2 / (alpha**2 * std2 + sigma**2)
        v = gain**2 * v + table.k_s[i] ** 2
        if expected is None and i < len(table) - 1:
            assert abs(v - 1.0) < 1e-12
    if expected is not None:
        assert abs(v - expected) < 5e-6
    assert table.k_s[-1] == 0.0


@pytest.mark.parametrize("schedule", [LINEAR, EDM], ids=["linear", "edm"])
def test_ddim_with_eta_1_and_euler_ancestral_are_ddpm_with_fixed_small(schedule):
    grid = timestep_grid(schedule, 37)
    for one in (ddim(grid, 1.0), sampler_table("euler_ancestral", grid)):
        for column in COLUMNS:
            np.testing.assert_allclose(
                getattr(one, column), getattr(ddpm(grid), column), rtol=1e-9, atol=1e-12
            )


@pytest.mark.parametrize("schedule", [LINEAR, EDM], ids=["linear", "edm"])
def test_2m_sde_is_2m_without_its_noise_and_ddpm_without_its_history(schedule):
    grid = timestep_grid(schedule, 37)
    for column in COLUMNS:
        np.testing.assert_allclose(
            getattr(dpmpp_2m_sde(grid, 0.0), column),
            getattr(dpmpp_2m(grid), column),
            rtol=1e-9,
            atol=1e-12,
        )
    sde, ancestral = dpmpp_2m_sde(grid), ddpm(grid)
    np.testing.assert_allclose(sde.k_x, ancestral.k_x, rtol=1e-9)
    np.testing.assert_allclose(sde.k_0 + sde.k_1, ancestral.k_0, rtol=1e-9)
    np.testing.assert_allclose(sde.k_s, ancestral.k_s, rtol=1e-9)


def _final_variance(table, std2):
    """Of data N(0, std2), by the exact recursion of the covariance of (x, x0_prev)."""
    covariance = np.diag([table.sigma[0] ** 2 + table.alpha[0] ** 2 * std2, 0.0])
    for i in range(len(table)):
        gain = table.alpha[i] * std2 / (table.alpha[i] ** 2 * std2 + table.sigma[i] ** 2)
        step = np.array([[table.k_x[i] + table.k_0[i] * gain, table.k_1[i]], [gain, 0.0]])
        covariance = step @ covariance @ step.T + np.diag([table.k_s[i] ** 2, 0.0])
    return covariance[0, 0]


@pytest.mark.parametrize(
    ("name", "order"), [("ddpm", 1), ("euler_ancestral", 1), ("dpmpp_2m_sde", 2)]
)
def test_the_variance_of_the_images_converges_at_the_samplers_order(name, order):
    counts = np.array([125, 250, 500, 1000])
    errors = [
        abs(_final_variance(sampler_table(name, timestep_grid(EDM, n)), 0.25) - 0.25)
        for n in counts
    ]
    slope = -np.polyfit(np.log(counts), np.log(errors), 1)[0]
    assert abs(slope - order) < 0.15, (slope, errors)


# Oracle 5: order of convergence on a mixture ------------------------------------------------------


def mixture_denoiser(x, alpha, sigma):
    weights, means, stds = np.array([0.3, 0.7]), np.array([-0.6, 0.5]), np.array([0.2, 0.15])
    total = stds**2 + sigma**2
    log = np.log(weights) - 0.5 * np.log(total) - 0.5 * (x[:, None] - means) ** 2 / total
    r = np.exp(log - log.max(axis=1, keepdims=True))
    r /= r.sum(axis=1, keepdims=True)
    return (r * (stds**2 * x[:, None] + sigma**2 * means) / total).sum(axis=1)


def _edm_grid(n):
    ramp = np.linspace(0, 1, n + 1)
    sigma = (20 ** (1 / 7) + ramp * (0.05 ** (1 / 7) - 20 ** (1 / 7))) ** 7
    return Grid(np.ones(n + 1), sigma, np.zeros(n + 1), np.zeros(n + 1))


@pytest.mark.parametrize(
    ("sampler", "order"),
    [(ddim, 1.0), (heun, 2.0), (dpmpp_2m, 2.0), (dpmpp_3m, 2.0), (deis, 3.0), (unipc, 3.0)],
)
def test_samplers_converge_at_their_order(sampler, order):
    x = np.linspace(-30, 30, 41)
    exact = walk(heun(_edm_grid(16384)), x, mixture_denoiser)[-1]
    counts = np.array([128, 256, 512, 1024])
    errors = [
        np.abs(walk(sampler(_edm_grid(n)), x, mixture_denoiser)[-1] - exact).mean() for n in counts
    ]
    slope = -np.polyfit(np.log(counts), np.log(errors), 1)[0]
    assert slope > order - 0.25, (slope, errors)
    assert slope < order + 0.4, (slope, errors)


def test_3m_errs_less_than_2m_on_the_same_grid():
    x = np.linspace(-30, 30, 41)
    exact = walk(heun(_edm_grid(16384)), x, mixture_denoiser)[-1]
    for n in (64, 256):
        grid = _edm_grid(n)
        second, third = (
            np.abs(walk(sampler(grid), x, mixture_denoiser)[-1] - exact).mean()
            for sampler in (dpmpp_2m, dpmpp_3m)
        )
        assert third < 0.3 * second


@pytest.mark.parametrize("schedule", [LINEAR, EDM], ids=["linear", "edm"])
def test_consistency_rows_are_a_clean_image_noised_anew(schedule):
    grid = timestep_grid(schedule, 4, "coarse")
    table = sampler_table("consistency", grid)
    assert np.array_equal(table.k_0, grid.alpha[1:])
    assert np.array_equal(table.k_s, grid.sigma[1:])
    assert not any(column.any() for column in (table.k_x, table.k_1, table.k_2))


@pytest.mark.parametrize("schedule", SCHEDULE_NAMES)
def test_a_coarse_grid_is_karras_without_the_last_level(schedule):
    schedule = NoiseSchedule.from_config(ScheduleConfig(schedule))
    coarse, karras = timestep_grid(schedule, 3, "coarse"), timestep_grid(schedule, 4, "karras")
    assert np.array_equal(coarse.sigma, np.delete(karras.sigma, 3))
    assert timestep_grid(schedule, 1, "coarse").sigma.tolist() == [schedule.sigma[-1], 0.0]
    assert default_spacing("consistency", schedule.config.name) == "coarse"


def test_deis_is_exact_where_the_image_is_a_parabola_in_log_snr():
    grid = timestep_grid(LINEAR, 12)
    table = deis(grid)
    lam = np.log(grid.alpha[:-1] / grid.sigma[:-1])
    x0 = np.polyval([0.03, -0.2, 0.5], lam)
    # d(x / sigma) = e^lambda x0 d(lambda), whose integral is e^lambda (x0 - x0' + x0'')
    x = grid.sigma[:-1] * np.exp(lam) * (x0 - np.polyval([0.06, -0.2], lam) + 0.06)
    for i in range(2, len(lam) - 1):
        history = table.k_0[i] * x0[i] + table.k_1[i] * x0[i - 1] + table.k_2[i] * x0[i - 2]
        np.testing.assert_allclose(table.k_x[i] * x[i] + history, x[i + 1], rtol=1e-10)


@pytest.mark.parametrize("name", [*ONE_ROW_A_STEP, "unipc"])
@pytest.mark.parametrize("schedule", ["linear", "cosine", "edm"])
def test_no_coefficient_is_large(name, schedule):
    for spacing in spacings_of(schedule):
        for steps in (5, 10, 20, 50, 1000):
            grid = timestep_grid(
                NoiseSchedule.from_config(ScheduleConfig(schedule)), steps, spacing
            )
            table = sampler_table(name, grid)
            assert max(np.abs(getattr(table, k)).max() for k in COLUMNS[:-1]) < 6, (spacing, steps)


@pytest.mark.parametrize("sampler", [dpmpp_3m, deis])
def test_a_step_longer_than_the_two_before_it_follows_no_parabola(sampler):
    table = sampler(timestep_grid(LINEAR, 10, "leading"))
    assert table.k_2[7] != 0.0
    assert table.k_2[8] == 0.0
    assert table.k_1[8] != 0.0


# Oracle 10: diffusers, every step ----------------------------------------------------------------


def _net(x, t):
    """Any smooth function of x and t serves as the network of both sides."""
    return torch.tanh(0.7 * x + 0.1) * (0.4 + 0.3 * math.cos(t / 300.0)) + 0.2 * x


def _peer_path(scheduler, x, **step_arguments):
    path = []
    for t in scheduler.timesteps:
        scaled = scheduler.scale_model_input(x, t)
        x = scheduler.step(_net(scaled, float(t)), t, x, **step_arguments).prev_sample
        path.append(x)
    return path


def _our_path(table, x, noise=None):
    """The same network, as an epsilon-prediction in float64."""
    c_noise = dict(zip(zip(table.alpha, table.sigma, strict=True), table.c_noise, strict=True))

    def denoiser(x, alpha, sigma):
        eps = _net(torch.from_numpy(x), float(c_noise[alpha, sigma])).numpy()
        return (x - sigma * eps) / alpha

    return walk(table, x.double().numpy(), denoiser, noise)


def _agree(ours, theirs):
    """To the float32 of the peer, relative to the largest value of the path."""
    scale = max(np.abs(mine).max() for mine in ours)
    for mine, other in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(mine, other.numpy(), rtol=0, atol=4e-6 * scale)


def _noise(steps):
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(4, 3, generator=generator) for _ in range(steps)]


pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


def _peers():
    import diffusers

    return diffusers


@pytest.mark.parametrize("spacing", ["leading", "trailing"])
@pytest.mark.parametrize("steps", [10, 50, 1000])
def test_ddim_agrees_with_diffusers_at_every_step(spacing, steps):
    peer = _peers().DDIMScheduler(
        clip_sample=False, set_alpha_to_one=True, timestep_spacing=spacing
    )
    peer.set_timesteps(steps)
    x = torch.randn(4, 3, generator=torch.Generator().manual_seed(0))
    ours = _our_path(ddim(timestep_grid(LINEAR, steps, spacing)), x)
    for mine, theirs in zip(ours, _peer_path(peer, x), strict=True):
        np.testing.assert_allclose(mine, theirs.numpy(), rtol=2e-4, atol=2e-4)


@pytest.mark.parametrize("variance", ["fixed_small", "fixed_large"])
def test_ddpm_agrees_with_diffusers_at_every_step(variance):
    # "leading" ends at diffusers' t = 0; elsewhere it adds noise to the very last image.
    peer = _peers().DDPMScheduler(
        clip_sample=False, variance_type=variance, timestep_spacing="leading"
    )
    peer.set_timesteps(100)
    x = torch.randn(4, 3, generator=torch.Generator().manual_seed(0))
    table = ddpm(timestep_grid(LINEAR, 100, "leading"), variance)
    generator = torch.Generator().manual_seed(1)
    noise = [torch.randn(4, 3, generator=generator).double().numpy() for _ in range(100)]
    theirs = _peer_path(peer, x, generator=torch.Generator().manual_seed(1))
    for mine, other in zip(_our_path(table, x, noise), theirs, strict=True):
        np.testing.assert_allclose(mine, other.numpy(), rtol=2e-3, atol=2e-3)


def test_euler_agrees_with_diffusers_at_every_step():
    peer = _peers().EulerDiscreteScheduler(timestep_spacing="trailing")
    peer.set_timesteps(20)
    grid = timestep_grid(LINEAR, 20, "trailing")
    x = torch.randn(4, 3, generator=torch.Generator().manual_seed(0)) * 100
    ours = _our_path(sampler_table("euler", grid), x * grid.alpha[0])
    for i, theirs in enumerate(_peer_path(peer, x)):
        np.testing.assert_allclose(
            ours[i] / grid.alpha[i + 1], theirs.numpy(), rtol=2e-3, atol=2e-3
        )


@pytest.mark.parametrize("steps", [10, 20, 50])
@pytest.mark.parametrize("name", ["dpmpp_2m", "dpmpp_3m", "unipc"])
def test_multistep_samplers_agree_with_diffusers_at_every_step(name, steps):
    settings = {"timestep_spacing": "trailing", "final_sigmas_type": "zero"}
    if name == "unipc":
        peer = _peers().UniPCMultistepScheduler(solver_order=2, **settings)
    else:
        # The peer lowers the order of the last but one of fewer than 15 steps; we do not.
        peer = _peers().DPMSolverMultistepScheduler(
            solver_order=int(name[6]), lower_order_final=False, **settings
        )
    peer.set_timesteps(steps)
    x = torch.randn(4, 3, generator=torch.Generator().manual_seed(0))
    ours = _our_path(sampler_table(name, timestep_grid(LINEAR, steps, "trailing")), x)
    _agree(ours, _peer_path(peer, x))


@pytest.mark.parametrize("steps", [10, 50, 100])
def test_2m_sde_agrees_with_diffusers_at_every_step(steps):
    peer = _peers().DPMSolverMultistepScheduler(
        solver_order=2,
        algorithm_type="sde-dpmsolver++",
        lower_order_final=False,
        timestep_spacing="trailing",
    )
    peer.set_timesteps(steps)
    x = torch.randn(4, 3, generator=torch.Generator().manual_seed(0))
    noise = _noise(steps)
    ours = _our_path(
        dpmpp_2m_sde(timestep_grid(LINEAR, steps)), x, [each.double().numpy() for each in noise]
    )
    theirs = []
    for t, each in zip(peer.timesteps, noise, strict=True):
        x = peer.step(_net(x, float(t)), t, x, variance_noise=each).prev_sample
        theirs.append(x)
    _agree(ours, theirs)


@pytest.mark.parametrize("steps", [10, 50, 100])
def test_euler_ancestral_agrees_with_diffusers_at_every_step(steps):
    peer = _peers().EulerAncestralDiscreteScheduler(timestep_spacing="trailing")
    peer.set_timesteps(steps)
    grid = timestep_grid(LINEAR, steps)
    x = torch.randn(4, 3, generator=torch.Generator().manual_seed(0)) * 100
    noise = [each.double().numpy() for each in _noise(steps)]
    ours = _our_path(sampler_table("euler_ancestral", grid), x * grid.alpha[0], noise)
    scaled = [mine / alpha for mine, alpha in zip(ours, grid.alpha[1:], strict=True)]
    _agree(scaled, _peer_path(peer, x, generator=torch.Generator().manual_seed(1)))


def test_the_first_rows_of_deis_agree_with_diffusers_exponential_2m_at_every_step():
    peer = _peers().DPMSolverMultistepScheduler(
        solver_order=2, solver_type="heun", lower_order_final=False, timestep_spacing="trailing"
    )
    peer.set_timesteps(3)
    x = torch.randn(4, 3, generator=torch.Generator().manual_seed(0))
    _agree(_our_path(deis(timestep_grid(LINEAR, 3)), x), _peer_path(peer, x))


@pytest.mark.filterwarnings(
    "ignore:__array_wrap__"
)  # diffusers lets numpy take logarithms of tensors
def test_deis_and_diffusers_deis_come_together_as_the_steps_shrink():
    # Theirs extrapolates eps and ends at t = 1, so the last rows are not compared. Their float32
    # coefficients cancel beyond 100 steps.
    x = torch.randn(4, 3, generator=torch.Generator().manual_seed(0))
    gaps = []
    for steps in (10, 20, 40):
        peer = _peers().DEISMultistepScheduler(solver_order=3, timestep_spacing="trailing")
        peer.set_timesteps(steps)
        ours = _our_path(deis(timestep_grid(LINEAR, steps)), x)
        gaps.append(np.abs(ours[-2] - _peer_path(peer, x)[-2].numpy()).max())
    assert gaps[0] / gaps[1] > 5, gaps
    assert gaps[1] / gaps[2] > 5, gaps


def test_edm_agrees_with_diffusers_edm_euler_at_every_step():
    from models.diffusion.prediction import Prediction

    peer = _peers().EDMEulerScheduler(sigma_min=0.002, sigma_max=80.0, sigma_data=0.5)
    peer.set_timesteps(18)
    x = torch.randn(4, 3, generator=torch.Generator().manual_seed(0)) * 80
    schedule = NoiseSchedule.from_config(ScheduleConfig("edm"))
    table = sampler_table("euler", timestep_grid(schedule, 18))
    prediction = Prediction("edm", 0.5)

    def denoiser(x, alpha, sigma):
        k = prediction.denoiser_coefficients(np.array(alpha), np.array(sigma))
        y = _net(torch.from_numpy(k.c_in * x), math.log(sigma) / 4).numpy()
        return k.p_x * x + k.p_F * y

    ours = walk(table, x.double().numpy(), denoiser)
    for mine, theirs in zip(ours, _peer_path(peer, x), strict=True):
        np.testing.assert_allclose(mine, theirs.numpy(), rtol=2e-3, atol=2e-3)


# Grids -------------------------------------------------------------------------------


@pytest.mark.parametrize("steps", [1, 3, 7, 30, 999, 1000])
def test_trailing_starts_at_the_end_and_every_step_leads_to_the_next(steps):
    grid = timestep_grid(LINEAR, steps)
    assert grid.t[0] == 1000
    assert grid.t[-1] == 0
    assert np.all(np.diff(grid.t) < 0)


def _ratio(grid):
    with np.errstate(divide="ignore"):
        return grid.sigma[:-1] / grid.alpha[:-1]


@pytest.mark.parametrize("schedule", SCHEDULE_NAMES)
@pytest.mark.parametrize("spacing", ["karras", "logsnr"])
@pytest.mark.parametrize("steps", [2, 11, 1000])
def test_karras_and_logsnr_are_even_in_their_measure(schedule, spacing, steps):
    schedule = NoiseSchedule.from_config(ScheduleConfig(schedule))
    grid = timestep_grid(schedule, steps, spacing)
    assert grid.t[0] == 1000
    assert grid.t[-2] == pytest.approx(1, abs=1e-6)
    assert np.all(np.diff(grid.t) < 0)
    # Flow's T holds no signal: its ratio is infinite, and the spread begins at T - 1.
    T = 999 if schedule.config.name == "flow" else 1000
    ratio = np.append(schedule.sigma[T] / schedule.alpha[T], _ratio(grid)[1:])
    even = np.log(ratio) if spacing == "logsnr" else ratio ** (1 / 7)
    np.testing.assert_allclose(even, np.linspace(even[0], even[-1], steps), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("schedule", SCHEDULE_NAMES)
@pytest.mark.parametrize("spacing", ["karras", "logsnr"])
def test_levels_between_rows_are_levels_of_the_schedule(schedule, spacing):
    schedule = NoiseSchedule.from_config(ScheduleConfig(schedule))
    grid = timestep_grid(schedule, 20, spacing)
    alpha, sigma, t = grid.alpha[:-1], grid.sigma[:-1], grid.t[:-1]
    if schedule.is_variance_preserving:
        np.testing.assert_allclose(alpha**2 + sigma**2, 1.0, rtol=1e-12)
    elif schedule.config.name == "flow":
        np.testing.assert_allclose(alpha + sigma, 1.0, rtol=1e-12)
    else:
        np.testing.assert_array_equal(alpha, 1.0)
        np.testing.assert_allclose(grid.c_noise[:-1], np.log(sigma) / 4)
    if schedule.config.name != "edm":
        np.testing.assert_allclose(grid.c_noise[:-1], t - 1)
    for level, time in zip(_ratio(grid)[1:], t[1:], strict=True):
        rows = np.array([math.floor(time), math.ceil(time)])
        low, high = schedule.sigma[rows] / schedule.alpha[rows]
        assert low * (1 - 1e-9) <= level <= high * (1 + 1e-9)


@pytest.mark.parametrize("schedule", SCHEDULE_NAMES)
def test_a_level_that_is_a_row_is_told_as_that_row(schedule):
    schedule = NoiseSchedule.from_config(ScheduleConfig(schedule))
    rows = np.array([999, 500, 2, 1])
    alpha, sigma, c_noise, t = schedule.between(schedule.sigma[rows] / schedule.alpha[rows])
    np.testing.assert_allclose(alpha, schedule.alpha[rows], rtol=1e-12)
    np.testing.assert_allclose(sigma, schedule.sigma[rows], rtol=1e-12)
    np.testing.assert_allclose(c_noise, schedule.c_noise(rows), rtol=1e-12, atol=1e-9)
    np.testing.assert_allclose(t, rows, rtol=1e-12)


@pytest.mark.parametrize("steps", [5, 10, 25])
def test_karras_and_logsnr_agree_with_diffusers(steps):
    peer = _peers().DPMSolverMultistepScheduler(use_karras_sigmas=True)
    peer.set_timesteps(steps)
    grid = timestep_grid(LINEAR, steps, "karras")
    np.testing.assert_allclose(_ratio(grid), peer.sigmas[:-1], rtol=1e-4)
    np.testing.assert_allclose(grid.c_noise[:-1], peer.timesteps, atol=0.51)  # they round
    peer = _peers().DPMSolverMultistepScheduler(use_exponential_sigmas=True)
    peer.set_timesteps(steps)
    np.testing.assert_allclose(
        _ratio(timestep_grid(LINEAR, steps, "logsnr")), peer.sigmas[:-1], rtol=1e-4
    )


@pytest.mark.parametrize("spacing", ["karras", "logsnr"])
@pytest.mark.parametrize("steps", [1, 2, 3])
def test_a_spread_grid_starts_where_no_signal_is_left_and_goes_on_from_a_finite_level(
    spacing, steps
):
    schedule = NoiseSchedule.from_config(ScheduleConfig(rescale_zero_terminal_snr=True))
    grid = timestep_grid(schedule, steps, spacing)
    assert grid.alpha[0] == 0.0
    assert grid.t[0] == 1000
    assert np.all(grid.t[1:] < 999)
    assert len(grid) == steps


@pytest.mark.parametrize("name", ["linear", "edm", "flow"])
def test_a_schedule_of_one_step_has_one_grid(name):
    schedule = NoiseSchedule.from_config(ScheduleConfig(name, num_train_timesteps=1))
    for spacing in spacings_of(name):
        grid = timestep_grid(schedule, 1, spacing)
        assert grid.t.tolist() == [1.0, 0.0]
        assert grid.sigma[0] == schedule.sigma[1]


def test_the_default_spacing_is_the_first_that_fits():
    for name in SCHEDULE_NAMES:
        schedule = NoiseSchedule.from_config(ScheduleConfig(name))
        left_open = timestep_grid(schedule, 12)
        named = timestep_grid(schedule, 12, spacings_of(name)[0])
        np.testing.assert_array_equal(left_open.sigma, named.sigma)


# The tail of a grid -------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ONE_ROW_A_STEP)
def test_the_tail_of_a_grid_is_walked_with_a_fresh_history(name):
    grid = timestep_grid(LINEAR, 20)
    tail = grid_from(grid, 12)
    assert len(tail) == 8
    whole, part = sampler_table(name, grid), sampler_table(name, tail)
    assert part.k_1[0] == part.k_2[0] == part.k_2[1] == 0.0
    for column in COLUMNS:  # three rows on, the history is as long as in the whole grid
        np.testing.assert_array_equal(getattr(whole, column)[14:], getattr(part, column)[2:])


@pytest.mark.parametrize("first", [-1, 20, 21])
def test_a_tail_of_nothing_is_refused(first):
    with pytest.raises(Invalid, match=rf"first is {first}; it must lie in 0\.\.19"):
        grid_from(timestep_grid(LINEAR, 20), first)


def test_strength_is_the_share_of_the_steps_that_is_walked():
    grid = timestep_grid(LINEAR, 20)
    strengths = (1.0, 0.75, 0.5, 0.3, 0.05, 1e-9)
    walked = [len(grid_from(grid, first_level(grid, strength))) for strength in strengths]
    assert walked == [20, 15, 10, 6, 1, 1]
    hundred = timestep_grid(LINEAR, 100)
    assert first_level(hundred, 0.29) == 71  # 0.29 * 100 is a little less than 29
    for strength in (0.0, -0.1, 1.01, math.nan):
        with pytest.raises(Invalid, match="strength is"):
            first_level(grid, strength)


# Refusals -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SAMPLER_NAMES)
@pytest.mark.parametrize("schedule", ["linear", "cosine", "edm"])
def test_the_last_row_ends_at_the_clean_image(name, schedule):
    config = ScheduleConfig(schedule)
    table = sampler_table(name, timestep_grid(NoiseSchedule.from_config(config), 9))
    last = [getattr(table, k)[-1] for k in COLUMNS]
    np.testing.assert_allclose(last, [0, 1, 0, 0, 0], atol=1e-9)


@pytest.mark.parametrize("name", ONE_ROW_A_STEP)
@pytest.mark.parametrize("spacing", ["trailing", "linspace", "karras", "logsnr"])
def test_sampling_may_start_where_no_signal_is_left(name, spacing):
    config = ScheduleConfig(rescale_zero_terminal_snr=True)
    table = sampler_table(name, timestep_grid(NoiseSchedule.from_config(config), 10, spacing))
    assert all(np.isfinite(getattr(table, k)).all() for k in COLUMNS)
    assert abs(table.k_x[0]) <= 1.0


@pytest.mark.parametrize("name", ["heun", "unipc"])
def test_a_sampler_that_needs_signal_says_so(name):
    grid = timestep_grid(NoiseSchedule.from_config(ScheduleConfig("flow")), 10)
    with pytest.raises(Invalid, match=f"'{name}' cannot start where no signal"):
        sampler_table(name, grid)


@pytest.mark.parametrize("steps", [0, -1, 1001, 10**9])
def test_steps_out_of_range_are_refused_with_the_bound(steps):
    with pytest.raises(Invalid, match=f"num_inference_steps is {steps}.*1..1000"):
        timestep_grid(LINEAR, steps)


def test_an_unknown_sampler_and_a_bad_eta_are_refused():
    grid = timestep_grid(LINEAR, 5)
    with pytest.raises(Invalid, match=r"'plms'.*ddpm"):
        sampler_table("plms", grid)
    with pytest.raises(Invalid, match="eta is nan"):
        sampler_table("ddim", grid, eta=math.nan)
    with pytest.raises(Invalid, match="only sampler 'ddim'"):
        sampler_table("euler", grid, eta=0.5)


def test_a_spacing_that_does_not_exist_or_does_not_fit_is_refused():
    with pytest.raises(Invalid, match=r"'quadratic'.*'logsnr'"):
        timestep_grid(LINEAR, 5, "quadratic")
    for spacing in ("trailing", "leading", "linspace"):
        with pytest.raises(Invalid, match=rf"'{spacing}' does not fit.*'edm'.*'karras'"):
            timestep_grid(EDM, 5, spacing)
