"""The precision that a network computes in; its weights are kept in float32."""

from collections.abc import Iterable
from typing import Literal

FloatPrecision = Literal["float32", "bfloat16"]
FloatChoice = Literal["auto", FloatPrecision]  # auto: the faster one of this machine
Precision = Literal[FloatPrecision, "int8"]
PrecisionChoice = Literal[FloatChoice, "int8"]

# Of int8: the least and the largest input of each convolution that computes in it, in the order of
# models.nets.graph.inner_convolutions. Empty for other precisions.
Ranges = tuple[tuple[float, float], ...]


def ranges_of(values: Iterable[Iterable[float]]) -> Ranges:
    """Return ranges that were pairs in JSON or in a message."""
    return tuple((low, high) for low, high in values)
