"""Nets of every kind with random weights, to be computed by several libraries."""

import numpy as np
import torch

from models.nets.graph import inner_convolutions, unet_graph
from models.nets.unet import UNet
from models.runtime.openvino import OpenVinoNet
from tests.models.nets.shapes import NETS


class Case:
    """A net with random weights, and `count` rows of inputs."""

    def __init__(self, name, count):
        self.config, self.size = NETS[name]
        self.graph = unet_graph(self.config, self.size)
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
        ranges = ((-0.3, 4.0),) * len(inner_convolutions(self.graph))
        return OpenVinoNet(
            self.graph, self.weights, precision, ranges if precision == "int8" else ()
        )

    def call(self, net, rows):
        label = None if self.label is None else self.label[rows]
        return np.array(net(self.x[rows], self.c_noise[rows], label))

    def torch(self):
        label = None if self.label is None else torch.from_numpy(self.label)
        return self.net(torch.from_numpy(self.x), torch.from_numpy(self.c_noise), label).numpy()
