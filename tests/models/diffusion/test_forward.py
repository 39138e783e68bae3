"""The forward process against its closed forms, by Monte Carlo with generous bounds."""

import math
from itertools import pairwise

import numpy as np
import pytest
import torch

from models.diffusion.forward import closed_form, diffuse, step_by_step
from models.diffusion.noise import Stream, normal
from models.diffusion.schedule import SCHEDULE_NAMES, NoiseSchedule, ScheduleConfig, transition
from models.fields import Invalid

LINEAR = NoiseSchedule.from_config(ScheduleConfig("linear"))
SHORT = NoiseSchedule.from_config(ScheduleConfig("cosine", num_train_timesteps=20))
VALUE = 0.75  # of every pixel of x0


def a_batch(count: int = 100, side: int = 30) -> torch.Tensor:
    return torch.full((count, 1, side, side), VALUE)


def fresh_noise(like: torch.Tensor, step: int) -> torch.Tensor:
    return normal(99, torch.arange(len(like)), step, like.shape[1:], Stream.TRAINING)


def assert_normal(x: torch.Tensor, mean: float, variance: float) -> None:
    """Oracle: the mean within 5 sigma / sqrt(n), the variance within 5 sqrt(2 / n) of itself."""
    n = x.numel()
    assert abs(x.double().mean() - mean) < 5 * math.sqrt(variance / n)
    assert abs(x.double().var() / variance - 1) < 5 * math.sqrt(2 / n)


@pytest.mark.parametrize("name", SCHEDULE_NAMES)
@pytest.mark.parametrize("t", [1, 10, 20])
def test_the_closed_form_has_the_mean_and_variance_of_the_schedule(name, t):
    schedule = NoiseSchedule.from_config(ScheduleConfig(name, num_train_timesteps=20))
    x_t = closed_form(schedule, a_batch(), t, seed=1)
    assert_normal(x_t, float(schedule.alpha[t]) * VALUE, float(schedule.sigma[t]) ** 2)


@pytest.mark.parametrize("name", ["linear", "flow", "edm"])
@pytest.mark.parametrize("t", [1, 7, 20])
def test_step_by_step_has_the_distribution_of_the_closed_form(name, t):
    schedule = NoiseSchedule.from_config(ScheduleConfig(name, num_train_timesteps=20))
    x_t = step_by_step(schedule, a_batch(), t, seed=2)
    assert_normal(x_t, float(schedule.alpha[t]) * VALUE, float(schedule.sigma[t]) ** 2)
    noise = (x_t - float(schedule.alpha[t]) * VALUE) / float(schedule.sigma[t])
    n = noise.numel()
    empirical = (torch.arange(n) + 0.5) / n
    exact = torch.special.ndtr(noise.double().flatten().sort().values)
    assert (exact - empirical).abs().max() < 1.95 / math.sqrt(n)  # Kolmogorov-Smirnov, p = 0.001


@pytest.mark.parametrize(("s", "t"), [(1, 2), (100, 500), (500, 1000)])
def test_two_times_of_one_path_covary_as_the_kernel_says(s, t):
    x0 = a_batch()
    x_s = closed_form(LINEAR, x0, s, seed=3)
    x_t = diffuse(LINEAR, x_s, s, t, fresh_noise(x0, 0))
    alpha_ts, _ = transition(LINEAR.alpha, LINEAR.sigma, s, t)
    assert_normal(x_t, float(LINEAR.alpha[t]) * VALUE, float(LINEAR.sigma[t]) ** 2)
    var_s, var_t = float(LINEAR.sigma[s]) ** 2, float(LINEAR.sigma[t]) ** 2
    covariance = float(torch.cov(torch.stack([x_s.flatten(), x_t.flatten()]).double())[0, 1])
    spread = math.sqrt((var_s * var_t + (alpha_ts * var_s) ** 2) / x0.numel())
    assert abs(covariance - alpha_ts * var_s) < 5 * spread


