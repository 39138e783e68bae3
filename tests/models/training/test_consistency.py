"""Consistency tuning: the schedule of its targets, the loss where the answer is known."""

from itertools import pairwise

import numpy as np
import pytest
import torch

from models.diffusion.config import ModelConfig
from models.diffusion.denoiser import noised
from models.diffusion.model import DiffusionModel
from models.diffusion.noise import Stream, normal
from models.diffusion.schedule import ScheduleConfig
from models.nets.config import UNetConfig
from models.nets.unet import UNet
from models.training.consistency import STAGES, lower_ratios
from models.training.objective import Batch, Consistency, Network

NET = UNetConfig(1, 1, block_out_channels=(8, 8), norm_num_groups=4, attention_head_dim=4)
RATIOS = np.geomspace(0.002, 80.0, 50)


def consistency_loss(model, net, batch):
    """The loss (B,) of a step with seed 0."""
    network = Network(model, net, 0)
    objective = Consistency(network)
    levels = objective.draw_levels(batch)
    noise = normal(0, batch.slot, batch.step, batch.x0.shape[1:], Stream.TRAINING)
    x_t = noised(batch.x0, levels, noise)
    return objective.loss(batch, levels, noise, x_t, network(batch, x_t, levels)).minimised


def test_the_target_comes_closer_stage_by_stage():
    gaps = [RATIOS - lower_ratios(RATIOS, i / len(STAGES)) for i in range(len(STAGES))]
    assert gaps[0][0] / RATIOS[0] == pytest.approx(5 / 8, rel=1e-3)  # n(0) = 5
    for wide, narrow in pairwise(gaps):
        assert (narrow <= wide).all()
        assert (narrow > 0).all()
    assert gaps[-1][-1] == pytest.approx(80.0 / 2 ** STAGES[-1])


def test_the_end_is_in_the_last_stage():
    assert np.array_equal(lower_ratios(RATIOS, 1.0), lower_ratios(RATIOS, 0.999))


@pytest.mark.parametrize(
    ("prediction_type", "schedule"), [("edm", "edm"), ("v", "cosine"), ("epsilon", "linear")]
)
def test_a_model_that_knows_the_image_loses_nothing(prediction_type, schedule):
    """A net that answers the target of x0 gives x0_hat = x0 at every level, whichever the noise."""
    config = ModelConfig(NET, ScheduleConfig(schedule), prediction_type, 0.5, (8, 8))
    x0 = torch.rand(16, 1, 8, 8, generator=torch.Generator().manual_seed(0)) * 2 - 1
    model = DiffusionModel(config, UNet(NET))

    class Oracle(torch.nn.Module):
        """Reads y off x_in, knowing x0."""

        def forward(self, x_in, c_noise, label, augmentation):
            ratio = np.exp(np.interp(c_noise.double().numpy(), *self.table))
            alpha, sigma, _, _ = model.schedule.between(ratio)
            k = model.prediction.denoiser_coefficients(alpha, sigma)
            wide = [torch.from_numpy(v)[:, None, None, None] for v in (k.c_in, k.p_x, k.p_F)]
            x_t = x_in.double() / wide[0]
            return ((x0.double() - wide[1] * x_t) / wide[2]).float()

        rows = np.flatnonzero(model.schedule.alpha[1:] > 0) + 1
        table = (
            model.schedule.c_noise(rows),
            np.log(model.schedule.sigma[rows] / model.schedule.alpha[rows]),
        )

    batch = Batch(x0, None, torch.arange(16), 0, 16, progress=0.5)
    untrained = consistency_loss(model, model.net, batch)
    known = consistency_loss(model, Oracle(), batch)
    assert known.shape == (16,)
    assert known.mean() < 1e-2 * untrained.mean()


def test_the_target_is_taken_as_fixed():
    config = ModelConfig(NET, ScheduleConfig("edm"), "edm", 0.5, (8, 8))
    model = DiffusionModel(config, UNet(NET))
    batch = Batch(torch.rand(4, 1, 8, 8), None, torch.arange(4), 0, 4, progress=0.9)
    calls = []

    class Watched(torch.nn.Module):
        def forward(self, *given):
            calls.append(torch.is_grad_enabled())
            return model.net(*given)

    consistency_loss(model, Watched(), batch).mean().backward()
    assert calls == [True, False]
    assert all(p.grad is not None for n, p in model.net.named_parameters() if "conv_out" in n)
