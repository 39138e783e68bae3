"""What a step minimises: the levels that are drawn and how much each counts."""

import numpy as np
import pytest
import torch

from models.diffusion.config import ModelConfig
from models.diffusion.model import DiffusionModel
from models.diffusion.schedule import NoiseSchedule, ScheduleConfig
from models.nets.config import UNetConfig
from models.nets.unet import UNet
from models.training.objective import (
    EDM_LOG_SIGMA_MEAN,
    EDM_LOG_SIGMA_STD,
    Batch,
    LearnedWeighting,
    draw_levels,
    min_snr_weight,
)

NET = UNetConfig(1, 1, block_out_channels=(8, 8), norm_num_groups=4, attention_head_dim=4)


def model(prediction_type="epsilon", schedule="linear"):
    config = ModelConfig(NET, ScheduleConfig(schedule), prediction_type, 0.5, (8, 8))
    return DiffusionModel(config, UNet(NET))


def batch(start, stop, size, step=0):
    slot = torch.arange(start, stop)
    return Batch(torch.zeros(len(slot), 1, 8, 8), None, slot, step, size)


@pytest.mark.parametrize("stratified", [True, False])
def test_a_level_is_a_function_of_the_place_in_the_whole_batch(stratified):
    whole = draw_levels(model(), batch(0, 64, 64), 3, stratified)
    part = draw_levels(model(), batch(16, 24, 64), 3, stratified)
    assert np.array_equal(whole.sigma[16:24], part.sigma)


def test_stratified_levels_visit_every_part_of_the_schedule_in_each_batch():
    levels = draw_levels(model(), batch(0, 100, 100), 1, True)
    t = np.searchsorted(model().schedule.sigma, levels.sigma)
    assert (np.diff(t) > 0).all()
    assert np.array_equal((t - 1) // 10, np.arange(100))


@pytest.mark.parametrize("stratified", [True, False])
def test_edm_levels_are_log_normal(stratified):
    drawn = [
        np.log(draw_levels(model("edm", "edm"), batch(0, 500, 500, n), 0, stratified).sigma)
        for n in range(40)
    ]
    log_sigma = np.concatenate(drawn)
    assert abs(log_sigma.mean() - EDM_LOG_SIGMA_MEAN) < 5 * EDM_LOG_SIGMA_STD / np.sqrt(20_000)
    assert abs(log_sigma.std() / EDM_LOG_SIGMA_STD - 1) < 5 / np.sqrt(2 * 20_000)


def levels_at(a_model, t):
    from models.diffusion.denoiser import NoiseLevels

    return NoiseLevels.at(a_model, np.array(t))


def test_min_snr_weights_are_those_of_its_paper():
    """min(snr, 5) / snr on epsilon, min(snr, 5) on x0, min(snr, 5) / (snr + 1) on v."""
    t = [1, 100, 500, 1000]
    snr = NoiseSchedule.from_config(ScheduleConfig("linear")).snr[t]
    expected = {
        "epsilon": np.minimum(snr, 5) / snr,
        "x0": np.minimum(snr, 5),
        "v": np.minimum(snr, 5) / (snr + 1),
    }
    for prediction_type, weight in expected.items():
        found = min_snr_weight(model(prediction_type), levels_at(model(), t))
        assert np.allclose(found, weight, rtol=1e-9), prediction_type


def test_the_learned_weight_finds_the_logarithm_of_the_error():
    """The minimum of E[L e^-u + u] is u = ln E[L]."""
    weighting = LearnedWeighting()
    log_ratio = torch.linspace(-3.0, 3.0, 200)
    loss = torch.exp(-1.0 - 0.5 * log_ratio)
    assert torch.equal(weighting(log_ratio), torch.zeros(200))
    optimizer = torch.optim.Adam(weighting.parameters(), lr=0.02)
    for _ in range(1500):
        optimizer.zero_grad()
        u = weighting(log_ratio)
        (loss * torch.exp(-u) + u).mean().backward()
        optimizer.step()
    assert (weighting(log_ratio) - loss.log()).abs().max() < 0.1
