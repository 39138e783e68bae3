"""Import this before torchvision, which both trainers take their transforms of images from.

PyPI's torchvision is built for CUDA. Beside a torch for the CPU its compiled part does not load,
and importing it fails at two operators that it describes and that nobody calls here. Declared
beforehand they are no obstacle; everything else that is used is torchvision's own Python.
"""

import torch


def declare_operators() -> None:
    boxes = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
    for name in ("nms", "qnms"):
        torch.library.define(f"torchvision::{name}", boxes)


# PyPI's torch has CUDA too, and there they exist as soon as torchvision is imported.
if torch.version.cuda is None:
    declare_operators()
