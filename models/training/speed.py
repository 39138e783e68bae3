"""How fast a training goes, and how many images a net has to see: benchmarks, and rules from them.

Speeds are in floating-point operations of the network's forward pass, per second of training; a
training step does about three times as many, which is left out on both sides. docs/recipes.md has
the measurements.
"""

from collections.abc import Mapping

from models.nets.config import UNetConfig
from models.nets.graph import unet_graph

# Of two cores (benchmarks/README.md, "train"); nothing is known of a GPU before it has trained.
BENCHMARKED: Mapping[str, float] = {"cpu": 3e10, "cpu_bf16": 5e10}

ENOUGH_IMAGES = 100_000  # seen: digits and emoji take shape
ENOUGH_PASSES = 10  # over all images, where these are many


def flops_of(net: UNetConfig, image_size: tuple[int, int]) -> int:
    """Return the operations of the forward pass for one image of (height, width)."""
    return unet_graph(net, image_size).flops


def images_per_second(
    net: UNetConfig, image_size: tuple[int, int], flops_per_second: float
) -> float:
    """Estimate how many images of (height, width) the net learns from in a second."""
    return flops_per_second / flops_of(net, image_size)


def images_needed(num_images: int) -> int:
    """Return how many images a net must see before its own look like them."""
    return max(ENOUGH_IMAGES, ENOUGH_PASSES * num_images)
