"""Graphs of CUDA against the calls that they stand for."""

import pytest
import torch
from torch import nn

from models.nets.config import UNetConfig
from models.nets.unet import UNet
from models.runtime.cuda_graphs import GraphPool

pytestmark = pytest.mark.gpu

CONFIG = UNetConfig(1, 1, (8, 8), norm_num_groups=4, attention_head_dim=4, num_class_embeds=3)


def net_of(dtype):
    torch.manual_seed(0)
    net = UNet(CONFIG).eval().requires_grad_(False)
    nn.init.normal_(net.conv_out.weight, std=0.1)
    return net.to("cuda", getattr(torch, dtype)).to(memory_format=torch.channels_last)


def inputs_of(width, dtype, seed):
    torch.manual_seed(seed)
    x = torch.randn(width, 1, 8, 8, device="cuda", dtype=getattr(torch, dtype))
    c_noise = 1000 * torch.rand(width, device="cuda")
    return x, c_noise, torch.randint(3, (width,), device="cuda")


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@torch.inference_mode()
def test_graphs_of_several_widths_give_what_the_network_gives(dtype):
    net, pool, graphs = net_of(dtype), GraphPool(), {}
    for width in (1, 4):
        graphs[width] = pool.capture(net, inputs_of(width, dtype, seed=9))
    for seed in range(3):
        for width, graphed in graphs.items():
            inputs = inputs_of(width, dtype, seed)
            torch.testing.assert_close(graphed(*inputs), net(*inputs))
