"""Likelihood against densities that are known (oracle 8), and bits against counting."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from models.diffusion.config import ModelConfig
from models.diffusion.model import DiffusionModel
from models.diffusion.schedule import SCHEDULE_NAMES, NoiseSchedule, ScheduleConfig
from models.evaluation.likelihood import (
    ROUNDING_STD,
    bits_of,
    bits_per_dimension,
    dequantised,
    exact_trace,
    flow_log_density,
    flow_ratios,
    hutchinson_trace,
)
from models.fields import Invalid
from models.nets.config import UNetConfig
from models.sampling.generate import Stopped

X = torch.tensor([[0.1, 0.9], [-1.2, 0.3], [2.0, 0.0]], dtype=torch.float64)


def gaussian(mean, std):
    """The exact denoiser of data N(mean, std^2)."""
    return lambda x, r: (std**2 * x + r**2 * mean) / (std**2 + r**2)


def gaussian_log_density(x, mean, variance):
    terms = -((x - mean) ** 2) / (2 * variance) - 0.5 * torch.log(2 * math.pi * variance)
    return terms.flatten(1).sum(dim=1)


# Oracle 8 -----------------------------------------------------------------------------------------


def test_of_a_gaussian_it_is_the_gaussians_density():
    mean = torch.tensor([0.3, -0.6], dtype=torch.float64)
    std = torch.tensor([0.5, 0.2], dtype=torch.float64)
    ratios = np.geomspace(0.002, 1e8, 400)  # so much noise that the mean no longer counts
    log_p = flow_log_density(gaussian(mean, std), X, ratios, 0.4, exact_trace)
    expected = gaussian_log_density(X, mean, std**2 + ratios[0] ** 2)
    torch.testing.assert_close(log_p, expected, rtol=0, atol=1e-6)


def test_where_the_data_is_as_sigma_data_says_one_step_is_exact():
    for std in (0.05, 0.5, 2.0):
        log_p = flow_log_density(gaussian(0.0, std), X, np.array([0.01, 50.0]), std, exact_trace)
        expected = gaussian_log_density(X, 0.0, torch.tensor(std**2 + 0.01**2, dtype=torch.float64))
        torch.testing.assert_close(log_p, expected, rtol=1e-12, atol=1e-9)


def test_of_a_mixture_the_error_falls_with_the_fourth_power_of_the_step():
    weights, means, std = torch.tensor([0.3, 0.7]), torch.tensor([-0.8, 0.6]).double(), 0.3

    def densities(x, variance):
        return weights * torch.exp(-((x[..., None] - means) ** 2) / (2 * variance))

    def denoiser(x, r):
        variance = std**2 + r**2
        share = densities(x, variance)
        share = share / share.sum(dim=-1, keepdim=True)
        return (share * (std**2 * x[..., None] + r**2 * means) / variance).sum(dim=-1)

    x = torch.tensor([[-0.7], [0.0], [0.5], [1.1]], dtype=torch.float64)
    variance = std**2 + 0.002**2
    expected = torch.log(densities(x, variance).sum(dim=-1)[:, 0]) - 0.5 * math.log(
        2 * math.pi * variance
    )
    errors = []
    for steps in (40, 80, 160):
        ratios = np.geomspace(0.002, 1e7, steps + 1)
        log_p = flow_log_density(denoiser, x, ratios, 0.7, exact_trace)
        errors.append(float((log_p - expected).abs().max()))
    assert errors[0] / errors[1] > 8, errors
    assert errors[1] / errors[2] > 8, errors
    assert errors[2] < 2e-5, errors


def test_probes_find_the_trace_of_any_matrix_on_average():
    matrix = torch.randn(6, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    rows = 4000
    x = torch.zeros(rows, 6, dtype=torch.float64, requires_grad=True)
    exact = exact_trace(x @ matrix.T, x, 0)
    torch.testing.assert_close(exact, torch.full_like(exact, float(matrix.trace())))
    guess = hutchinson_trace(0, torch.arange(rows), 2)(x @ matrix.T, x, 0)
    error = float(guess.std()) / math.sqrt(rows)
    assert abs(float(guess.mean()) - float(matrix.trace())) < 4 * error
    diagonal = hutchinson_trace(0, torch.arange(rows))(x * matrix.diagonal(), x, 0)
    torch.testing.assert_close(diagonal, exact)  # +-1 squared is 1


def test_more_probes_scatter_less():
    matrix = torch.ones(8, 8, dtype=torch.float64)
    x = torch.zeros(1000, 8, dtype=torch.float64, requires_grad=True)
    few, many = (
        float(hutchinson_trace(0, torch.arange(1000), n)(x @ matrix, x, 0).std()) for n in (1, 16)
    )
    assert 3.3 < few / many < 4.8


# Images of 8 bits ---------------------------------------------------------------------------------


def test_each_value_lies_anywhere_in_its_own_256th():
    images = np.arange(256, dtype=np.uint8).reshape(1, 16, 16, 1).repeat(200, axis=0)
    x = dequantised(images, 0, torch.arange(200))
    assert x.dtype == torch.float64
    within = (x.numpy() + 1) * 127.5 - images.transpose(0, 3, 1, 2)
    assert within.min() > -0.5
    assert within.max() < 0.5
    assert abs(within.mean()) < 5 / math.sqrt(12 * within.size)
    assert within.std() / 127.5 == pytest.approx(ROUNDING_STD, rel=0.01)


def test_256_values_that_are_equally_likely_cost_8_bits():
    density = 1 / (256 / 127.5)  # uniform over all the values' ranges
    assert bits_of(np.array([48 * math.log(density)]), 48) == pytest.approx(8.0)


@pytest.mark.parametrize("name", SCHEDULE_NAMES)
def test_the_way_leads_from_the_rounding_to_the_last_level_with_signal(name):
    schedule = NoiseSchedule.from_config(ScheduleConfig(name))
    ratios = flow_ratios(schedule, 12)
    levels = schedule.sigma[1:] / np.maximum(schedule.alpha[1:], 1e-300)
    assert len(ratios) == 13
    assert ratios[0] == max(levels[0], ROUNDING_STD)
    assert ratios[-1] == levels[schedule.alpha[1:] > 0].max()
    assert (np.diff(ratios) > 0).all()


MEANS, STD = (-0.4, 0.5, 0.1), 0.2  # of class 0, class 1 and any


class GaussianNet(nn.Module):
    """The exact prediction for pixels N(mean of the class, STD^2), in place of a network."""

    def __init__(self, config):
        super().__init__()
        self.conv_in = nn.Conv2d(1, 1, 1)  # says which device it is on
        self.model = DiffusionModel(config, self)

    def forward(self, x_in, c_noise, label):
        schedule, prediction = self.model.schedule, self.model.prediction
        if prediction.type == "edm":
            sigma = np.exp(4.0 * c_noise.double().numpy())
            alpha = np.ones_like(sigma)
        else:  # between two steps as its own schedule goes on: evenly in ln r
            r = schedule.sigma[1:] / schedule.alpha[1:]
            t = c_noise.double().numpy() + 1
            ratio = np.exp(np.interp(t, np.arange(1, len(r) + 1), np.log(r)))
            alpha = 1 / np.sqrt(1 + ratio**2)
            sigma = ratio * alpha
        k = prediction.denoiser_coefficients(alpha, sigma)
        alpha, sigma, p_x, p_F, c_in = (
            torch.from_numpy(v)[:, None, None, None] for v in (alpha, sigma, k.p_x, k.p_F, k.c_in)
        )
        x_t = x_in.double() / c_in
        mean = torch.tensor(MEANS)[label][:, None, None, None]
        x0_hat = (STD**2 * alpha * x_t + sigma**2 * mean) / (alpha**2 * STD**2 + sigma**2)
        return (x0_hat - p_x * x_t) / p_F


def gaussian_model(prediction="edm", schedule="edm"):
    net = UNetConfig(1, 1, (32,), 1, ("AttnDownBlock2D",), ("AttnUpBlock2D",), num_class_embeds=3)
    config = ModelConfig(net, ScheduleConfig(schedule), prediction, 0.5, (8, 8), ("low", "high"))
    return DiffusionModel(config, GaussianNet(config))


def images_of(mean, count, seed=0):
    x = np.random.default_rng(seed).normal(mean, STD, size=(count, 8, 8, 1))
    return ((x + 1) * 127.5).round().clip(0, 255).astype(np.uint8)


@pytest.mark.parametrize(("prediction", "schedule"), [("edm", "edm"), ("v", "linear")])
@pytest.mark.parametrize("label", [0, 1, None])
def test_a_model_that_knows_the_data_needs_the_datas_own_bits(prediction, schedule, label):
    model = gaussian_model(prediction, schedule)
    mean = MEANS[2 if label is None else label]
    images = images_of(mean, 6)
    labels = None if label is None else np.full(6, label)
    found = bits_per_dimension(model, images, labels, seed=3)
    x = dequantised(images, 3, torch.arange(6))
    variance = torch.tensor(STD**2 + flow_ratios(model.schedule, 1)[0] ** 2, dtype=torch.float64)
    expected = bits_of(gaussian_log_density(x, mean, variance).numpy(), 64)
    assert found.dtype == np.float64
    np.testing.assert_allclose(found, expected, atol=0.01)


def test_an_image_of_the_wrong_class_costs_what_the_classes_lie_apart():
    images = images_of(MEANS[0], 6)
    right, wrong = (
        bits_per_dimension(gaussian_model(), images, np.full(6, label)) for label in (0, 1)
    )
    apart = (MEANS[1] - MEANS[0]) ** 2 / (2 * STD**2) / math.log(2)
    assert np.mean(wrong - right) == pytest.approx(apart, rel=0.1)


def test_bits_are_a_function_of_the_seed_and_not_of_the_batch(monkeypatch):
    model, images, labels = gaussian_model(), images_of(0.1, 5), np.zeros(5, np.int64)
    once = bits_per_dimension(model, images, labels, seed=1, num_steps=4)
    monkeypatch.setattr("models.evaluation.likelihood.BATCH_SIZE", 2)
    np.testing.assert_allclose(
        bits_per_dimension(model, images, labels, seed=1, num_steps=4), once, rtol=1e-6
    )
    assert (bits_per_dimension(model, images, labels, seed=2, num_steps=4) != once).all()


def test_whoever_leaves_stops_it():
    with pytest.raises(Stopped):
        bits_per_dimension(gaussian_model(), images_of(0.1, 2), stopped=lambda: True)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_steps": 0}, r"num_steps is 0; it must lie in 1\.\.1000"),
        ({"probes": 65}, r"probes is 65; it must lie in 1\.\.64"),
        ({"seed": -1}, "seed is -1"),
    ],
)
def test_numbers_out_of_bounds_are_refused(settings, message):
    with pytest.raises(Invalid, match=message):
        bits_per_dimension(gaussian_model(), images_of(0.1, 2), **settings)
