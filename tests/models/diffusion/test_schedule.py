"""Oracle 1: the chain and its closed form are one process."""

import numpy as np
import pytest

from models.diffusion.schedule import SCHEDULE_NAMES, NoiseSchedule, ScheduleConfig, transition
from models.fields import Invalid

VARIANCE_PRESERVING = ["linear", "scaled_linear", "cosine", "sigmoid"]


@pytest.mark.parametrize("name", VARIANCE_PRESERVING)
@pytest.mark.parametrize("rescale", [False, True])
def test_the_chain_ends_where_the_closed_form_says(name, rescale):
    schedule = NoiseSchedule.from_config(ScheduleConfig(name, rescale_zero_terminal_snr=rescale))
    mean, variance = 1.0, 0.0
    for t, beta in enumerate(schedule.betas, start=1):
        mean, variance = np.sqrt(1 - beta) * mean, (1 - beta) * variance + beta
        assert abs(mean - np.sqrt(schedule.alphas_cumprod[t])) < 1e-12
        assert abs(variance - (1 - schedule.alphas_cumprod[t])) < 1e-12


@pytest.mark.parametrize("name", SCHEDULE_NAMES)
def test_transitions_compose(name):
    schedule = NoiseSchedule.from_config(ScheduleConfig(name, 100))
    alpha, sigma = schedule.alpha, schedule.sigma
    for s, m, t in [(0, 1, 2), (0, 50, 99), (3, 4, 77)]:
        a_ms, v_ms = transition(alpha, sigma, s, m)
        a_tm, v_tm = transition(alpha, sigma, m, t)
        a_ts, v_ts = transition(alpha, sigma, s, t)
        assert np.isclose(a_ts, a_tm * a_ms, rtol=1e-12)
        assert np.isclose(v_ts, a_tm**2 * v_ms + v_tm, rtol=1e-9)


@pytest.mark.parametrize("name", SCHEDULE_NAMES)
def test_the_clean_image_stands_at_0_and_noise_only_grows(name):
    schedule = NoiseSchedule.from_config(ScheduleConfig(name))
    assert (schedule.alpha[0], schedule.sigma[0]) == (1.0, 0.0)
    assert np.all(np.diff(schedule.snr[1:]) < 0)
    assert np.all((schedule.betas > 0) & (schedule.betas <= 1))


def test_the_default_is_the_classic():
    schedule = NoiseSchedule.from_config(ScheduleConfig())
    assert schedule.num_train_timesteps == 1000
    np.testing.assert_allclose(schedule.betas, np.linspace(1e-4, 0.02, 1000), atol=1e-13)
    assert np.isclose(schedule.alphas_cumprod[1000], 4.0358e-5, rtol=1e-4)


def test_rescaling_leaves_no_signal_at_the_end():
    schedule = NoiseSchedule.from_config(ScheduleConfig(rescale_zero_terminal_snr=True))
    assert schedule.snr[-1] == 0.0
    assert np.isclose(schedule.alphas_cumprod[1], 1 - 1e-4)


def test_flow_is_a_straight_line():
    schedule = NoiseSchedule.from_config(ScheduleConfig("flow", 10))
    np.testing.assert_allclose(schedule.alpha + schedule.sigma, 1.0)


def test_edm_spans_its_sigmas():
    schedule = NoiseSchedule.from_config(ScheduleConfig("edm", 18))
    assert np.isclose(schedule.sigma[1], 0.002)
    assert np.isclose(schedule.sigma[-1], 80.0)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("name", "quadratic"),
        ("num_train_timesteps", 0),
        ("num_train_timesteps", 10_001),
        ("beta_start", 0.0),
        ("beta_end", 1.0),
        ("sigma_min", 100.0),
        ("sigma_max", float("inf")),
        ("num_train_timesteps", 10.5),
        ("rho", 0.0),
        ("rho", -7.0),
        ("rho", float("nan")),
    ],
)
def test_a_bad_field_is_named_with_its_bound(field, value):
    with pytest.raises(Invalid, match=f"{'schedule' if field == 'name' else field}.*{value}"):
        ScheduleConfig(**{field: value})
