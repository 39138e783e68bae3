"""Samplers against closed forms (oracles 2 to 5) and, row by row, against diffusers (oracle 10)."""

import math

import numpy as np
import pytest
import torch

from models.sampler import (
    SAMPLER_NAMES,
    Grid,
    SamplerTable,
    ddim,
    ddpm,
    dpmpp_2m,
    heun,
    sampler_table,
    timestep_grid,
    unipc,
)
from models.schedule import NoiseSchedule, ScheduleConfig

LINEAR = NoiseSchedule.from_config(ScheduleConfig())


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


def test_inversion_is_the_same_product_on_the_reversed_grid():
    grid = timestep_grid(LINEAR, 50)
    levels = slice(None, -1)  # the clean end has no noise to scale up
    reverse = Grid(*(v[levels][::-1] for v in (grid.alpha, grid.sigma, grid.c_noise, grid.t)))
    mean, std, x = -0.2, 0.7, np.array([0.4])
    end = walk(ddim(reverse), x, gaussian_denoiser(mean, std))[-1]
    a = reverse.sigma / reverse.alpha
    product = np.prod((std**2 + a[:-1] * a[1:]) / (std**2 + a[:-1] ** 2))
    expected = (x / reverse.alpha[0] - mean) * product
    np.testing.assert_allclose(end / reverse.alpha[-1] - mean, expected, rtol=1e-9)


@pytest.mark.parametrize("sampler", ["heun", "dpmpp_2m", "unipc"])
def test_second_order_samplers_reach_the_exact_flow_of_a_gaussian(sampler):
    schedule = NoiseSchedule.from_config(ScheduleConfig("edm"))
    grid = timestep_grid(schedule, 200)
    mean, std, x = 0.3, 0.5, np.array([80.0, -40.0])
    end = walk(sampler_table(sampler, grid), x, gaussian_denoiser(mean, std))[-1]
    exact = mean + (x - mean) * std / np.sqrt(std**2 + grid.sigma[0] ** 2)
    np.testing.assert_allclose(end, exact, atol=2e-3)


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


def test_ddim_with_eta_1_is_ddpm_with_fixed_small():
    grid = timestep_grid(LINEAR, 37)
    one, other = ddim(grid, 1.0), ddpm(grid)
    for column in ("k_x", "k_0", "k_s"):
        np.testing.assert_allclose(getattr(one, column), getattr(other, column), atol=1e-9)


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
    ("sampler", "order"), [(ddim, 1.0), (heun, 2.0), (dpmpp_2m, 2.0), (unipc, 3.0)]
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
    assert slope < order + 0.9, (slope, errors)


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


@pytest.mark.parametrize("name", ["dpmpp_2m", "unipc"])
def test_multistep_samplers_agree_with_diffusers_at_every_step(name):
    settings = {"timestep_spacing": "trailing", "final_sigmas_type": "zero"}
    if name == "unipc":
        peer = _peers().UniPCMultistepScheduler(solver_order=2, **settings)
    else:
        peer = _peers().DPMSolverMultistepScheduler(
            solver_order=2, lower_order_final=True, euler_at_final=True, **settings
        )
    peer.set_timesteps(20)
    x = torch.randn(4, 3, generator=torch.Generator().manual_seed(0))
    ours = _our_path(sampler_table(name, timestep_grid(LINEAR, 20, "trailing")), x)
    for mine, theirs in zip(ours, _peer_path(peer, x), strict=True):
        np.testing.assert_allclose(mine, theirs.numpy(), rtol=2e-3, atol=2e-3)


def test_edm_agrees_with_diffusers_edm_euler_at_every_step():
    from models.prediction import Prediction

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


# Grids and refusals -------------------------------------------------------------------------------


@pytest.mark.parametrize("steps", [1, 3, 7, 30, 999, 1000])
def test_trailing_starts_at_the_end_and_every_step_leads_to_the_next(steps):
    grid = timestep_grid(LINEAR, steps)
    assert grid.t[0] == 1000
    assert grid.t[-1] == 0
    assert np.all(np.diff(grid.t) < 0)


@pytest.mark.parametrize("name", SAMPLER_NAMES)
@pytest.mark.parametrize("schedule", ["linear", "cosine", "edm"])
def test_the_last_row_ends_at_the_clean_image(name, schedule):
    config = ScheduleConfig(schedule)
    table = sampler_table(name, timestep_grid(NoiseSchedule.from_config(config), 9))
    last = [getattr(table, k)[-1] for k in ("k_x", "k_0", "k_1", "k_2", "k_s")]
    np.testing.assert_allclose(last, [0, 1, 0, 0, 0], atol=1e-9)


@pytest.mark.parametrize("name", ["ddpm", "ddim", "dpmpp_2m"])
def test_sampling_may_start_where_no_signal_is_left(name):
    config = ScheduleConfig(rescale_zero_terminal_snr=True)
    table = sampler_table(name, timestep_grid(NoiseSchedule.from_config(config), 10))
    assert all(np.isfinite(getattr(table, k)).all() for k in ("k_x", "k_0", "k_1", "k_2", "k_s"))


@pytest.mark.parametrize("steps", [0, -1, 1001, 10**9])
def test_steps_out_of_range_are_refused_with_the_bound(steps):
    with pytest.raises(ValueError, match=f"num_inference_steps is {steps}.*1..1000"):
        timestep_grid(LINEAR, steps)


def test_an_unknown_sampler_and_a_bad_eta_are_refused():
    grid = timestep_grid(LINEAR, 5)
    with pytest.raises(ValueError, match=r"'plms'.*ddpm"):
        sampler_table("plms", grid)
    with pytest.raises(ValueError, match="eta is nan"):
        sampler_table("ddim", grid, eta=math.nan)
    with pytest.raises(ValueError, match="only sampler 'ddim'"):
        sampler_table("euler", grid, eta=0.5)
