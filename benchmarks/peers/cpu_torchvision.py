"""A workaround to import before torchvision, whose image transforms both trainers use.

PyPI's torchvision is built for CUDA. With a CPU build of torch its compiled part does not load, and
the import fails at two operators that it describes and that are not called here. Declaring them
beforehand avoids the failure; the trainers otherwise use only torchvision's Python code.
"""

import torch


def declare_operators() -> None:
    boxes = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
    for name in ("nms", "qnms"):
        torch.library.define(f"torchvision::{name}", boxes)


# PyPI's torch has CUDA too, and then importing torchvision defines the operators.
if torch.version.cuda is None:
    declare_operators()
