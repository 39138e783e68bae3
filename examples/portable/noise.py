"""The noise of a portable model, as its README.md defines it. Needs numpy alone."""

import math

import numpy as np

LOW = 2**32 - 1


def normal(seed, num_images, step, shape):
    """Return standard normal numbers, float32 (num_images, *shape)."""
    size = math.prod(shape)
    pairs = -(-size // 2)
    block = np.arange(-(-pairs // 2), dtype=np.uint64)
    image = np.arange(num_images, dtype=np.uint64)[:, None]
    words = np.concatenate(philox(block, image, step, 0, seed & LOW, seed >> 32), axis=1)
    radius = np.sqrt(-2 * np.log((words[:, :pairs] + 0.5) / 2**32))
    angle = 2 * np.pi * words[:, pairs : 2 * pairs] / 2**32 - np.pi / 4
    both = np.concatenate([radius * np.cos(angle), radius * np.sin(angle)], axis=1)
    return both[:, :size].reshape(num_images, *shape).astype(np.float32)


def philox(c0, c1, c2, c3, k0, k1):
    """Return Philox 4x32-10: four arrays of 32-bit words (images, blocks)."""
    for _ in range(10):
        p0, p1 = 0xD2511F53 * c0, 0xCD9E8D57 * c2
        c0, c1, c2, c3 = p1 >> 32 ^ c1 ^ k0, p1 & LOW, p0 >> 32 ^ c3 ^ k1, p0 & LOW
        k0, k1 = k0 + 0x9E3779B9 & LOW, k1 + 0xBB67AE85 & LOW
    return c0, c1, c2, c3