def test_the_steps_of_a_chain_use_fresh_noise():
    x0 = a_batch()
    states = [step_by_step(SHORT, x0, t, seed=4) for t in range(6)]
    noises = []
    for s, (x_s, x_t) in enumerate(pairwise(states)):
        alpha_ts, sigma2_ts = transition(SHORT.alpha, SHORT.sigma, s, s + 1)
        noises.append(((x_t - alpha_ts * x_s) / math.sqrt(sigma2_ts)).flatten())
    correlations = torch.corrcoef(torch.stack(noises).double()) - torch.eye(5)
    assert correlations.abs().max() < 5 / math.sqrt(x0.numel())


@pytest.mark.parametrize("name", SCHEDULE_NAMES)
def test_steps_compose_to_the_jump(name):
    """By the recursion m <- alpha_ts m, v <- alpha_ts^2 v + sigma2_ts."""
    schedule = NoiseSchedule.from_config(ScheduleConfig(name, num_train_timesteps=50))
    mean, variance = 1.0, 0.0
    for s in range(50):
        alpha_ts, sigma2_ts = transition(schedule.alpha, schedule.sigma, s, s + 1)
        mean, variance = alpha_ts * mean, alpha_ts**2 * variance + sigma2_ts
        np.testing.assert_allclose(mean, schedule.alpha[s + 1], rtol=1e-12, atol=1e-15)
        np.testing.assert_allclose(variance, schedule.sigma[s + 1] ** 2, rtol=1e-11)


def test_at_time_0_an_image_is_itself():
    x0 = torch.linspace(-1, 1, 48).reshape(1, 3, 4, 4)
    assert torch.equal(closed_form(LINEAR, x0, 0, seed=5), x0)
    assert torch.equal(step_by_step(LINEAR, x0, 0, seed=5), x0)
    assert torch.equal(diffuse(LINEAR, x0, 300, 300, torch.randn(x0.shape)), x0)


def test_one_step_is_the_textbooks():
    x0, eps = torch.full((1, 1, 2, 2), 0.5), torch.full((1, 1, 2, 2), 2.0)
    x_1 = diffuse(LINEAR, x0, 0, 1, eps)
    torch.testing.assert_close(x_1, math.sqrt(1 - 1e-4) * x0 + math.sqrt(1e-4) * eps)


def test_a_ladder_of_times_shows_the_same_noise():
    x0 = a_batch(2, 8)
    noises = [
        (closed_form(LINEAR, x0, t, seed=6) - float(LINEAR.alpha[t]) * x0) / float(LINEAR.sigma[t])
        for t in (100, 900)
    ]
    torch.testing.assert_close(noises[0], noises[1], rtol=0, atol=1e-5)


def test_the_seed_decides():
    x0 = a_batch(2, 8)
    for noised in (closed_form, step_by_step):
        assert torch.equal(noised(SHORT, x0, 9, seed=7), noised(SHORT, x0, 9, seed=7))
        assert not torch.equal(noised(SHORT, x0, 9, seed=7), noised(SHORT, x0, 9, seed=8))


@pytest.mark.parametrize("noised", [closed_form, step_by_step])
def test_an_image_does_not_depend_on_the_ones_behind_it(noised):
    x0 = torch.linspace(-1, 1, 3 * 64).reshape(3, 1, 8, 8)
    assert torch.equal(noised(SHORT, x0, 9, seed=9)[:1], noised(SHORT, x0[:1], 9, seed=9))


@pytest.mark.parametrize(("s", "t"), [(-1, 5), (5, 4), (0, 1001), (1001, 1001)])
def test_times_out_of_range_are_refused_with_their_bound(s, t):
    x = torch.zeros(1, 1, 2, 2)
    with pytest.raises(Invalid, match=rf"s, t are {s}, {t};.*0 <= s <= t <= 1000"):
        diffuse(LINEAR, x, s, t, x)


@pytest.mark.parametrize("noised", [closed_form, step_by_step])
@pytest.mark.parametrize("t", [-1, 21])
def test_both_ways_refuse_a_time_out_of_range(noised, t):
    with pytest.raises(Invalid, match=r"0 <= s <= t <= 20"):
        noised(SHORT, torch.zeros(1, 1, 2, 2), t, seed=0)
