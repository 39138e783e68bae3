"""The parts of the graph; what it computes is tested in tests/models/runtime."""

import pytest

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
def test_each_value_is_made_once_before_it_is_read(name):
    graph = unet_graph(*NETS[name])
    known = {"", *graph.inputs, *graph.parameters, *graph.constants}
    for node in graph.nodes:
        assert set(node.inputs) <= known
        assert not set(node.outputs) & known
        known |= set(node.outputs)
    assert "y" in known
