"""The network through OpenVINO against torch, and its rows against each other."""

import random

import numpy as np
import pytest
import torch

from models.nets.graph import unet_graph
from models.nets.unet import UNet
from models.runtime.openvino import WIDTHS, OpenVinoNet
from tests.models.nets.shapes import NETS


class Case:
    """A net with random weights, and `count` rows of inputs."""

    def __init__(self, name, count):
        self.config, self.size = NETS[name]
        torch.manual_seed(0)
        self.net = UNet(self.config).eval().requires_grad_(False)
        for parameter in self.net.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.05)
        self.weights = {key: value.numpy() for key, value in self.net.state_dict().items()}
        self.x = torch.randn(count, self.config.in_channels, *self.size).numpy()
        self.c_noise = np.linspace(0.0, 999.0, count, dtype=np.float32)
        classes = self.config.num_class_embeds
        self.label = None if classes is None else np.arange(count) % classes

    def openvino(self, precision="float32"):
        return OpenVinoNet(unet_graph(self.config, self.size), self.weights, precision)

    def call(self, net, rows):
        label = None if self.label is None else self.label[rows]
        return np.array(net(self.x[rows], self.c_noise[rows], label))

    def torch(self):
        label = None if self.label is None else torch.from_numpy(self.label)
        return self.net(torch.from_numpy(self.x), torch.from_numpy(self.c_noise), label).numpy()


@pytest.mark.parametrize("name", NETS)
def test_it_computes_what_torch_computes(name):
    case = Case(name, 2)
    expected = case.torch()
    difference = np.abs(case.call(case.openvino(), slice(None)) - expected).max()
    assert difference < 1e-5 * np.abs(expected).max()


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("name", ["two levels", "scale", "classes", "small 28"])
def test_a_row_is_the_same_at_any_width_in_any_slot_and_company(name, precision):
    case, draw = Case(name, 24), random.Random(0)
    net = case.openvino(precision)
    alone = np.concatenate([case.call(net, [row]) for row in range(24)])
    for width in WIDTHS[1:]:
        for _ in range(4):
            rows = draw.sample(range(24), width)
            assert np.array_equal(case.call(net, rows), alone[rows])


def test_a_net_made_again_gives_the_same():
    case = Case("classes", 4)
    one, two = (case.call(case.openvino(), slice(None)) for _ in range(2))
    assert np.array_equal(one, two)


def test_bfloat16_is_near_float32():
    case = Case("two levels", 4)
    whole, half = (case.call(case.openvino(p), slice(None)) for p in ("float32", "bfloat16"))
    assert np.abs(whole - half).max() < 0.1 * np.abs(whole).max()
