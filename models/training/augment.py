"""More images from few: moved, scaled, turned and mirrored copies that do not leak.

The net is told what was done to an image (Karras et al. 2022, section 5), by numbers that are all
zero where nothing was; so it can make images as they are, since that is what it is asked for when
it is told nothing. What is told enters by a linear map without a bias, which belongs to the
training and not to the model.
"""

import math

import torch
from torch import Tensor
from torch.nn.functional import affine_grid, grid_sample

from models.diffusion.noise import Stream, uniform

NUM_TOLD = 6  # shift in x and y, log scale, sine and cosine - 1 of the turn, mirrored

MAX_SHIFT = 0.125  # of a side
SCALE_STD = 0.2  # of the binary logarithm
MAX_TURN = math.pi / 12


def augment(
    images: Tensor, probability: float, mirror: bool, seed: int, slot: Tensor, step: int
) -> tuple[Tensor, Tensor]:
    """The images (B, C, H, W), each changed in each way with this probability, and what the net is
    told of it, float32 (B, NUM_TOLD). Image b is a function of (seed, slot[b], step)."""
    u = uniform(seed, slot, step, Stream.AUGMENTATION, size=10).float().to(images.device)
    done = (u[:, :5] < probability).float()
    shift_x = done[:, 0] * MAX_SHIFT * (2.0 * u[:, 5] - 1.0)
    shift_y = done[:, 1] * MAX_SHIFT * (2.0 * u[:, 6] - 1.0)
    scale = done[:, 2] * SCALE_STD * torch.special.ndtri(u[:, 7]).clamp(-2.0, 2.0)
    turn = done[:, 3] * MAX_TURN * (2.0 * u[:, 8] - 1.0)
    mirrored = done[:, 4] * (u[:, 9] < 0.5) * float(mirror)
    told = torch.stack(
        [
            shift_x / MAX_SHIFT,
            shift_y / MAX_SHIFT,
            scale / SCALE_STD,
            turn.sin() / math.sin(MAX_TURN),
            (turn.cos() - 1.0) / (1.0 - math.cos(MAX_TURN)),
            mirrored,
        ],
        dim=1,
    )
    moved = _moved(images, _matrices(shift_x, shift_y, scale, turn, mirrored))
    return torch.where((told != 0).any(1)[:, None, None, None], moved, images), told


def _matrices(
    shift_x: Tensor, shift_y: Tensor, scale: Tensor, turn: Tensor, mirrored: Tensor
) -> Tensor:
    """(B, 2, 3): where in the image a pixel of the result looks, in units of half a side."""
    shrink = torch.exp2(-scale)
    cosine, sine = shrink * turn.cos(), shrink * turn.sin()
    flip = 1.0 - 2.0 * mirrored
    rows = [flip * cosine, -sine, 2.0 * shift_x, flip * sine, cosine, 2.0 * shift_y]
    return torch.stack(rows, dim=1).view(-1, 2, 3)


def _moved(images: Tensor, matrices: Tensor) -> Tensor:
    grid = affine_grid(matrices, list(images.shape), align_corners=False)
    return grid_sample(
        images, grid, mode="bilinear", padding_mode="reflection", align_corners=False
    )
