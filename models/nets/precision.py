"""The precision that a network computes in; its weights are kept in float32."""

from typing import Literal

Precision = Literal["float32", "bfloat16"]
