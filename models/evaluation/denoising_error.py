"""How well a model denoises, by noise level."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from models.diffusion.denoiser import NoiseLevels, denoise, noised
from models.diffusion.model import DiffusionModel
from models.diffusion.noise import Stream, normal

NUM_LEVELS = 10


@dataclass(frozen=True)
class LevelError:
    """Mean squared error per pixel of x0_hat at one noise level of the schedule."""

    t: int
    alpha: float
    sigma: float
    mse: float


@torch.inference_mode()
def denoising_error(
    model: DiffusionModel, images: Tensor, labels: Tensor | None, seed: int
) -> list[LevelError]:
    """Return the error on images (B, C, H, W) at NUM_LEVELS levels, from hardly any noise to almost
    all.

    The noise is a function of the seed, so that two states of a model can be compared.
    """
    T = model.schedule.num_train_timesteps
    count = min(NUM_LEVELS, T)
    index = torch.arange(len(images), device=images.device)
    errors = []
    for t in (T * np.arange(1, count + 1)) // count:
        levels = NoiseLevels.at(model, np.full(len(images), t))
        noise = normal(seed, index, int(t), images.shape[1:], Stream.HELD_OUT)
        x0_hat = denoise(model, noised(images, levels, noise), levels, labels)
        mse = (x0_hat - images).square().mean()
        errors.append(
            LevelError(int(t), float(levels.alpha[0]), float(levels.sigma[0]), float(mse))
        )
    return errors
