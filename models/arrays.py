"""Types of arrays by their element, and images between uint8 and [-1, 1].

Images are uint8 (N, H, W, C) at the edge, in files and answers, and float32 tensors (B, C, H, W) in
[-1, 1] for networks.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

UInt8 = NDArray[np.uint8]
Int64 = NDArray[np.int64]
Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]


def to_uint8(x: Tensor) -> UInt8:
    """Return (B, C, H, W) in [-1, 1] as uint8 (B, H, W, C); values beyond are clipped."""
    scaled = ((x.clamp(-1.0, 1.0) + 1.0) * 127.5).round().to(torch.uint8)
    return np.asarray(scaled.permute(0, 2, 3, 1).cpu().numpy())


def to_float(images: UInt8 | Tensor) -> Tensor:
    """Return uint8 (B, H, W, C) as float32 (B, C, H, W) in [-1, 1]."""
    tensor = torch.from_numpy(images) if isinstance(images, np.ndarray) else images
    return tensor.permute(0, 3, 1, 2).float() / 127.5 - 1.0
