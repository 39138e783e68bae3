"""The parts of the graph; what it computes is tested in tests/models/runtime."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from models.nets.graph import unet_graph
from models.nets.unet import UNet
from tests.models.nets.shapes import NETS


@pytest.mark.parametrize("name", NETS)
def test_its_parameters_are_those_of_the_network(name):
    config, size = NETS[name]
    expected = {key: tuple(value.shape) for key, value in UNet(config).state_dict().items()}
    graph = unet_graph(config, size)
    assert graph.parameters == expected
    assert graph.num_parameters == sum(p.numel() for p in UNet(config).parameters())


@pytest.mark.parametrize("name", NETS)
def test_its_operations_are_those_that_torch_counts(name):
    config, size = NETS[name]
    with torch.device("meta"):  # counted, not computed
        net = UNet(config).eval()
        x, c_noise = torch.zeros(1, config.in_channels, *size), torch.zeros(1)
        label = torch.zeros(1, dtype=torch.int64) if config.num_class_embeds else None
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        net(x, c_noise, label)
    assert unet_graph(config, size).flops == counter.get_total_flops()


@pytest.mark.parametrize("name", NETS)
def test_each_value_is_made_once_before_it_is_read(name):
    graph = unet_graph(*NETS[name])
    known = {"", *graph.inputs, *graph.parameters, *graph.constants}
    for node in graph.nodes:
        assert set(node.inputs) <= known
        assert not set(node.outputs) & known
        known |= set(node.outputs)
    assert "y" in known
