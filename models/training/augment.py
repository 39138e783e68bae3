"""More images from few: shifted, scaled, rotated and mirrored copies that do not leak.

The network is conditioned on the change (Karras et al. 2022, section 5) by labels that are all zero
for an unchanged image, so that without labels it makes images as they are. The labels enter by a
linear map without a bias, which belongs to the training and not to the model.
"""

import math

import torch
from torch import Tensor
from torch.nn.functional import affine_grid, grid_sample

from models.diffusion.noise import Stream, uniform

NUM_LABELS = 6  # shift in x and y, log scale, sine and cosine - 1 of the rotation, mirrored

MAX_SHIFT = 0.125  # of a side
SCALE_STD = 0.2  # of the binary logarithm
MAX_TURN = math.pi / 12


def augment(
    images: Tensor, probability: float, mirror: bool, seed: int, slot: Tensor, step: int
) -> tuple[Tensor, Tensor]:
    """Return the images (B, C, H, W), each changed in each way with this probability, and the
    labels of the changes, float32 (B, NUM_LABELS).

    Image b is a function of (seed, slot[b], step).
    """
    u = uniform(seed, slot, step, Stream.AUGMENTATION, size=10).float().to(images.device)
    done = (u[:, :5] < probability).float()
    shift_x = done[:, 0] * MAX_SHIFT * (2.0 * u[:, 5] - 1.0)
    shift_y = done[:, 1] * MAX_SHIFT * (2.0 * u[:, 6] - 1.0)
    scale = done[:, 2] * SCALE_STD * torch.special.ndtri(u[:, 7]).clamp(-2.0, 2.0)
    turn = done[:, 3] * MAX_TURN * (2.0 * u[:, 8] - 1.0)
    mirrored = done[:, 4] * (u[:, 9] < 0.5) * float(mirror)
    labels = torch.stack(
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
    return torch.where((labels != 0).any(1)[:, None, None, None], moved, images), labels


def _matrices(
    shift_x: Tensor, shift_y: Tensor, scale: Tensor, turn: Tensor, mirrored: Tensor
) -> Tensor:
    """Return (B, 2, 3): the place in the image that each pixel of the result is read from, in units
    of half a side."""
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
