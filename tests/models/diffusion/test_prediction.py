"""Every prediction and every schedule is one whole row of its table."""

import numpy as np
import pytest

from models.diffusion.prediction import PREDICTION_TYPES, PREDICTIONS, Prediction, PredictionType
from models.diffusion.schedule import (
    SCHEDULE_NAMES,
    SCHEDULES,
    NoiseSchedule,
    ScheduleConfig,
    ScheduleName,
)
from models.fields import Invalid


def test_every_name_has_a_row() -> None:
    assert tuple(PREDICTIONS) == PREDICTION_TYPES
    assert tuple(SCHEDULES) == SCHEDULE_NAMES


@pytest.mark.parametrize("name", PREDICTION_TYPES)
def test_the_clean_image_is_read_off_the_exact_target(name: PredictionType) -> None:
    schedule = NoiseSchedule.from_config(ScheduleConfig(PREDICTIONS[name].only_with or "linear"))
    prediction = Prediction(name, 0.7)
    prediction.check(schedule)
    alpha, sigma = schedule.alpha[1:], schedule.sigma[1:]
    x0, eps = np.random.default_rng(0).normal(size=(2, len(alpha)))
    a, b = prediction.target_coefficients(alpha, sigma)
    k = prediction.denoiser_coefficients(alpha, sigma)
    x0_hat = k.p_x * (alpha * x0 + sigma * eps) + k.p_F * (a * x0 + b * eps)
    worst = 1e-15 * np.max(np.abs(k.p_x) + np.abs(k.p_F) + 1.0) * 10
    np.testing.assert_allclose(x0_hat, x0, rtol=0, atol=worst)


def test_a_prediction_that_does_not_fit_is_refused_by_its_field() -> None:
    with pytest.raises(Invalid, match="it needs schedule 'flow'") as refusal:
        Prediction("flow").check(NoiseSchedule.from_config(ScheduleConfig("linear")))
    assert (refusal.value.field, refusal.value.value) == ("prediction_type", "flow")


@pytest.mark.parametrize("name", SCHEDULE_NAMES)
def test_between_agrees_with_the_tables_where_they_have_a_row(name: ScheduleName) -> None:
    schedule = NoiseSchedule.from_config(ScheduleConfig(name))
    rows = np.array([1, 10, 500, 900])
    alpha, sigma, c_noise, t = schedule.between(schedule.sigma[rows] / schedule.alpha[rows])
    np.testing.assert_allclose(alpha, schedule.alpha[rows], rtol=1e-12)
    np.testing.assert_allclose(sigma, schedule.sigma[rows], rtol=1e-12)
    np.testing.assert_allclose(c_noise, schedule.c_noise(rows), rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(t, rows, rtol=1e-9)
