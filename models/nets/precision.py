"""The precision that a network computes in; its weights are kept in float32."""

from typing import Literal

Precision = Literal["float32", "bfloat16"]
PrecisionChoice = Literal["auto", "float32", "bfloat16"]  # auto: the faster one of this machine
